"""/proc/PID/maps, and how much of a mapped file is on swap."""

import errno
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from pagescan.native.door import check, ffi, lib, u64
from pagescan.native.pace import Meter


class MapsRows(NamedTuple):
    """/proc/PID/maps, one row per line; every column is a list of int."""

    page_size_known: bool
    start: Sequence[int]
    end: Sequence[int]
    offset: Sequence[int]
    inode: Sequence[int]
    device: Sequence[int]
    flags: Sequence[int]
    name_at: Sequence[int]
    name_length: Sequence[int]
    page_size: Sequence[int]


def parse_maps(text: bytes, maps: int = -1, meter: Meter | None = None) -> MapsRows:
    """Parse the text of /proc/PID/maps.

    Args:
        text: Whole lines.
        maps: The open file, for the page sizes (PROCMAP_QUERY, 6.11); -1: do not ask.
        meter: The cost of asking is added to it.

    Raises:
        OSError: EBADMSG, a line is malformed.
    """
    rows = text.count(b"\n") + 1
    columns = [array("Q", bytes(8 * rows)) for _ in range(9)]
    out = ffi.new("struct ps_maps *")
    (
        out.start,
        out.end,
        out.offset,
        out.inode,
        out.device,
        out.flags,
        out.name_at,
        out.name_length,
        out.page_size,
    ) = (u64(column) for column in columns)
    out.capacity = rows
    code = lib.ps_maps_parse(ffi.from_buffer("char[]", text), len(text), maps, out)
    if meter is not None:
        meter.add(out.cost)
    known = maps >= 0 and code != -errno.ENOTTY
    if code != -errno.ENOTTY:
        check(code)
    count = out.length
    return MapsRows(known, *(column[:count].tolist() for column in columns))


def swapped_pages(file: int, offset: int, length: int) -> int:
    """Return how many pages of a part of a shared-memory file are on swap.

    Raises:
        OSError: ENOSYS, the kernel has no cachestat(2); EPERM.
    """
    counts = ffi.new("uint64_t[2]")
    check(lib.ps_file_pages(file, offset, length, counts, counts + 1))
    return int(counts[1])
