"""The records of `cow`: forks, their sides, and the copies per process; no I/O."""

from datetime import datetime
from typing import NamedTuple

from pagescan.model.memory import PAGE_SIZE
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

    @property
    def reserve(self) -> int:
        """Bytes to keep free for such a fork: the fastest rate for its whole time."""
        fastest = round(self.peak_rate * self.seconds)
        most = self.shared_at_fork
        pages = max(self.copied, fastest if most is None else min(fastest, most))
        return pages * PAGE_SIZE


class ProcessCopies(NamedTuple):
    """One process of the family: a row of the table."""

    name: str
    pid: int
    role: str
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

    @property
    def bytes(self) -> int:
        """Bytes of the copied pages."""
        return self.copied * PAGE_SIZE


class CopyReport(NamedTuple):
    """A look at a process and its forked children."""

    time: datetime
    target: TargetFacts
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
