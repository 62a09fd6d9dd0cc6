"""Lists of ascending, disjoint regions, combined; pure, no I/O."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections.abc import Iterable, Sequence

from pagescan.native import Columns

Interval = tuple[int, int]


def common(regions: Columns, others: Sequence[Interval]) -> Columns:
    """Return the parts of regions that lie in ascending, disjoint intervals."""
    kept = Columns.empty()
    at = 0
    for start, end, bits in zip(*regions, strict=True):
        while at < len(others) and others[at][1] <= start:
            at += 1
        index = at
        while index < len(others) and others[index][0] < end:
            low, high = others[index]
            _append(kept, max(start, low), min(end, high), bits)
            index += 1
    return kept


def without(regions: Columns, holes: Iterable[Interval]) -> Columns:
    """Return regions less some intervals, which need not be in order."""
    gaps: list[Interval] = []
    at = 0
    for start, end in sorted(holes):
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    return common(regions, [*gaps, (at, 1 << 64)]) if at else regions


def whole_pages(arrays: Iterable[array[int]], page_size: int) -> list[Interval]:
    """Return the pages that hold nothing but the items of an array, as intervals."""
    found = []
    for one in arrays:
        start, length = one.buffer_info()
        end = start + length * one.itemsize
        low, high = start + -start % page_size, end - end % page_size
        if low < high:
            found.append((low, high))
    return found


def _append(columns: Columns, start: int, end: int, bits: int) -> None:
    for column, value in zip(columns, (start, end, bits), strict=True):
        column.append(value)
