"""Ranges and regions for the calls of the algebra in `native`; pure, no I/O.

A list of regions is cut, joined and measured in C alone: `native.inside`, `outside`,
`shares`, `join`, `overlay`, `relabel` and `tally`. This file makes their arguments.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Iterable
from typing import NamedTuple

from pagescan import native
from pagescan.native import Columns, Spans

Interval = tuple[int, int]


class Ranges(NamedTuple):
    """Ascending, disjoint ranges, column by column; each an array('Q')."""

    starts: array[int]
    ends: array[int]


def ranges_of(intervals: Iterable[Interval]) -> Ranges:
    """Return the union of some intervals, which may overlap, in any order."""
    starts, ends = ranges = Ranges(array("Q"), array("Q"))
    for start, end in sorted(intervals):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return ranges


def unlabelled(ranges: Ranges) -> Columns:
    """Return ranges as regions without categories."""
    return Columns(*ranges, array("Q", bytes(8 * len(ranges.starts))))


def union(one: Columns, other: Columns) -> Columns:
    """Return the pages that either list has, without their categories."""
    return native.overlay(
        unlabelled(Ranges(*one[:2])), unlabelled(Ranges(*other[:2])), outside=True
    )


def numbered(ranges: Ranges) -> Columns:
    """Return ranges as regions whose categories are their indices."""
    return Columns(*ranges, array("Q", range(len(ranges.starts))))


def length_of(regions: Columns | Spans) -> int:
    """Return the bytes of regions."""
    return sum(regions.ends) - sum(regions.starts)


def first_bytes(regions: Columns, length: int) -> Columns:
    """Return the part of regions that makes up the first `length` bytes of them."""
    lengths = itertools.accumulate(map(operator.sub, regions.ends, regions.starts))
    totals = list(itertools.takewhile(length.__gt__, lengths))
    rows = len(totals) + 1
    first = Columns(*(column[:rows] for column in regions))
    if rows == len(first.starts):
        left = length - (totals[-1] if totals else 0)
        first.ends[-1] = min(first.ends[-1], first.starts[-1] + left)
    return first


def whole_pages(arrays: Iterable[array[int]], page_size: int) -> Ranges:
    """Return the pages filled entirely by one array of this process."""
    filled = []
    for one in arrays:
        start, length = one.buffer_info()
        end = start + length * one.itemsize
        low, high = start + -start % page_size, end - end % page_size
        if low < high:
            filled.append((low, high))
    return ranges_of(filled)
