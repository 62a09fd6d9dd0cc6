"""Estimates the written pages of all memory from a random sample of units; no I/O.

The sample is drawn without replacement; the variable is the number of pages written in
each unit (Cochran, Sampling Techniques, ch. 2 and 9).
"""

import math
from collections.abc import Sequence

from pagescan.model.results import Estimate

_NORMAL = 1.959964
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_TIMES = 3  # drawing three times the population misses a unit with exp(-3), or 5 %


def estimate(counts: Sequence[int], population: int, least: int, most: int) -> Estimate:
    """Extrapolate from the pages written in each sampled unit to all units.

    The interval is Student's, with the correction for a finite population. But a
    sample does not know the rare units that it missed. Where 2 % of the units are full
    and the others empty, a third of all samples of 50 units are entirely empty, and
    would claim to be exact. So each end is computed from the sample plus one extreme
    unit. For steady workloads that stay between `least` and `most`, the interval holds
    the truth in 95 % of the looks or more.

    Args:
        counts: Pages written in each unit drawn at random.
        population: The number of all units.
        least: The fewest pages known to be written in any unit.
        most: The most pages known to be written in any unit. If a unit has more, the
            upper end may be too low in each look that does not draw that unit.
    """
    sampled, found = len(counts), sum(counts)
    if not sampled:  # every unit of the sample is unmapped
        return Estimate(population * least, population * least, population * most, 0.0)
    least, most = min(least, *counts), max(most, *counts)
    left = population - sampled
    low, high = found + left * least, found + left * most
    if sampled > 1:
        low = max(low, math.floor(_end(counts, population, least, -1)))
        high = min(high, math.ceil(_end(counts, population, most, +1)))
    total = round(found / sampled * population)
    return Estimate(total, low, high, sampled / population)


def within_possible(said: Estimate, found: int, more: int, most: int) -> Estimate:
    """Return an estimate that says no less than is known, and no more than can be.

    Args:
        said: The estimate for the memory that the sample stands for.
        found: The written pages of the sample.
        more: Those of other memory, which is known exactly.
        most: The most pages that can have been written in all.
    """
    most = max(found + more, most)
    pages = (min(max(number, found) + more, most) for number in said[:3])
    middle, low, high = pages
    return said._replace(pages=middle, low=low, high=high)


def _end(counts: Sequence[int], population: int, extreme: int, side: int) -> float:
    """Return one end of the interval, with one more unit of `extreme` pages."""
    sampled = len(counts)
    number = sampled + 1
    total = sum(counts) + extreme
    squares = sum(count * count for count in counts) + extreme * extreme
    variance = (squares - total * total / number) / sampled
    left = 1 - sampled / population
    error = math.sqrt(left * max(0.0, variance) / number)
    return population * (total / number + side * student(sampled - 1) * error)


def student(freedom: int) -> float:
    """Return the half-width of 95 % in standard errors, by degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.5; a table for up to 10 degrees, where that
    formula is too small.
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    first = (_NORMAL**3 + _NORMAL) / 4
    second = (5 * _NORMAL**5 + 16 * _NORMAL**3 + 3 * _NORMAL) / 96
    return _NORMAL + first / freedom + second / freedom**2


class Extremes:
    """Learns the fewest and the most pages that any unit has written per look.

    Both are known once three times as many units were drawn as there are. Then a new
    period begins, and at its end the period before is forgotten: workloads change.
    """

    def __init__(self) -> None:
        """Start without knowledge."""
        self._before: tuple[int, ...] = ()
        self._now: tuple[int, ...] = ()
        self._seen = 0

    def known(self, largest: int) -> tuple[int, int]:
        """Return both numbers; until known, the possible extremes: 0 and `largest`."""
        if not self._before:
            return 0, largest
        both = self._before + self._now
        return min(both), max(both)

    @property
    def most(self) -> int:
        """The most pages that any drawn unit has written of late; 0: none was drawn."""
        return max(self._before + self._now, default=0)

    def learn(self, counts: Sequence[int], population: int) -> None:
        """Add the pages written in each drawn unit; `population`: all units."""
        if not counts:
            return
        both = (*self._now, *counts)
        self._now = (min(both), max(both))
        self._seen += len(counts)
        if self._seen >= _TIMES * population:
            self._before, self._now, self._seen = self._now, (), 0
