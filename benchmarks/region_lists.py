"""Measures the algebra of region lists at 100,000 mappings, beside plain Python.

The Python code also searches: with few regions it visits few mappings.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable

from benchmarks.measure import PAGE, Bench, elapsed_ns, in_turn
from pagescan import native
from pagescan.native import Columns

_MAPPINGS = 100_000
_APART = 64 * PAGE
_BASE = "plain Python"


def run(bench: Bench) -> None:
    """Measure each operation with few regions, and with one in each mapping."""
    begins = range(0, _MAPPINGS * _APART, _APART)
    starts = array("Q", begins)
    ends = array("Q", (start + _APART // 2 for start in begins))
    everywhere = _regions(1, offset=0)
    for count in (10, 1000, _MAPPINGS):
        step = _MAPPINGS // count
        regions, beside = (_regions(step, offset=PAGE * at) for at in (3, 20))

        def inside(regions: Columns = regions) -> Columns:
            return native.inside(regions, starts, ends)

        def inside_plain(regions: Columns = regions) -> Columns:
            return _inside(regions, starts, ends)

        def outside(regions: Columns = regions) -> Columns:
            return native.outside(everywhere, regions.starts, regions.ends)

        def outside_plain(regions: Columns = regions) -> Columns:
            gaps = (
                array("Q", [0, *regions.ends]),
                array("Q", [*regions.starts, 1 << 63]),
            )
            return _inside(everywhere, *gaps)

        def merged(one: Columns = regions, other: Columns = beside) -> Columns:
            return native.overlay(one, other, outside=True)

        def merged_plain(one: Columns = regions, other: Columns = beside) -> Columns:
            return _merged(one, other)

        for key, what, ours, plain in (
            ("inside", "parts of {} regions in 100,000 mappings", inside, inside_plain),
            ("outside", "100,000 regions without {} others", outside, outside_plain),
            ("overlay", "two lists of {} regions as one", merged, merged_plain),
        ):
            _compare(bench, f"{key}.{count}", what.format(f"{count:,}"), ours, plain)


def _compare(
    bench: Bench,
    key: str,
    what: str,
    ours: Callable[[], Columns],
    plain: Callable[[], Columns],
) -> None:
    if ours() != plain():
        raise AssertionError(f"{key}: the two do not agree")
    ways = {
        "ours": lambda: elapsed_ns(ours) / 1e3,
        "plain": lambda: elapsed_ns(plain) / 1e3,
    }
    found = in_turn(bench.rounds(9, 3), ways)
    bench.add(
        f"region_lists.{key}",
        what,
        found["ours"],
        "us",
        against=_BASE,
        base=found["plain"],
    )


def _regions(step: int, *, offset: int) -> Columns:
    """Return regions of four pages, in each `step`-th mapping."""
    begins = range(offset, _MAPPINGS * _APART, step * _APART)
    return Columns(
        array("Q", begins),
        array("Q", (start + 4 * PAGE for start in begins)),
        array("Q", [2]) * len(begins),
    )


def _inside(regions: Columns, starts: array[int], ends: array[int]) -> Columns:
    made = Columns.empty()
    index = 0
    for start, end, bits in zip(*regions, strict=True):
        index = bisect_right(ends, start, index)
        at = index
        while at < len(starts) and starts[at] < end:
            row = (max(start, starts[at]), min(end, ends[at]), bits)
            for column, value in zip(made, row, strict=True):
                column.append(value)
            at += 1
    return made


def _merged(one: Columns, other: Columns) -> Columns:
    made = Columns.empty()
    lists, at = (one, other), [0, 0]
    while at[0] < len(one.starts) and at[1] < len(other.starts):
        low = 0 if one.starts[at[0]] < other.starts[at[1]] else 1
        border = lists[1 - low].starts[at[1 - low]]
        stop = bisect_left(lists[low].starts, border, at[low])
        for column, source in zip(made, lists[low], strict=True):
            column.extend(source[at[low] : stop])
        at[low] = stop
    for rows, index in zip(lists, at, strict=True):
        for column, source in zip(made, rows, strict=True):
            column.extend(source[index:])
    return made
