"""The records of `cow`: forks, their sides, and the copies per process; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pagescan.model.memory import PAGE_SIZE

if TYPE_CHECKING:
    from datetime import datetime

    from pagescan.model.groups import GroupFacts, MemberUntracked
    from pagescan.model.results import TargetFacts


class Copies(NamedTuple):
    """Pages that were copied by one function, in one mapping, or in one interval."""

    pages: int
    share: float
    """The share of all pages that this process has copied, 0 to 1."""
    function: str | None = None
    module: str | None = None
    mapping: str | None = None
    at: datetime | None = None
    """When the interval began."""
    label: str | None = None
    """The purpose of the mapping, as "[java heap]"; None: no rule knows it."""


class SideCopies(NamedTuple):
    """The copies of one process since a fork."""

    pid: int
    role: str
    """parent or child."""
    copied: int
    """Pages that were shared at the fork and that it has copied since."""
    new: int
    """Pages that it has written since and that were not shared."""
    by: tuple[Copies, ...] = ()


class ForkCopies(NamedTuple):
    """A fork: the pages shared at it, and those copied since."""

    number: int
    at: datetime
    parent: int
    child: int
    shared_at_fork: int | None
    """Pages; None: the fork was before the `CopyWatch`."""
    copied: int
    """Pages of which each side has its own copy now."""
    sides: tuple[SideCopies, ...]
    lost: int
    """Samples that were lost since the fork: up to that many copies are missing."""
    engine: str
    """perf: every copy was seen; state: only the copies after the beginning were."""
    seconds: float
    """From the fork until now, or until the child's end."""
    end: str | None = None
    """exited, exec; None: the child lives."""
    peak_rate: float = 0.0
    """Pages copied per second, in the fastest interval."""
    predicted: int | None = None
    """Estimate: copied pages if the child lives as long again; None: it has ended."""
    kept: int = 0
    """Pages that the parent has given back since, and that the child keeps alone."""
    most: int | None = None
    """Pages that can be copied at most: all that were shared; None: not known."""

    @property
    def reserve(self) -> int:
        """Bytes to keep free for such a fork: the fastest rate for its whole time."""
        fastest = round(self.peak_rate * self.seconds)
        most = self.most
        pages = max(self.copied, fastest if most is None else min(fastest, most))
        return pages * PAGE_SIZE


class ProcessCopies(NamedTuple):
    """One process of the family: a row of the table."""

    name: str
    pid: int
    role: str | None
    """parent or child; None: a process of a group that has not forked."""
    age: float | None
    """Seconds since the fork that made it; None: it is the oldest."""
    shared: int
    """Pages that it shares with its parent, or with a child."""
    copied: int
    new: int
    rate: float
    """Pages copied per second since the last look."""
    function: str | None
    """The function that has copied most; None: no copy, or code without a name."""
    label: str | None = None
    """Its role, if its command line tells it."""
    end: str | None = None
    """exited, exec, left (the group); None: it lives."""
    parent: int | None = None
    """The process that forked it; None: it was not forked, or its parent is not one of
    the processes."""

    @property
    def bytes(self) -> int:
        """Bytes of the copied pages."""
        return self.copied * PAGE_SIZE


class CopySummary(NamedTuple):
    """The copies of all processes together."""

    forks: int
    """How many forks there were so far."""
    copied: int
    """Pages; a copy counts once, also if the page was shared by several processes."""
    new: int
    """Pages that they have written and that were not shared."""

    @property
    def bytes(self) -> int:
        """Bytes of the copied pages."""
        return self.copied * PAGE_SIZE


class CopyReport(NamedTuple):
    """A look at a process and its forked children, or at those of a group."""

    time: datetime
    target: TargetFacts | None
    """None: it is of a group."""
    tick: int
    interval_ns: int
    processes: tuple[ProcessCopies, ...]
    forks: tuple[ForkCopies, ...]
    hints: tuple[str, ...] = ()
    vforks: int = 0
    """Children that shared the memory itself until they ran another program."""
    samples: int = 0
    lost: int = 0
    ring_bytes: int = 0
    end: str | None = None
    summary: CopySummary = CopySummary(0, 0, 0)
    group: GroupFacts | None = None
    untracked: tuple[MemberUntracked, ...] = ()
    """The processes of the group that cannot be followed."""
