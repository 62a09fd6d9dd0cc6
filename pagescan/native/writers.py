"""The join of `who`: written pages, calls that protected them, samples of faults."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from typing import TYPE_CHECKING

from pagescan.native.door import c_columns, check, ffi, lib, u64
from pagescan.native.types import ZERO, Columns, Windows

if TYPE_CHECKING:
    from pagescan.native.perf import Faults


class Writers:
    """Runs of written pages with one writer; each column is an array('Q').

    Attributes:
        starts: The first address of each run.
        ends: Exclusive.
        ips: Addresses of code; 0: no sample tells.
        threads: pid << 32 | tid; 0: no sample tells.
        origins: Numbers of the chains of callers; 0: none.
        regions: Indices of the written regions.
        attributed: Pages that have a writer.
        ambiguous: Pages with samples of different code, as a read and then a write.
    """

    def __init__(
        self, columns: list[array[int]], attributed: int, ambiguous: int
    ) -> None:
        """Take the columns, in the order above."""
        self.starts, self.ends, self.ips, self.threads, *more = columns
        self.origins, self.regions = more
        self.attributed = attributed
        self.ambiguous = ambiguous


def join_writers(
    written: Columns,
    units: array[int],
    windows: Windows,
    others: tuple[int, int],
    samples: Faults,
    grace: int,
) -> Writers:
    """Find the writer of each page of a look among samples.

    Args:
        written: The regions of the look, ascending.
        units: Bytes that one fault populates, per region.
        windows: The calls that protected pages, in any order.
        others: The window of pages that no such call covers: begin and end.
        samples: The samples since the last look; those for a later look stay in it.
        grace: Nanoseconds for which a sample without a page is kept: its page fault
            may not have ended yet.
    """
    regions = len(written.starts)
    room = regions + 2 * len(samples) + 1
    columns = [ZERO * room for _ in range(6)]
    out = ffi.new("struct ps_writers *")
    out.start, out.end, out.ip = map(u64, columns[:3])
    out.thread, out.origin, out.region = map(u64, columns[3:])
    out.capacity = room
    c_written, c_windows = c_columns(written, regions), ffi.new("struct ps_windows *")
    c_windows.start, c_windows.end, c_windows.before, c_windows.after = map(
        u64, windows
    )
    c_windows.length = len(windows.starts)
    joined = (c_written, u64(units), c_windows, *others, grace, samples.c, out)
    check(lib.ps_writers_join(*joined))
    for column in columns:
        del column[out.length :]
    return Writers(columns, int(out.attributed), int(out.ambiguous))
