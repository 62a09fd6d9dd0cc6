"""The records of a group: its members, and the looks at all of them in one tick."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pagescan.model.looks import Look
from pagescan.model.memory import Untracked
from pagescan.model.results import Cost, Estimate, Summary, TargetFacts


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
    """

    target: TargetFacts
    label: str | None
    summary: Summary
    totals: Summary | None = None
    joined_at: datetime | None = None
    ended_at: datetime | None = None
    end: str | None = None
    populated: Populated | None = None


class MemberUntracked(NamedTuple):
    """A process of a group, or a part of its memory, that is not tracked.

    Attributes:
        pid: The process; None: all processes over a limit.
        name: Its name in the kernel.
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
