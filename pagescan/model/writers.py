"""The records of `who`: the code and the threads that wrote first; no I/O."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import TargetFacts

KERNEL_OR_OTHER = "(kernel or other process)"
LOST = "(lost)"
"""The fixed rows: pages without a sample, and pages whose sample was lost."""


class WriterThread(NamedTuple):
    """A thread, and how many pages it has written first."""

    tid: int
    name: str
    pages: int


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
    callers: tuple[str, ...] = ()
    """The functions that called it, the innermost first; () without `callers`."""

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


@dataclass(frozen=True, slots=True)
class WriterReport:
    """The first writers of each page in each tick, summed over the ticks.

    Attributes:
        time: When it was made.
        target: The process; after an exec the later program.
        by: What a writer is: function, line, thread, mapping or page.
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
    """

    time: datetime
    target: TargetFacts
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

    @property
    def fixed_rows(self) -> tuple[tuple[str, int], ...]:
        """The rows behind the writers, without those that are zero."""
        rows = ((KERNEL_OR_OTHER, self.kernel_or_other), (LOST, self.lost))
        return tuple((name, pages) for name, pages in rows if pages)

    @property
    def sampled(self) -> int:
        """The pages of which shares are parts."""
        return self.written if self.period == 1 else self.attributed
