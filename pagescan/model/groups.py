"""The records of a group: its members, and the looks at all of them in one tick."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Self

from pagescan.model.batch import Batch
from pagescan.model.looks import Look, add
from pagescan.model.memory import Region, Untracked
from pagescan.model.results import (
    Cost,
    Estimate,
    MappingTable,
    Summary,
    TargetFacts,
)
from pagescan.model.shared_once import SharedOnce


class GroupFacts(NamedTuple):
    """Which processes were looked at."""

    kind: str
    """tree, cgroup, unit, container or match."""
    name: str
    """The value that the user gave; for a tree the pid of its root."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Populated(NamedTuple):
    """The memory of a process, or of a group, in pages."""

    present: int
    swapped: int

    @classmethod
    def of(cls, summary: Summary) -> Self:
        """Return the memory that a count has found."""
        found = summary.categories
        return cls(found.get("present", 0), found.get("swapped", 0))


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process of a group.

    Attributes:
        target: Which process it is.
        label: Its role, if its command line tells it; else None.
        summary: Its writes since the last tick, or the result of a scan.
        totals: Its writes since it joined; None: it is not watched.
        joined_at: When tracking began; None: it is not tracked.
        ended_at: When it was found to have gone.
        end: exited, left (the group) or lost (its tracking); None: it is a member.
        populated: Its memory; None: not counted.
        unseen_ns: Of a process that ended: the time from its last look to the moment at
            which it was found to have ended. None: nothing is unseen.
    """

    target: TargetFacts
    label: str | None
    summary: Summary
    totals: Summary | None = None
    joined_at: datetime | None = None
    ended_at: datetime | None = None
    end: str | None = None
    populated: Populated | None = None
    unseen_ns: int | None = None


class MemberUntracked(NamedTuple):
    """A process of a group, or a part of its memory, that is not tracked.

    Attributes:
        pid: The process; None: all processes over a limit.
        name: Its name in the kernel, never empty; "others" with the pid None.
        part: The part; None: the process as a whole.
        why: The reason.
    """

    pid: int | None
    name: str
    part: Untracked | None
    why: str


class MemberLook(NamedTuple):
    """A process of a group at a tick; `look` None: it had not run, or has gone."""

    facts: ProcessFacts
    look: Look | None


def _regions(members: Iterable[MemberLook]) -> Iterator[tuple[int, Region]]:
    for facts, look in members:
        if look is not None:
            for region in look.batch.regions():
                yield facts.target.pid, region


def sum_of(members: Iterable[MemberLook]) -> Summary:
    """Return the writes of all members; shared memory counts once unless estimated."""
    whole = SharedOnce()
    regions = 0
    each = Summary.none()
    estimated = False
    for facts, look in members:
        if look is None:
            continue
        whole.add(look.batch)
        regions += len(look.batch)
        each = add(each, facts.summary)
        estimated |= look.estimate is not None
    return each if estimated else whole.summary()._replace(regions=regions)


def estimate_of(looks: Iterable[Look]) -> Estimate | None:
    """Return the estimate for all together: the members were drawn independently."""
    parts = [look.estimate for look in looks if look.estimate is not None]
    if not parts:
        return None
    pages = sum(part.pages for part in parts)
    below = math.hypot(*(part.pages - part.low for part in parts))
    above = math.hypot(*(part.high - part.pages for part in parts))
    share = sum(part.share for part in parts) / len(parts)
    return Estimate(pages, round(pages - below), round(pages + above), share)


@dataclass(frozen=True, slots=True)
class GroupLook:
    """One look at all processes of a group.

    Attributes:
        group: The group.
        members: The processes, and those that have gone since the last look.
        time: The end of the look, in UTC.
        armed_at: When the group was armed.
        since: The earliest baseline of a member; None: one of them has no common one.
        summary: The writes of all members; memory that they share counts once.
        untracked: The processes, and parts of processes, whose writes are not known.
        cost: The cost to all members.
        tracked_bytes: Bytes of the mappings of all members that are tracked.
    """

    group: GroupFacts
    members: tuple[MemberLook, ...]
    time: datetime
    armed_at: datetime
    since: datetime | None
    summary: Summary
    untracked: tuple[MemberUntracked, ...]
    cost: Cost
    tracked_bytes: int

    def regions(self) -> Iterator[tuple[int, Region]]:
        """Yield the written regions of each process, with its pid."""
        return _regions(self.members)


@dataclass(frozen=True, slots=True)
class GroupTick:
    """One tick of a group: a look at each member that has run.

    Attributes:
        number: Its number, from 1.
        members: The members, and those that have gone since the last tick.
        since: The end of the previous tick, in UTC.
        time: The end of this one.
        seconds: The time since the previous tick.
        summary: The writes of all members; memory that they share counts once.
        totals: The sum of all ticks so far.
        untracked: The processes, and parts of processes, that are not tracked.
        cost: The cost to all members; `target_share` is for all members together.
        end: In the last tick: interrupted count duration exited.
        gone: How many members have gone so far.
        short_lived: How many children ended before any look; None: unknown.
        armed_at: When the first member was armed.
        total_share: The share of their processor time that all looks have cost.
        total_ns: The same in nanoseconds.
        estimate: With a budget, the estimate for all members together.
        estimated: Whether the totals include an estimate.
        unseen_ns: The longest time from the last look at a member to its end, of all
            that have ended so far. None: nothing is unseen.
    """

    number: int
    members: tuple[MemberLook, ...]
    since: datetime
    time: datetime
    seconds: float
    summary: Summary
    totals: Summary
    untracked: tuple[MemberUntracked, ...]
    cost: Cost
    end: str | None
    gone: int
    short_lived: int | None
    armed_at: datetime
    total_share: float | None = None
    total_ns: int | None = None
    estimate: Estimate | None = None
    estimated: bool = False
    unseen_ns: int | None = None

    def regions(self) -> Iterator[tuple[int, Region]]:
        """Yield the written regions of each process, with its pid."""
        return _regions(self.members)


@dataclass(frozen=True, slots=True)
class GroupScan:
    """The regions of each process of a group that match a query.

    Attributes:
        group: The group.
        parts: The processes, each with its regions.
        summary: The sum; memory that several processes share counts once.
        left_out: The processes that could not be scanned, with the reason.
        cost: The cost to all processes.
    """

    group: GroupFacts
    parts: tuple[tuple[ProcessFacts, Batch], ...]
    summary: Summary
    left_out: tuple[MemberUntracked, ...]
    cost: Cost

    def regions(self) -> Iterator[tuple[int, Region]]:
        """Yield the regions of each process, with its pid."""
        for facts, batch in self.parts:
            for region in batch.regions():
                yield facts.target.pid, region


@dataclass(frozen=True, slots=True)
class GroupMaps:
    """The mappings of each process of a group, with their pages by category.

    Attributes:
        group: The group.
        parts: The processes, each with its mappings.
        summary: The sum; memory that several processes share counts once.
        left_out: The processes that could not be read, with the reason.
        cost: The cost to all processes.
    """

    group: GroupFacts
    parts: tuple[tuple[ProcessFacts, MappingTable], ...]
    summary: Summary
    left_out: tuple[MemberUntracked, ...]
    cost: Cost
