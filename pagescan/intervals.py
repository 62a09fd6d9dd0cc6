"""Cuts lists of ascending, disjoint regions by intervals; pure, no I/O."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections.abc import Iterable, Sequence

from pagescan.native import Columns

Interval = tuple[int, int]


def common(regions: Columns, others: Sequence[Interval]) -> Columns:
    """Return the parts of regions inside some intervals; these ascending, disjoint."""
    inside = Columns.empty()
    at = 0
    for start, end, bits in zip(*regions, strict=True):
        while at < len(others) and others[at][1] <= start:
            at += 1
        index = at
        while index < len(others) and others[index][0] < end:
            low, high = others[index]
            _append(inside, max(start, low), min(end, high), bits)
            index += 1
    return inside


def without(regions: Columns, holes: Iterable[Interval]) -> Columns:
    """Return the parts of regions outside some intervals; these in any order."""
    gaps: list[Interval] = []
    at = 0
    for start, end in sorted(holes):
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    return common(regions, [*gaps, (at, 1 << 64)]) if at else regions


def whole_pages(arrays: Iterable[array[int]], page_size: int) -> list[Interval]:
    """Return the pages filled entirely by one of our arrays, as intervals."""
    filled = []
    for one in arrays:
        start, length = one.buffer_info()
        end = start + length * one.itemsize
        low, high = start + -start % page_size, end - end % page_size
        if low < high:
            filled.append((low, high))
    return filled


def _append(columns: Columns, start: int, end: int, bits: int) -> None:
    for column, value in zip(columns, (start, end, bits), strict=True):
        column.append(value)
