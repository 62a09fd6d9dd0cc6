"""Cuts lists of ascending, disjoint regions by intervals; pure, no I/O."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from pagescan.model.mapping_set import bounds_of
from pagescan.native import Columns

if TYPE_CHECKING:
    from pagescan.model.memory import Mapping

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
            append_region(inside, max(start, low), min(end, high), bits)
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
    """Return the pages filled entirely by one array of this process."""
    filled = []
    for one in arrays:
        start, length = one.buffer_info()
        end = start + length * one.itemsize
        low, high = start + -start % page_size, end - end % page_size
        if low < high:
            filled.append((low, high))
    return filled


def append_region(columns: Columns, start: int, end: int, bits: int) -> None:
    """Append one region to columns."""
    for column, value in zip(columns, (start, end, bits), strict=True):
        column.append(value)


def reaches_out(regions: Columns, mappings: Sequence[Mapping]) -> bool:
    """Whether any part of ascending regions lies outside all of the mappings."""
    starts, ends = bounds_of(mappings)
    at = row = index = 0
    while row < len(regions.starts):
        at = max(at, regions.starts[row])
        index = bisect_right(ends, at, index)  # the first mapping that ends behind `at`
        if index == len(ends) or starts[index] > at:
            return True
        at = ends[index]
        row = bisect_right(regions.ends, at, row)
    return False


def merge(one: Columns, other: Columns) -> Columns:
    """Merge two lists of ascending regions that do not overlap each other."""
    if not one.starts or not other.starts:
        return one if one.starts else other
    merged = Columns.empty()
    lists, cursors = (one, other), [0, 0]
    while cursors[0] < len(one.starts) and cursors[1] < len(other.starts):
        low = 0 if one.starts[cursors[0]] < other.starts[cursors[1]] else 1
        border = lists[1 - low].starts[cursors[1 - low]]
        stop = bisect_left(lists[low].starts, border, cursors[low])
        extend_regions(merged, lists[low], cursors[low], stop)
        cursors[low] = stop
    for columns, cursor in zip(lists, cursors, strict=True):
        extend_regions(merged, columns, cursor, len(columns.starts))
    return merged


def extend_regions(merged: Columns, columns: Columns, start: int, stop: int) -> None:
    """Append the rows [start, stop) of other columns."""
    for target, source in zip(merged, columns, strict=True):
        target.extend(source[start:stop])


def owners_of(columns: Columns, mappings: Sequence[Mapping]) -> set[int]:
    """Return the indices of the mappings in which there is a region."""
    owners: set[int] = set()
    starts, ends = bounds_of(mappings)
    index = row = 0
    while row < len(columns.starts):
        index = bisect_right(ends, columns.starts[row], index)
        while index < len(ends) and starts[index] < columns.ends[row]:
            owners.add(index)
            index += 1
        row += 1
        if index:  # what ends within the last one says nothing new
            row = bisect_right(columns.ends, ends[index - 1], row)
    return owners
