"""Looks in their packed form, many at a time, and counts per page: see shim_pages.c."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import mmap
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate

from pagescan.native.door import check, ffi, lib, u32, u64
from pagescan.native.regions import filled
from pagescan.native.types import ZERO, Columns

_BLOCK = 1 << 21
"""Bytes of a block: the pages of a block that a look has found have counts."""
_ROWS = 1 << 10
_uncleared = ffi.new_allocator(should_clear_after_alloc=False)
_HIGHEST = (1 << 64) - 1
_BYTES = 12  # of a page: struct ps_page
_WORD = 64  # pages per number with a bit for each


class UnpackedLooks:
    """Looks of one process, read from their packed form in one call.

    Attributes:
        damaged: Indices of the looks that are damaged: they have no pages.
    """

    def __init__(
        self,
        looks: Sequence[bytes],
        page_size: int,
        ranges: tuple[array[int], array[int]] | None = None,
    ) -> None:
        """Read looks.

        Args:
            looks: The looks, as they were packed.
            page_size: Bytes per page.
            ranges: Starts and ends of the memory to read, ascending and disjoint; None:
                all of it.
        """
        data = ffi.from_buffer(b"".join(looks))
        ends = u64(array("Q", accumulate(map(len, looks))))
        low, high = map(u64, ranges) if ranges is not None else (ffi.NULL, ffi.NULL)
        count = len(ranges[0]) if ranges is not None else 0
        stops, damaged = u64(ZERO * len(looks)), bytearray(len(looks))
        self.c = ffi.new("struct ps_looks *")
        self.c.ends, self.c.count, self.c.page_size = stops, len(looks), page_size
        rows, length = len(data) // 2, ffi.new("uint64_t *")  # two bytes per region
        while True:
            columns = [_uncleared("uint64_t[]", rows) for _ in range(2)]
            self.c.starts, self.c.stops = columns
            flags = ffi.from_buffer(damaged)
            if not check(
                lib.ps_read_looks(
                    data, ends, low, high, count, self.c, rows, length, flags
                )
            ):
                break
            rows = length[0]  # ranges have cut regions into more parts
        self._references = [*columns, stops]
        self.damaged = [at for at, one in enumerate(damaged) if one]

    def __len__(self) -> int:
        return int(self.c.count)


class RangeSums:
    """The bytes that looks have in each of some ranges; equal looks count each time.

    Attributes:
        bytes: The bytes, by range.
        first: The lowest address; the highest number there is: no look has any.
        last: The end of the highest page.
    """

    def __init__(self, starts: array[int], ends: array[int]) -> None:
        """Begin without a look.

        Args:
            starts: Starts of the ranges, ascending and disjoint.
            ends: Their ends.
        """
        self.bytes, self.last = ZERO * len(starts), ZERO * len(starts)
        self.first = array("Q", [_HIGHEST]) * len(starts)
        self._bounds = starts, ends

    def add(self, looks: UnpackedLooks) -> None:
        """Add looks."""
        ranges, rows = map(u64, self._bounds), len(self.bytes)
        sums = map(u64, (self.bytes, self.first, self.last))
        check(lib.ps_look_shares(looks.c, *ranges, rows, *sums))


class _Blocks:
    """Blocks of memory that looks have pages in, each with a place for its pages."""

    def __init__(self, page_size: int) -> None:
        """Begin without a block.

        Args:
            page_size: Bytes per page.
        """
        self._page_size = page_size
        self._unit = max(1, _BLOCK // page_size)
        self._blocks, self._places = array("Q"), array("I")
        self._c = ffi.new("struct ps_pages *")
        self._c.unit = self._unit

    def _refer(self) -> None:
        """Let the struct refer to the columns."""
        blocks, places = u64(self._blocks), u32(self._places)
        self._columns = [blocks, places]
        self._c.blocks, self._c.places = blocks, places
        self._c.count = len(self._blocks)

    def _make_room(self, looks: UnpackedLooks) -> None:
        """Give a place to each block that has none."""
        rows, length = _ROWS, ffi.new("uint64_t *")
        while True:
            found = ZERO * rows
            if not check(
                lib.ps_page_blocks(looks.c, self._c, u64(found), rows, length)
            ):
                break
            rows = length[0]
        new = sorted(set(found[: length[0]]))
        places = dict(zip(self._blocks, self._places, strict=True))
        places.update(zip(new, range(len(places), len(places) + len(new)), strict=True))
        self._blocks = array("Q", sorted(places))
        self._places = array("I", map(places.__getitem__, self._blocks))
        self._grow(len(places) * self._unit)
        self._refer()

    def _grow(self, pages: int) -> None:
        """Make room for that many pages."""
        raise NotImplementedError

    def _take(self, looks: UnpackedLooks, take: Callable[[int], int]) -> None:
        """Let C take the pages of looks.

        Args:
            looks: The looks.
            take: Gets the look to begin with; returns the look to go on with when its
                blocks have places.
        """
        at = check(take(0))
        while at < len(looks):
            self._make_room(looks)
            at = check(take(at))


class WrittenPages(_Blocks):
    """Remembers which pages looks have found: a bit per page."""

    def __init__(self, page_size: int) -> None:
        """Begin without a page.

        Args:
            page_size: Bytes per page.
        """
        super().__init__(page_size)
        self._bits = array("Q")

    def _grow(self, pages: int) -> None:
        missing = -(-pages // _WORD) - len(self._bits)
        self._bits.extend(ZERO * missing)

    def add(self, looks: UnpackedLooks) -> None:
        """Add the pages of looks."""
        self._take(looks, lambda at: lib.ps_mark(looks.c, self._c, at, u64(self._bits)))

    def regions(self) -> Columns:
        """Return the pages as regions without categories."""
        bits = u64(self._bits)
        return filled(
            _ROWS, lambda out: lib.ps_marked(self._c, bits, self._page_size, out)
        )


class PageCounts(_Blocks):
    """Counts in how many looks each page was written; room is made as pages appear.

    Attributes:
        gaps: How often a page was not written for N looks before its next write, by N;
            the looks before the first write count, too.
    """

    def __init__(self, page_size: int, looks: int | None = None) -> None:
        """Begin without a page.

        Args:
            page_size: Bytes per page.
            looks: The most looks that will be counted; None: any number, without gaps.
        """
        super().__init__(page_size)
        self.gaps = ZERO * (looks + 1 if looks is not None else 0)
        self._looks = 0
        self._most = looks
        self._pages = _zeroed(_BYTES)
        self._room = 0  # pages
        self._gaps = u64(self.gaps)
        if looks is not None:
            self._c.gaps = self._gaps
        self._fresh = ffi.new("uint64_t *")

    def add(self, looks: UnpackedLooks, since: int = 0) -> int:
        """Count the next looks.

        Returns:
            How many of their pages no look after `since` and before them found.
        """
        number = self._looks + 1
        if self._most is not None and self._looks + len(looks) > self._most:
            raise ValueError(f"more than {self._most} looks")
        fresh = self._fresh
        fresh[0] = 0
        self._take(
            looks, lambda at: lib.ps_stamp(looks.c, self._c, at, number, since, fresh)
        )
        self._looks += len(looks)
        return int(fresh[0])

    def _grow(self, pages: int) -> None:
        if pages > self._room:
            before = memoryview(self._pages)
            self._room = max(pages, self._room * 3 // 2)
            self._pages = _zeroed(self._room * _BYTES)
            memoryview(self._pages)[: len(before)] = before
        self._c.pages = ffi.from_buffer("struct ps_page[]", self._pages)

    def stretches(self) -> tuple[int, array[int]]:
        """Return how many pages were written, and how long they were not.

        The second is how often such a page was not written for N looks, by N: before
        its first write, between two writes, or until the last look.
        """
        if self._most is None:
            raise ValueError("gaps are not counted")
        stretches = self.gaps[:]
        found = ffi.new("uint64_t *")
        check(lib.ps_page_ends(self._c, self._looks, u64(stretches), found))
        return int(found[0]), stretches

    def classes(self, percent: int) -> Columns:
        """Return the written pages as regions, by how often they were written.

        The category is 1 for pages that only one look found; 4 for pages that more than
        `percent` of the looks since their first one found; and 2 for others.
        """
        size, looks = self._page_size, self._looks
        return filled(
            _ROWS, lambda out: lib.ps_page_classes(self._c, size, looks, percent, out)
        )


def _zeroed(size: int) -> mmap.mmap:
    """Return memory of zeros, in huge pages if the kernel has some.

    Looks have pages all over it: with small ones, the processor would wait at each page
    for its address.
    """
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # this kernel has none
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
