"""`watch --budget`: tracks a rotating random part, and extrapolates from it.

Every page that is tracked costs its writer one fault an interval. Where that would be
more than the budget, only some units of 2 MiB are protected, drawn anew at each look;
the others have no protection, and cost nothing. What the drawn ones say is extrapolated
to all inhabited units: `extrapolation`.
"""

import math
import random
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Self

from pagescan import native
from pagescan.arm import MAX_TABLES, Armed, owners_of, protecting
from pagescan.chosen import bounds_of, kinds_of, spans_of
from pagescan.errors import UsageError
from pagescan.extrapolation import Extremes, estimate
from pagescan.mappings import Selection
from pagescan.model import DEFAULT_RETURNED, Category, Mapping
from pagescan.native import Masks, Pace, Rule
from pagescan.regions import Batch
from pagescan.scanner import HUGE_PAGE, POPULATED, PRIVATE
from pagescan.session import now
from pagescan.target import PAGE_SIZE, Target
from pagescan.tracking import Look, Tracking
from pagescan.writewatch import WriteWatch

_FEWEST = 2  # units: fewer have no variance
_TRIAL_PAGES = 512


@dataclass(frozen=True, slots=True)
class Budget:
    """How many write faults a look may cause.

    Attributes:
        faults: In an interval.
    """

    faults: float

    @classmethod
    def of(cls, percent: float, interval: float) -> Self:
        """Return what so many percent of an interval's seconds pay for.

        Raises:
            UsageError: The percentage is not above 0 and at most 100.
        """
        if not 0 < percent <= 100:
            raise UsageError(f"--budget {percent:g} is not above 0 and at most 100")
        return cls(percent / 100 * interval / fault_seconds())

    def units(self, population: int, tracked: int, counts: Sequence[int]) -> int:
        """Return how many units may be tracked next.

        Args:
            population: All units.
            tracked: Those that were, this time; it grows at most twofold.
            counts: Pages written in each of them; empty: nothing is known yet.
        """
        if not counts:
            expected = HUGE_PAGE / PAGE_SIZE  # the worst: every page of it
            most = population
        else:
            # What the mean may be, not what it was: the budget is a bound.
            spread = math.sqrt(variance(counts) / len(counts)) if tracked > 1 else 0.0
            expected = fmean(counts) + 2 * spread
            most = 2 * tracked
        affordable = self.faults / expected if expected else math.inf
        return int(min(population, max(_FEWEST, min(affordable, most))))


def fault_seconds() -> float:
    """Measure what one write fault of tracking costs here, in this process's memory."""
    best = math.inf
    with WriteWatch(_TRIAL_PAGES * PAGE_SIZE) as watch, watch.buffer as view:
        _store(view)
        for _ in range(5):
            watch.reset()
            best = min(best, _store(view) - _store(view))
    return max(best, 1e-6) / _TRIAL_PAGES


def _store(view: memoryview) -> float:
    """Store to each page, and return the seconds that took."""
    begun = time.perf_counter()
    for offset in range(0, len(view), PAGE_SIZE):
        view[offset] = 1
    return time.perf_counter() - begun


class SampledTracking(Tracking):
    """Tracks as much of a target as a budget pays for.

    Attributes:
        budget: Faults a look.
        units: What is tracked now: pieces of mappings, of 2 MiB or less, ascending.
        exact: Whether that is everything there was when it was chosen.
    """

    def __init__(
        self,
        target: Target,
        uffd: int,
        armed: Armed,
        budget: Budget,
        pace: Pace | None = None,
    ) -> None:
        """Remember the budget; `start_within` arms."""
        super().__init__(target, uffd, armed, armed_at=now(), since=None, pace=pace)
        self.budget = budget
        self.units: list[Mapping] = []
        self.exact = False
        self._extremes = Extremes()

    @classmethod
    def start_within(
        cls,
        budget: Budget,
        target: Target,
        selection: Selection | None = None,
        *,
        max_tables: int = MAX_TABLES,
        pace: Pace | None = None,
    ) -> Self:
        """Attach, register what is selected, and arm a first random part of it."""
        return cls.attached_by(
            lambda uffd, armed: cls(target, uffd, armed, budget, pace),
            target,
            selection,
            max_tables,
        )

    def arm(self) -> None:
        """Register everything selected, protect what the budget pays for."""
        chosen = self._judged()
        self._armer.register(chosen)
        self.check_armed()
        population = self._inhabited(self._judged())
        self._draw(population, self.budget.units(len(population), 0, ()))
        self.armed_at = self.since = now()

    def look(
        self, *, rearm: bool = True, returned: Category = DEFAULT_RETURNED
    ) -> Look:
        """Find what was written in the part that is tracked; draw the next part.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        chosen = self._judged()
        fresh = self._armer.populated_outside(chosen)
        new = frozenset(owners_of(fresh, chosen))
        tracked = _within(self.units, chosen)
        found = self._written(tracked, rearm=False, returned=returned)
        batch = self._joined(found, chosen, new, returned)
        if rearm:
            self._armer.register([chosen[index] for index in sorted(new)])
        population = self._inhabited(chosen)
        counts = count_pages(batch, tracked)
        said = None
        if not self.exact and counts and len(tracked) < len(population):
            longest = max(unit.end - unit.start for unit in population)
            known = self._extremes.known(longest // PAGE_SIZE)
            said = estimate(counts, len(population), *known)
        if rearm:
            self._extremes.learn(counts, len(population))
            wanted = self.budget.units(len(population), len(tracked), counts)
            self._draw(population, wanted)
            self.armed.epoch += 1
        if not self.target.has_address_space():
            raise self.target.gone()
        moment = now()
        if rearm:
            self.since = moment
        cost = self.scanner.take_cost()
        self.cost += cost
        return Look(batch, tuple(self.armed.untracked), moment, cost, said)

    def _inhabited(self, chosen: Sequence[Mapping]) -> list[Mapping]:
        """Return the units in which there is a page; whole mappings if smaller."""
        rules = {key: index for index, key in enumerate(kinds_of(chosen))}
        asked = [
            Rule(
                asked=Masks(anyof=POPULATED, returned=Category.WPALLOWED),
                align=size or HUGE_PAGE,
            )
            for _, size in rules
        ]
        found = self.scanner.run(spans_of(chosen, rules), asked, join_gap=HUGE_PAGE)
        parts, owners = native.join(found, *bounds_of(chosen))
        units: dict[int, Mapping] = {}
        for start, end, owner in zip(parts.starts, parts.ends, owners, strict=True):
            mapping = chosen[owner]
            size = mapping.page_size or HUGE_PAGE
            for cut in range(start - start % size, end if owner >= 0 else start, size):
                low = max(mapping.start, cut)
                units[low] = mapping._replace(
                    start=low, end=min(mapping.end, cut + size)
                )
        return list(units.values())

    def _draw(self, population: Sequence[Mapping], wanted: int) -> None:
        """Lift the protection of this part, and protect another."""
        chosen = sorted(random.sample(population, wanted), key=lambda unit: unit.start)
        keep = {unit.start for unit in chosen}
        for unit in self.units:
            if unit.start not in keep:
                self._set(unit, protect=False)
        self.scanner.run(*protecting(chosen))
        for unit in chosen:
            if unit.kind not in PRIVATE:
                self._set(unit, protect=True)
        self.units = chosen
        self.exact = wanted == len(population)

    def _set(self, unit: Mapping, *, protect: bool) -> None:
        try:
            native.uffd_protect(
                self.uffd,
                unit.start,
                unit.end,
                align=unit.page_size or HUGE_PAGE,
                pace=self.scanner.pace,
                meter=self.scanner.meter,
                protect=protect,
            )
        except OSError as error:
            if not self.target.has_address_space():
                raise self.target.gone() from error
            # It was unmapped meanwhile, and is not there at the next look.


def count_pages(batch: Batch, units: Sequence[Mapping]) -> list[int]:
    """Return the pages of a batch in each of some units; both ascending."""
    starts = [unit.start for unit in units]
    counts = [0] * len(units)
    for start, end in zip(batch.starts, batch.ends, strict=True):
        index = max(0, bisect_right(starts, start) - 1)
        while index < len(units) and units[index].start < end:
            unit = units[index]
            counts[index] += max(0, min(end, unit.end) - max(start, unit.start))
            index += 1
    return [length // batch.page_size for length in counts]


def _within(units: Sequence[Mapping], chosen: Sequence[Mapping]) -> list[Mapping]:
    """Return those units that are mapped still, as they were."""
    starts, _ = bounds_of(chosen)
    held = []
    for unit in units:
        index = bisect_right(starts, unit.start) - 1
        if index >= 0 and unit.end <= chosen[index].end:
            held.append(unit)
    return held
