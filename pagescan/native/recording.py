"""Looks in recordings: their packed form, and counts per page: see shim_recording.c."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import errno
from array import array

from pagescan.native.door import c_columns, check, ffi, lib, u64
from pagescan.native.types import ZERO, Columns

_BYTES_PER_REGION = 4  # most regions take 2 or 3
_PAGE_ROWS = 1 << 10


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
    while True:
        result = Columns(*(ZERO * rows for _ in range(3)))
        out = c_columns(result, rows)
        code = lib.ps_unpack(ffi.from_buffer(data), len(data), page_size, out)
        if code == -errno.EBADMSG:
            raise ValueError("the packed regions are damaged")
        if not check(code):
            break
        rows = out.length
    for column in result:
        del column[out.length :]
    return result


def widen(regions: Columns, unit: int) -> Columns:
    """Return the whole, aligned units of that many bytes that regions touch."""
    rows = len(regions.starts)
    result = Columns(*(ZERO * rows for _ in range(3)))
    out = c_columns(result, rows)
    check(lib.ps_widen(c_columns(regions, rows), unit, out))
    for column in result:
        del column[out.length :]
    return result


class PageCounts:
    """Counts in how many looks each page of some ranges was written.

    Attributes:
        pages: The number of pages in the ranges.
        gaps: How often a page was not written for N looks before its next write, by N;
            the looks before the first write count, too.
    """

    def __init__(
        self, starts: array[int], ends: array[int], page_size: int, looks: int
    ) -> None:
        """Make room to count a number of looks.

        Args:
            starts: Starts of the ranges, ascending and disjoint.
            ends: Their ends.
            page_size: Bytes per page.
            looks: The most looks that will be counted.
        """
        self.pages = (sum(ends) - sum(starts)) // page_size
        self.gaps = ZERO * (looks + 1)
        self._columns = [array("I", bytes(4 * self.pages)) for _ in range(3)]
        self._bounds = (starts, ends)
        self._looks = 0
        self._most = looks
        self._c = ffi.new("struct ps_pages *")
        self._c.starts, self._c.ends = self._references = u64(starts), u64(ends)
        self._c.ranges, self._c.page_size = len(starts), page_size
        pointers = [ffi.from_buffer("uint32_t[]", one) for one in self._columns]
        self._c.first, self._c.last, self._c.count = pointers
        self._c.gaps = u64(self.gaps)
        self._references += (*pointers, self._c.gaps)
        self._fresh = ffi.new("uint64_t *")

    def add(self, regions: Columns, since: int = 0) -> int:
        """Count the next look.

        Returns:
            How many of its pages no look after `since` and before this one found.
        """
        if self._looks >= self._most:
            raise ValueError(f"more than {self._most} looks")
        self._looks += 1
        rows = c_columns(regions, len(regions.starts))
        check(lib.ps_stamp(rows, self._c, self._looks, since, self._fresh))
        return int(self._fresh[0])

    def last(self) -> array[int]:
        """Return the number of the last look that found each page; 0: no look."""
        return self._columns[1]

    def classes(self, percent: int) -> Columns:
        """Return the written pages as regions, by how often they were written.

        The category is 1 for pages that only one look found; 4 for pages that more than
        `percent` of the looks since their first one found; and 2 for others.
        """
        rows = _PAGE_ROWS
        while True:
            result = Columns(*(ZERO * rows for _ in range(3)))
            out = c_columns(result, rows)
            if not check(lib.ps_page_classes(self._c, self._looks, percent, out)):
                break
            rows = out.length
        for column in result:
            del column[out.length :]
        return result
