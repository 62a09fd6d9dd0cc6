"""A look and a tick: the result of one reading of a target's writes."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pagescan.model.batch import Batch
from pagescan.model.memory import Untracked
from pagescan.model.ranges import Ranges
from pagescan.model.results import Cost, Estimate, Summary, TargetFacts


class Sampled(NamedTuple):
    """The memory that a look with a budget was about.

    Attributes:
        drawn: The ranges that it has looked at.
        population: All ranges that have pages.
    """

    drawn: Ranges
    population: Ranges


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look.

    Attributes:
        batch: The written pages; those of mappings that appeared after arming are
            `new`.
        untracked: The parts of the selection that are not tracked.
        time: The end of the look, in UTC: if it rearmed, the next look's baseline.
        cost: The cost to the target.
        estimate: With a budget, the estimate for all pages; the batch is a part of
            them.
        sampled: With an estimate, the memory that the look was about.
    """

    batch: Batch
    untracked: tuple[Untracked, ...]
    time: datetime
    cost: Cost
    estimate: Estimate | None = None
    sampled: Sampled | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of the loop, with its look.

    Attributes:
        number: Its number, from 1.
        look: The pages written since `since`; None: the target was gone before the
            look.
        since: The end of the previous look, in UTC.
        seconds: Time since the previous look.
        end: In the last tick: interrupted count duration exited exec lost.
        totals: The totals of all looks so far.
        total_share: The share of the target's processor time that all looks have cost.
        unseen_ns: In the last tick, if the memory was gone before the look: how long
            before its end the last look was. None: nothing is unseen.
        total_ns: The processor time of the target that all looks have cost.
        estimated: Whether the totals include an estimate.
    """

    number: int
    look: Look | None
    since: datetime
    seconds: float
    end: str | None
    totals: Summary
    total_share: float | None = None
    unseen_ns: int | None = None
    total_ns: int | None = None
    estimated: bool = False


MUCH = 0.05  # of the target's processor time
_LITTLE = 5e-3  # of a processor: an idle target has nothing to lose


def costs_much(cost: Cost, seconds: float) -> bool:
    """Whether a look has cost the target so much that the user should know.

    Args:
        cost: The cost of the look.
        seconds: The time since the look before.
    """
    share, spent = cost.target_share or 0.0, (cost.target_ns or 0) / 1e9
    return share > MUCH and spent >= _LITTLE * seconds


def summary_of(look: Look) -> Summary:
    """Return the summary of a look; with an estimate, the estimated pages and bytes."""
    found = look.batch.summary()
    if look.estimate is None:
        return found
    pages = look.estimate.pages
    return found._replace(pages=pages, bytes=pages * look.batch.page_size)


def add(one: Summary, other: Summary) -> Summary:
    """Return the sum of two summaries."""
    names = {**one.categories, **other.categories}
    return Summary(
        one.regions + other.regions,
        one.pages + other.pages,
        one.bytes + other.bytes,
        {
            name: one.categories.get(name, 0) + other.categories.get(name, 0)
            for name in names
        },
    )


class WatchedFacts(NamedTuple):
    """The facts of the target that a live view shows.

    Attributes:
        target: The process.
        tracked_bytes: Bytes of the mappings that are armed.
        untracked: How many mappings cannot be tracked.
        stopped_ns: How long the attach stopped the target.
        budget: The percentage of --budget; None: everything is tracked.
    """

    target: TargetFacts
    tracked_bytes: int
    untracked: int
    stopped_ns: int
    budget: float | None = None

    @classmethod
    def unarmed(cls, target: TargetFacts, budget: float | None) -> "WatchedFacts":
        """Return the facts of a target that is not armed yet."""
        return cls(target, 0, 0, 0, budget)

    @property
    def is_armed(self) -> bool:
        """Whether any of its memory is tracked."""
        return self.tracked_bytes > 0
