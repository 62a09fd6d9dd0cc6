"""What a random part of the memory says about all of it, and how sure that is.

The part is a sample of units, drawn without replacement; what counts is the pages
written in each (Cochran, Sampling Techniques, ch. 2 and 9).
"""

import math
from collections.abc import Sequence

from pagescan.model import Estimate

_NORMAL = 1.959964
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_TIMES = 3  # a unit is missed by so many drawings of all with exp(-3), or 5 %


def estimate(counts: Sequence[int], population: int, least: int, most: int) -> Estimate:
    """Extrapolate from the pages written in each sampled unit to all units.

    The interval is Student's, with the correction for a finite population. But a
    sample alone does not know the rare units that it missed: where 2 % are full and
    the others empty, 50 units are all empty in a third of the samples, and would claim
    to be exact. So each end is that of the sample and one extreme unit more. Of steady
    workloads that keeps to `least` and `most`, it holds the truth in 95 % or more.

    Args:
        counts: Of units drawn at random.
        population: All units.
        least: The fewest pages written in any unit, as far as is known.
        most: The most; where a unit has more, and was not drawn, the upper end may be
            too low, and as often as that unit is not drawn.
    """
    sampled, found = len(counts), sum(counts)
    if not sampled:  # all that was drawn is unmapped
        return Estimate(population * least, population * least, population * most, 0.0)
    least, most = min(least, *counts), max(most, *counts)
    left = population - sampled
    low, high = found + left * least, found + left * most
    if sampled > 1:
        low = max(low, math.floor(_end(counts, population, least, -1)))
        high = min(high, math.ceil(_end(counts, population, most, +1)))
    total = round(found / sampled * population)
    return Estimate(total, low, high, sampled / population)


def _end(counts: Sequence[int], population: int, extreme: int, side: int) -> float:
    """Return one end of the interval; with the extreme unit, which was not drawn."""
    sampled = len(counts)
    number = sampled + 1
    total = sum(counts) + extreme
    squares = sum(count * count for count in counts) + extreme * extreme
    variance = (squares - total * total / number) / sampled
    left = 1 - sampled / population
    error = math.sqrt(left * max(0.0, variance) / number)
    return population * (total / number + side * student(sampled - 1) * error)


def student(freedom: int) -> float:
    """Return how many standard errors to each side hold 95 %, by degrees of freedom.

    Source: Abramowitz and Stegun, 26.7.5; it is too small for the first few.
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    first = (_NORMAL**3 + _NORMAL) / 4
    second = (5 * _NORMAL**5 + 16 * _NORMAL**3 + 3 * _NORMAL) / 96
    return _NORMAL + first / freedom + second / freedom**2


class Extremes:
    """The fewest and the most pages that were written in any unit, look by look.

    They are known when so many units were drawn as there are, three times over. Then
    it begins anew, and forgets after as many again: a workload may change.
    """

    def __init__(self) -> None:
        """Know nothing."""
        self._before: tuple[int, ...] = ()
        self._now: tuple[int, ...] = ()
        self._seen = 0

    def known(self, largest: int) -> tuple[int, int]:
        """Return both; until they are known what is possible, with the largest unit."""
        if not self._before:
            return 0, largest
        both = self._before + self._now
        return min(both), max(both)

    def learn(self, counts: Sequence[int], population: int) -> None:
        """Take in the pages of each unit that was drawn, of so many units."""
        if not counts:
            return
        both = (*self._now, *counts)
        self._now = (min(both), max(both))
        self._seen += len(counts)
        if self._seen >= _TIMES * population:
            self._before, self._now, self._seen = self._now, (), 0
