"""The records that results are made of: facts, cost, summary; no I/O."""

import enum
from collections.abc import Mapping as Dict, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pagescan.model.frame import Frame
from pagescan.model.memory import Mapping, Untracked
from pagescan.model.units import format_size, plural

if TYPE_CHECKING:
    from pagescan.native import Progress


class TargetFacts(NamedTuple):
    """Which process was looked at; pid and start_time identify it."""

    pid: int
    name: str
    exe: str | None
    start_time: int
    """Clock ticks since boot: field 22 of /proc/PID/stat."""
    page_size: int


class SessionFacts(NamedTuple):
    """The session whose baseline a result refers to."""

    name: str
    armed_at: datetime
    since: datetime | None
    """The time of the last full rearm; None: some part was protected later."""
    method: str = "uffd-wp-async"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a command to the target; times in nanoseconds."""

    stopped_ns: int = 0
    scan_ns: int = 0
    max_wait_ns: int = 0
    """The longest time for which one call held the mmap lock."""
    ioctls: int = 0
    pages_walked: int = 0
    mappings_added: int | None = None
    """Mappings that the target has only because it is tracked; None: not counted."""
    target_share: float | None = None
    """The estimated part of the target's processor time that tracking has cost since
    the last look, 0 to 1; None: unknown, or not a look of `watch`."""
    target_ns: int | None = None
    """That part in nanoseconds."""
    used_ns: int | None = None
    """The processor time that the target used since the last look; None: as above."""
    huge_restored: int | None = None
    """Bytes of huge pages that were split and put back; None: none could be."""
    huge_lost: int | None = None
    """Bytes that were in huge pages when armed, and stay split."""

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.stopped_ns + other.stopped_ns,
            self.scan_ns + other.scan_ns,
            max(self.max_wait_ns, other.max_wait_ns),
            self.ioctls + other.ioctls,
            self.pages_walked + other.pages_walked,
            # A count of the present state, not a sum: the later one is valid.
            self.mappings_added
            if other.mappings_added is None
            else other.mappings_added,
            self.target_share if other.target_share is None else other.target_share,
            _both(self.target_ns, other.target_ns),
            _both(self.used_ns, other.used_ns),
            _both(self.huge_restored, other.huge_restored),
            _both(self.huge_lost, other.huge_lost),
        )


def _both(one: int | None, other: int | None) -> int | None:
    return other if one is None else one + (other or 0)


class Summary(NamedTuple):
    """The totals of a result."""

    regions: int
    pages: int
    bytes: int
    categories: Dict[str, int]
    """Pages per category: the returned categories only, in the kernel's order."""

    @classmethod
    def none(cls) -> "Summary":
        """Return the totals of no regions."""
        return cls(0, 0, 0, {})


class Estimate(NamedTuple):
    """The number of written pages, extrapolated from a random part of the memory.

    Attributes:
        pages: The estimate.
        low: Lower end of the 95 % confidence interval, in pages; it is valid for a
            steady workload.
        high: Upper end of that interval.
        share: The share of the memory that was tracked, 0 to 1.
    """

    pages: int
    low: int
    high: int
    share: float


SHARES = ("private", "shared", "pss")
"""The figures of smaps in `MappingCounts.shares`."""


@dataclass(frozen=True, slots=True)
class MappingCounts:
    """One mapping and its pages per category; None stands for an unknown count."""

    mapping: Mapping
    pages: int
    bytes: int
    counts: Dict[str, int | None] = field(default_factory=dict)
    """Keys: present file swapped pfnzero huge guard written."""
    new: bool = False
    label: str | None = None
    """The purpose of the memory, as "[java heap]"; None: no rule knows it."""
    shares: Dict[str, int] = field(default_factory=dict)
    """Bytes that only this process maps, that others map too, and its proportional
    share of both (private shared pss), from smaps; empty: smaps was not read."""
    growth: int | None = None
    """In `watch`: bytes present now, less those at its start; None: not counted."""

    @property
    def start(self) -> int:
        """The first address of the mapping."""
        return self.mapping.start

    @property
    def end(self) -> int:
        """The address behind the mapping."""
        return self.mapping.end


class MappingTable(list[MappingCounts], Frame):
    """One row per mapping, as a list of `MappingCounts`, and as a table of scalars."""

    def __repr__(self) -> str:
        size = format_size(sum(row.bytes for row in self))
        return f"<{plural(len(self), 'mapping')}, {size}>"

    def table(self) -> dict[str, Sequence[Any]]:
        """Return the mappings as columns of scalars; an unknown count is None."""
        columns: dict[str, Sequence[Any]] = {
            name: [getattr(row.mapping, name) for row in self]
            for name in ("start", "end", "perms", "offset", "inode")
        }
        columns["mapping"] = [row.mapping.label for row in self]
        columns["label"] = [row.label for row in self]
        columns["pages"] = [row.pages for row in self]
        columns["bytes"] = [row.bytes for row in self]
        for name in self[0].counts if self else ():
            columns[name] = [row.counts[name] for row in self]
        if any(row.shares for row in self):
            for name in SHARES:
                columns[name] = [row.shares.get(name) for row in self]
        return columns


class Action(enum.IntEnum):
    """What to do with the pages of a region; the binary form has the same values."""

    DUMP = 1
    """Store their bytes."""
    ZERO = 2
    """They are all zeros: store that fact, and no bytes."""
    KEEP = 4
    """They are as in the parent's image; pages in no image of the chain are zeros."""

    @property
    def word(self) -> str:
        """The name in every output."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The facts of a checkpoint's plan, apart from its regions.

    Attributes:
        epoch: Its number; None: made without a session.
        parent: The epoch whose image it builds on; None: it is complete.
        pages: Pages per action: dump zero keep.
        left_out: The parts of the selection that belong elsewhere.
    """

    epoch: int | None
    parent: int | None
    pages: Dict[str, int]
    left_out: tuple[Untracked, ...]


class PresentMemory(NamedTuple):
    """The memory of a watched target that is present, in bytes.

    Attributes:
        present: Bytes in memory at the last count.
        growth: Those less the bytes at the first count.
    """

    present: int
    growth: int


class Output(NamedTuple):
    """The form in which the user wants a result.

    Attributes:
        format: table, plain, csv, json or jsonl.
        columns: The argument of -c; None: the default columns.
        header: Whether to print a line of column names.
        exact: Whether to print bytes as plain numbers, not as "1.5 MiB".
        by: What one row is: a region, a mapping or a page.
        color: Whether to use colour; None: the terminal and the environment decide.
        progress: Told how many regions or pages are written so far.
        sort: The argument of --sort; None: rows ascend by address.
    """

    format: str = "plain"
    columns: str | None = None
    header: bool = True
    exact: bool = False
    by: str = "region"
    color: bool | None = None
    progress: "Progress | None" = None
    sort: str | None = None

    @property
    def options(self) -> dict[str, object]:
        """The options that were given, by their names; false where they were not."""
        return {
            "by": self.by != "region",
            "columns": self.columns,
            "sort": self.sort,
            "header": not self.header,
            "exact": self.exact,
            "csv": self.format == "csv",
        }

    @property
    def is_json(self) -> bool:
        """Whether the result is JSON, in one document or in lines."""
        return self.format in ("json", "jsonl")

    @property
    def labelled(self) -> bool:
        """Whether labels are shown."""
        return self.is_json or self.names("label")

    @property
    def has_default(self) -> bool:
        """Whether the default columns are shown, alone or before others."""
        return self.columns is None or self.columns.startswith("+")

    def names(self, *columns: str) -> bool:
        """Whether -c or --sort names any of these columns."""
        words = f"{self.columns or ''},{self.sort or ''}".split(",")
        return any(word.strip().lstrip("+-") in columns for word in words)
