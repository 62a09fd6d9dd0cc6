"""The records of `who`: the code and the threads that wrote first; no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from pagescan.model.memory import PAGE_SIZE

if TYPE_CHECKING:
    from pagescan.model.groups import GroupFacts, ProcessFacts
    from pagescan.model.results import TargetFacts

KERNEL_OR_OTHER = "(kernel or other process)"
LOST = "(lost)"
DROPPED = "(processes that ended earlier)"
"""The fixed rows: pages without a sample, pages whose sample was lost, and in a group
the pages of processes that ended before a thousand others."""


EXACT, LIKELY = "exact", "likely"
"""How a function of Python was found: named by CPython, or read from the stack."""


class PythonPages(NamedTuple):
    """Pages whose writer is a known function of Python."""

    exact: int
    likely: int


class WriterThread(NamedTuple):
    """A thread, and how many pages it has written first."""

    tid: int
    name: str
    pages: int
    pid: int = 0
    """Its process."""


class Writer(NamedTuple):
    """Pages whose first write in a tick came from one function, thread or mapping."""

    pages: int
    share: float
    """Of all written pages, 0 to 1; with `period` above 1, of the sampled ones."""
    function: str | None
    """The function; for threads and mappings the function that wrote most there."""
    function_count: int
    """How many functions have written there."""
    module: str | None
    offset: int | None
    """In the module, if the code has no name, of the code that wrote most; of a line,
    in the function."""
    file: str | None
    line: int | None
    threads: tuple[WriterThread, ...]
    """The most active ones first, at most `MOST_THREADS`."""
    thread_count: int
    mapping: str | None
    """The mapping in which it wrote most."""
    mapping_count: int
    """Mappings of one name and one label count once."""
    callers: tuple[str, ...] = ()
    """The functions that called it, the innermost first; () without `callers`."""
    process: str | None = None
    """The name of the process that has written most."""
    pid: int | None = None
    """The process; None: several ones."""
    process_count: int = 1
    label: str | None = None
    """What `mapping` is for, as "[java heap]"; None: no rule knows it."""
    python: str | None = None
    """Whether the function is one of Python: exact, likely; None: it is not."""

    @property
    def bytes(self) -> int:
        """Bytes of the pages."""
        return self.pages * PAGE_SIZE


MOST_THREADS = 10


class WrittenRun(NamedTuple):
    """Neighbouring pages with one latest writer."""

    start: int
    end: int
    mapping: str | None
    writer: Writer | None
    """None: there is no sample of the write."""
    pid: int = 0
    """The process."""
    label: str | None = None
    """The purpose of the mapping; None: no rule knows it."""


@dataclass(frozen=True, slots=True)
class WriterReport:
    """The first writers of each page in each tick, summed over the ticks.

    Attributes:
        time: When it was made.
        target: The process; after an exec the later program; None: it is a group.
        by: What a writer is: function, line, thread, mapping, page or process.
        ticks: How many looks it covers.
        written: Pages that were written, summed over the looks.
        attributed: The pages with a writer.
        kernel_or_other: The pages that were written without a page fault of this
            process; None with `period` above 1.
        lost: The pages whose sample may be among the lost ones; None with `period`
            above 1.
        ambiguous: The pages with samples of different code; the latest one counts.
        writers: The largest first.
        runs: With `by` page: the written pages.
        samples: How many samples were taken.
        period: Faults per sample.
        user_only: Writes of the kernel for the process, as in read(2), are not seen.
        ring_bytes: Memory for samples, per processor.
        notes: What the user should know about the names.
        group: The group; None: one process.
        processes: Its members, and those that have gone, with their writes.
        gone: How many members have gone.
        short_lived: How many children ended before any look; None: unknown.
        python: The pages written in known functions of Python; None: not asked for.
    """

    time: datetime
    target: TargetFacts | None
    by: str
    ticks: int
    written: int
    attributed: int
    kernel_or_other: int | None
    lost: int | None
    ambiguous: int
    writers: tuple[Writer, ...]
    runs: tuple[WrittenRun, ...]
    samples: int
    period: int
    user_only: bool
    ring_bytes: int
    notes: tuple[str, ...] = ()
    group: GroupFacts | None = None
    processes: tuple[ProcessFacts, ...] = ()
    gone: int = 0
    short_lived: int | None = None
    python: PythonPages | None = None

    @property
    def fixed_rows(self) -> tuple[tuple[str, int], ...]:
        """The rows behind the writers, without those that are zero."""
        listed = sum(writer.pages for writer in self.writers)
        dropped = 0 if self.group is None else self.attributed - listed
        rows = (
            (DROPPED, dropped),
            (KERNEL_OR_OTHER, self.kernel_or_other),
            (LOST, self.lost),
        )
        return tuple((name, pages) for name, pages in rows if pages)

    @property
    def sampled(self) -> int:
        """The pages of which shares are parts."""
        return self.written if self.period == 1 else self.attributed
