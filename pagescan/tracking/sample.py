"""The random sample of `watch --budget`: how many units, and which; pure, no I/O."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, variance
from typing import Generic, Protocol, Self, TypeVar

from pagescan.model.memory import HUGE_PAGE, PAGE_SIZE
from pagescan.tracking.ledger import Ledger

_FEWEST = 2  # units: fewer would have no variance
_random = random.Random()  # noqa: S311 - a sample, no secret


class Sortable(Protocol):
    """The requirements on a unit; parts of mappings meet them, and so do numbers."""

    def __lt__(self, other: Self, /) -> bool:
        """Whether it lies before another one."""

    def __hash__(self) -> int:
        """Return equal numbers for equal units."""


Unit = TypeVar("Unit", bound=Sortable)


@dataclass(frozen=True, slots=True)
class Budget:
    """The number of write faults that a look may cause.

    Attributes:
        faults: Per interval; if there is a share, only in the first one.
        share: Part of the target's processor time, 0 to 1; None: the faults are fixed.
    """

    faults: float
    share: float | None = None

    @classmethod
    def of(cls, percent: float, interval: float, fault_seconds: float) -> Self:
        """Return the budget for that percentage of a target's processor time.

        The target's use is not known yet: one processor is assumed for the start.
        """
        share = percent / 100
        return cls(Ledger(share).share * interval / fault_seconds, share)

    def of_use(self, processors: float) -> Self:
        """Return the budget for a target that uses this share of a processor.

        More than 1 counts as 1. The share is known before the first look: a look at
        everything would cost an idle target more than its budget.
        """
        if self.share is None:
            return self
        return replace(self, faults=self.faults * min(1.0, processors))

    def units(
        self,
        population: int,
        tracked: int,
        counts: Sequence[int],
        faults: float | None = None,
        extreme: int = 0,
    ) -> int:
        """Return how many units may be tracked next.

        Args:
            population: The number of all units.
            tracked: The number tracked this time; it grows at most twofold.
            counts: Pages written in each of them; empty: unknown yet.
            faults: How many the next look may cause; None: the fixed number.
            extreme: The most pages that any unit has written of late: the next sample
                may have more such units than this one.
        """
        faults = self.faults if faults is None else faults
        if not counts:
            expected = HUGE_PAGE / PAGE_SIZE  # the worst case: every page of a unit
            most = population
        else:
            # Use an upper bound of the mean, not the mean itself: the budget is a
            # limit.
            known = [*counts, max(extreme, *counts)]
            spread = math.sqrt(variance(known) / len(known))
            expected = fmean(known) + 2 * spread
            most = 2 * tracked
        affordable = faults / expected if expected else math.inf
        return int(min(population, max(_FEWEST, min(affordable, most))))


class Sample(Generic[Unit]):
    """A rotating random sample of a population of units.

    Attributes:
        population: All units, ascending.
        drawn: The sampled ones, ascending.
    """

    def __init__(self, choose: Callable[..., list[Unit]] = _random.sample) -> None:
        """Start empty; `choose` draws some of a list, as random.sample does."""
        self.population: list[Unit] = []
        self.drawn: list[Unit] = []
        self._choose = choose

    def draw(self, population: Sequence[Unit], wanted: int) -> None:
        """Draw the next sample: up to half of it are units of the one before.

        Lifting and protecting cost more than looking, so half of them may stay.

        Args:
            population: All units that exist now, ascending.
            wanted: The number of units to draw.
        """
        existing = set(population)
        still = [unit for unit in self.drawn if unit in existing]
        again = set(self._choose(still, min(len(still), wanted // 2)))
        others = [unit for unit in population if unit not in again]
        chosen = [*again, *self._choose(others, wanted - len(again))]
        self.drawn = sorted(chosen)
        self.population = list(population)

    def replace(self, change: Callable[[Unit], Unit | None]) -> None:
        """Replace each unit by another one, or by None: it is taken out."""
        self.population = _changed(self.population, change)
        self.drawn = _changed(self.drawn, change)


def _changed(
    units: Iterable[Unit], change: Callable[[Unit], Unit | None]
) -> list[Unit]:
    changed = map(change, units)
    return [unit for unit in changed if unit is not None]
