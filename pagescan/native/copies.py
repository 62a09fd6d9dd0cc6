"""Copy-on-write, page by page: which samples are copies, which pages still shared."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from typing import TYPE_CHECKING, NamedTuple

from pagescan.native.door import c_columns, check, ffi, lib, u64
from pagescan.native.regions import empty_rows

if TYPE_CHECKING:
    from pagescan.native.perf import Faults
    from pagescan.native.types import Columns

_NOBUFS = 105
_ROWS = 4096


class Comparison(NamedTuple):
    """Pages that two processes both have: how many are one memory.

    Attributes:
        regions: The regions that are one memory.
        shared: The number of pages in these regions.
        copied: Pages of which each side has its own copy.
        unknown: Pages on swap, or gone since.
    """

    regions: Columns
    shared: int
    copied: int
    unknown: int


def compare_copies(parent: int, child: int, both: Columns) -> Comparison:
    """Compare two processes, by the frames of their pages if this user may see frames.

    Else by pagemap's exclusive bit, which is exact for one child.

    Args:
        parent: An open /proc/PID/pagemap.
        child: Another one.
        both: Ascending regions of private memory.

    Raises:
        OSError: A pagemap cannot be read.
    """
    rows = len(both.starts) + _ROWS
    c_both = c_columns(both, len(both.starts))
    while True:
        columns, out = empty_rows(rows)
        counts = ffi.new("struct ps_comparison *")
        code = lib.ps_copies_compare(parent, child, c_both, out, counts)
        if code != -_NOBUFS:
            break
        rows *= 4
    check(code)
    for column in columns:
        del column[out.length :]
    return Comparison(columns, counts.shared, counts.copied, counts.unknown)


def count_copies(pagemaps: list[int], regions: Columns) -> int:
    """Count the different pages that processes have in place of one, less that one.

    Args:
        pagemaps: The open /proc/PID/pagemap of each.
        regions: Ascending regions of private memory.

    Raises:
        OSError: A pagemap cannot be read.
    """
    copies = ffi.new("uint64_t *")
    c_regions = c_columns(regions, len(regions.starts))
    fds = ffi.new("int[]", pagemaps)
    check(lib.ps_copies_count(fds, len(pagemaps), c_regions, copies))
    return int(copies[0])


def mark_copies(
    shared: Columns,
    first_pages: array[int],
    samples: Faults,
    side: tuple[int, int, int],
    bitmap: bytearray,
) -> tuple[int, bytes]:
    """Classify each sample for one side of a fork.

    Args:
        shared: The regions that the fork shared, ascending.
        first_pages: The index of the first page of each.
        samples: The samples, in any order.
        side: The process, and from when to when its samples count.
        bitmap: One bit per shared page, set at its first write.

    Returns:
        How many bits were set, and one byte per sample: 0, not of this side; 1, the
        first write to a shared page; 2, a page that was not shared; 3, a later write.
    """
    verdicts = bytearray(len(samples))
    c_side = ffi.new("struct ps_side *", side)
    copies = check(
        lib.ps_copies_mark(
            c_columns(shared, len(shared.starts)),
            u64(first_pages),
            samples.c,
            c_side,
            ffi.from_buffer("uint8_t[]", bitmap),
            ffi.from_buffer("uint8_t[]", verdicts),
        )
    )
    return copies, bytes(verdicts)
