"""The packed form of looks in recordings: see shim_recording.c."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import errno
from array import array
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pagescan.native.door import c_columns, check, ffi, lib, u64
from pagescan.native.regions import filled

if TYPE_CHECKING:
    from pagescan.native.types import Columns

_BYTES_PER_REGION = 4  # most regions take 2 or 3


def pack(regions: Columns, page_size: int) -> bytes:
    """Return the packed form of ascending regions."""
    rows = c_columns(regions, len(regions.starts))
    room = _BYTES_PER_REGION * len(regions.starts) + 16
    while True:
        buffer = ffi.new("uint8_t[]", room)
        length = check(lib.ps_pack(rows, page_size, buffer, room))
        if length <= room:
            return bytes(ffi.buffer(buffer, length))
        room = length


def unpack(data: bytes, rows: int, page_size: int) -> Columns:
    """Return the regions of a packed form.

    Args:
        data: The packed form.
        rows: How many regions are expected.
        page_size: The one that it was packed with.

    Raises:
        ValueError: The data is damaged.
    """
    if not 0 <= rows <= len(data):  # a region takes two bytes at least
        rows = len(data)

    def regions(out: Any) -> int:
        code = lib.ps_unpack(ffi.from_buffer(data), len(data), page_size, out)
        if code == -errno.EBADMSG:
            raise ValueError("the packed regions are damaged")
        return int(code)

    return filled(rows, regions)


def join_packed(looks: Sequence[bytes], unit: int) -> tuple[int, bytes]:
    """Join looks in their packed form; return the number of regions, and that form.

    A page is in the result if one of the looks has it. With units of several pages, a
    region is one unit or several that are alike: its category is the number of pages
    in each of these that are written.

    Args:
        looks: The packed forms.
        unit: Pages per unit.

    Raises:
        ValueError: The data is damaged.
    """
    data = b"".join(looks)
    ends = array("Q", accumulate(map(len, looks)))
    packed = ffi.new("struct ps_packed[]", len(looks))
    heap = ffi.new("struct ps_head[]", len(looks))
    regions = ffi.new("uint64_t *")
    room = len(data) + 16  # joined looks take more only where units need categories
    while True:
        buffer = ffi.new("uint8_t[]", room)
        length = lib.ps_join_packed(
            ffi.from_buffer(data),
            u64(ends),
            len(looks),
            unit,
            packed,
            heap,
            buffer,
            room,
            regions,
        )
        if length == -errno.EBADMSG:
            raise ValueError("the packed regions are damaged")
        if check(length) <= room:
            return regions[0], bytes(ffi.buffer(buffer, length))
        room = length
