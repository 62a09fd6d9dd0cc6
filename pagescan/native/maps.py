"""/proc/PID/maps and smaps, and how much of a mapped file is on swap."""

import errno
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pagescan.native.door import check, ffi, lib, u64
from pagescan.native.pace import Meter, Pace, c_pace

_ROOM = 1 << 16
"""Bytes: the maps of most processes fit."""
_MOST_ROOM = 1 << 22


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


def read_maps(maps: int, meter: Meter) -> bytes:
    """Read the text of /proc/PID/maps; each read is added to the meter.

    One read returns some 4 KiB, and the target's mmap lock is free between two.

    Args:
        maps: The open file; it is read from its position to its end.
        meter: The cost of the reads is added to it.

    Raises:
        OSError: ESRCH, the target is gone.
    """
    return b"".join(read_pieces(maps, meter))


def read_pieces(
    file: int, meter: Meter, *, slice_max: int = _ROOM, pace: Pace | None = None
) -> Iterator[bytes]:
    """Read /proc/PID/maps or smaps from its position to its end; yield it in pieces.

    Args:
        file: The open file.
        meter: Each call is added to it, before its piece is yielded.
        slice_max: Bytes that one call reads at most.
        pace: Where to pause; None: nowhere.

    Raises:
        OSError: ESRCH, the target is gone.
    """
    length = ffi.new("uint64_t *")
    paced = ffi.NULL if pace is None else ffi.new("struct ps_pace *", c_pace(pace))
    room, more = _ROOM, 1
    while more:
        piece = ffi.new("char[]", room)
        cost = ffi.new("struct ps_cost *")
        try:
            more = check(
                lib.ps_read_slices(file, piece, room, slice_max, paced, length, cost)
            )
        finally:
            meter.add(cost)
            if pace is not None:
                pace.held_ns = paced.held_ns
        yield bytes(ffi.buffer(piece, length[0]))
        room = min(2 * room, _MOST_ROOM)


def read_memory(memory: int, part: memoryview, start: int) -> tuple[int, int]:
    """Read from /proc/PID/mem into a buffer; return the bytes, and nanoseconds.

    Raises:
        OSError: EIO, nothing is mapped there.
    """
    cost = ffi.new("struct ps_cost *")
    into = ffi.from_buffer("char[]", part, require_writable=True)
    size = check(lib.ps_read_memory(memory, into, len(part), start, cost))
    return size, int(cost.scan_ns)


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


def mapping_begins(maps: int, address: int, meter: Meter) -> bool:
    """Whether a mapping begins at an address at present (PROCMAP_QUERY, 6.11).

    Args:
        maps: The open /proc/PID/maps.
        address: The address.
        meter: The cost is added to it.

    Raises:
        OSError: ENOTTY, the kernel cannot be asked; ENOENT, nothing is mapped above.
    """
    cost = ffi.new("struct ps_cost *")
    code = lib.ps_mapping_begins(maps, address, cost)
    meter.add(cost)
    return bool(check(code))


def swapped_pages(file: int, offset: int, length: int) -> int:
    """Return how many pages of a part of a shared-memory file are on swap.

    Raises:
        OSError: ENOSYS, the kernel has no cachestat(2); EPERM.
    """
    counts = ffi.new("uint64_t[2]")
    check(lib.ps_file_pages(file, offset, length, counts, counts + 1))
    return int(counts[1])
