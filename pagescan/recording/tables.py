"""The rows of views, and views as tables; pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from pagescan.model.frame import Frame

Row = TypeVar("Row", bound=tuple[Any, ...])


class ViewTable(list[Row], Frame):
    """A view: a list of rows, which are named tuples, and a table of scalars."""

    def table(self) -> dict[str, Sequence[Any]]:
        """Return the columns of scalars, by name; other columns are left out."""
        if not self:
            return {}
        names: tuple[str, ...] = self[0]._fields  # type: ignore[attr-defined]
        return {
            name: [row[at] for row in self]
            for at, name in enumerate(names)
            if not isinstance(self[0][at], (list, tuple))
        }


class MappingRow(NamedTuple):
    """The writes to a mapping, over all looks.

    Attributes:
        process: Index of the process.
        start: Its lowest address.
        end: Its highest one, exclusive.
        mapping: Its name.
        label: What it is for; None: no rule knows it.
        bytes: Its size at the last look.
        growth: How much larger that is than at the first look.
        pages: Written pages, added up over all looks.
        written: The same in bytes.
        share: The part of all written pages, 0 to 1.
        looks: The number of looks that found any.
        peak: The most written bytes per second in one look.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    bytes: int
    growth: int
    pages: int
    written: int
    share: float
    looks: int
    peak: float


class ProcessRow(NamedTuple):
    """A program that was recorded; after an exec, the next one is another row.

    Attributes:
        process: Its index.
        pid: The process.
        name: Its name; of a group, with its role where its command line tells one.
        pages: Written pages, added up over its looks.
        written: The same in bytes.
        share: The part of all written pages, 0 to 1.
        looks: The number of looks that found any.
        peak: The most written bytes per second in one look.
        resident: Resident bytes at its last look; None: not known.
        growth: How much more that is than at its first look; None: not known.
        begun_ns: When it was armed, in nanoseconds since 1970.
        seconds: For how long it was tracked.
        end: Why its looks ended, as in `RecordedProcess.ending`.
        why: Why it was not tracked; None: it was.
    """

    process: int
    pid: int
    name: str
    pages: int
    written: int
    share: float
    looks: int
    peak: float
    resident: int | None
    growth: int | None
    begun_ns: int
    seconds: float
    end: str | None
    why: str | None


class WriterProcess(NamedTuple):
    """A process that ran a function, and the pages that it wrote first there.

    Attributes:
        pid: The process.
        process: Its name; after an exec the later one.
        pages: The pages, added up over all looks.
        written: The same in bytes.
    """

    pid: int
    process: str
    pages: int
    written: int


class WriterRow(NamedTuple):
    """A function, and the pages whose first write in a look came from it.

    Attributes:
        function: The function; None: all code of the module that has no name.
        module: Its file or mapping; None: nothing was mapped there.
        pages: The pages, added up over all looks.
        written: The same in bytes.
        share: The part of all written pages, 0 to 1.
        looks: The number of looks that found any.
        peak: The most bytes per second in one look.
        thread: The name of the thread that wrote most of them.
        thread_count: The number of threads that wrote any.
        mapping: The label, or the name, of the mapping in which it wrote most; None: no
            such mapping is known.
        mapping_count: The number of mappings in which it wrote.
        process_count: The number of processes that ran it.
        pid: The process that ran it; None: several ones did.
        process: The name of the process in which it wrote most.
        processes: All processes that ran it: those in which it wrote most first.
    """

    function: str | None
    module: str | None
    pages: int
    written: int
    share: float
    looks: int
    peak: float
    thread: str
    thread_count: int
    mapping: str | None
    mapping_count: int
    process_count: int
    pid: int | None
    process: str
    processes: ViewTable[WriterProcess]


class WritersView(NamedTuple):
    """The first writers of each page in each look, added up over the looks.

    Attributes:
        looks: The looks of which the writers were recorded.
        pages: The written pages of these looks.
        attributed: The pages with a known first writer.
        kernel_or_other: The pages that were written without a page fault of the
            process: by the kernel, or by another process.
        lost: The pages without a writer whose sample may be among the lost ones.
        ambiguous: The pages with samples of different code, of which the latest counts;
            None: not known for a part of the memory.
        samples: The samples; None: not known for a part of the memory.
        user_only: Whether the recorder could not see writes of the kernel for the
            process, as in read(2).
        files_without_writers: The files with looks that are not counted, because they
            were recorded without --who.
        functions: The functions, those that wrote most first.
    """

    looks: int
    pages: int
    attributed: int
    kernel_or_other: int
    lost: int
    ambiguous: int | None
    samples: int | None
    user_only: bool
    files_without_writers: tuple[str, ...]
    functions: ViewTable[WriterRow]


class TimelineRow(NamedTuple):
    """A slot of time.

    Attributes:
        time_ns: Its beginning, in nanoseconds since 1970.
        seconds: Its length; gaps between looks are not in it.
        looks: The number of looks in it.
        pages: Written pages, added up over the looks.
        bytes: The same in bytes.
        rate: Written bytes per second.
        resident: Resident bytes of all processes at the slot's end; None: not known.
    """

    time_ns: int
    seconds: float
    looks: int
    pages: int
    bytes: int
    rate: float
    resident: int | None


class HeatRow(NamedTuple):
    """A piece of memory, with one value per slot of time.

    Attributes:
        process: Index of the process.
        start: Its first address.
        end: The address behind it.
        mapping: The name of its mapping.
        label: What that is for; None: no rule knows it.
        pages: Its pages.
        shares: By slot: the share of the pages that a look found written, on average,
            0 to 1; None: the slot has no look.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    pages: int
    shares: list[float | None]


class AgesRow(NamedTuple):
    """How often the pages of a mapping were written; all numbers are bytes.

    Attributes:
        process: Index of the process.
        start: The lowest address of the mapping.
        end: The highest one, exclusive.
        mapping: Its name.
        label: What it is for; None: no rule knows it.
        bytes: Its size at the last look.
        growth: How much larger that is than at the first look.
        written: The different pages that were written in any look.
        once: The pages that were written in one look and never again.
        sometimes: The pages that were written more than once, but not `always`.
        always: The pages that were written in more than half of the looks since
            the first that found them.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    bytes: int
    growth: int
    written: int
    once: int
    sometimes: int
    always: int


class WorkingSetRow(NamedTuple):
    """The memory that is written within windows of one length.

    Attributes:
        looks: The length of the windows, in looks.
        seconds: The same in seconds, on average.
        bytes: Different pages written in such a window, in bytes; the mean of all
            windows.
        share: The same as a share of all pages that were ever written, 0 to 1.
    """

    looks: int
    seconds: float
    bytes: int
    share: float


class PhaseRow(NamedTuple):
    """A stretch of time in which the writes stay about the same.

    Attributes:
        time_ns: Its beginning, in nanoseconds since 1970.
        seconds: Its length.
        looks: The number of its looks.
        rate: Written bytes per second.
        mapping: The mapping that is written most; None: nothing is written.
        share: Its part of the writes, 0 to 1.
    """

    time_ns: int
    seconds: float
    looks: int
    rate: float
    mapping: str | None
    share: float


class RoundRow(NamedTuple):
    """A round of a migration.

    Attributes:
        round: Its number, from 1; round 1 sends all memory.
        bytes: The bytes that it sends.
        seconds: The time that this takes.
        dirty: The bytes that the target writes in that time.
    """

    round: int
    bytes: int
    seconds: float
    dirty: int


class LastRange(NamedTuple):
    """A range to send last in a migration, because it is written all the time.

    Attributes:
        process: Index of the process.
        start: Its first address.
        end: The address behind it.
        mapping: The name of its mapping.
        bytes: The bytes of its pages that are written all the time.
    """

    process: int
    start: int
    end: int
    mapping: str
    bytes: int


class Migration(NamedTuple):
    """The course of a pre-copy, by the recorded writes.

    Attributes:
        rounds: The rounds before the freeze.
        memory: The bytes of the first round.
        sent: All bytes that are sent, also during the freeze.
        seconds: The time until the freeze.
        freeze: Seconds for which the target stands still at the end.
        converges: Whether the freeze is no longer than `downtime`.
        bandwidth: Bytes per second.
        downtime: The longest freeze that was asked for, in seconds.
        repeated: Whether the recording is shorter than the rounds, so that its looks
            were used again.
        last: The ranges to send last.
    """

    rounds: ViewTable[RoundRow]
    memory: int
    sent: int
    seconds: float
    freeze: float
    converges: bool
    bandwidth: int
    downtime: float
    repeated: bool
    last: ViewTable[LastRange]
