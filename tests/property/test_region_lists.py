"""The algebra of region lists in C, compared with a model that works page by page."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array

import pytest
from hypothesis import example, given, strategies as st

from pagescan import native
from pagescan.native import Columns, regions as native_regions

Pages = dict[int, int]
"""The category of each page of a list, by its number."""
Ranges = list[tuple[int, int]]

PAGE = 1 << 12


def _runs(kinds: list[int], cut: list[bool]) -> list[tuple[int, int, int]]:
    """Return the runs of equal nonzero numbers, cut at some pages too."""
    rows: list[tuple[int, int, int]] = []
    for page, (kind, apart) in enumerate(zip(kinds, cut, strict=False)):
        if kind and rows and rows[-1][1:] == (page, kind) and not apart:
            rows[-1] = (rows[-1][0], page + 1, kind)
        elif kind:
            rows.append((page, page + 1, kind))
    return rows


def _lists(kinds: int) -> st.SearchStrategy[list[tuple[int, int, int]]]:
    flags = st.lists(st.booleans(), min_size=30, max_size=30)
    return st.builds(_runs, st.lists(st.integers(0, kinds), max_size=30), flags)


regions = _lists(3)
"""Neighbours may touch, with equal categories too."""
ranges = _lists(1).map(lambda rows: [(start, end) for start, end, _ in rows])
"""Some of them touch."""

# More rows than a first try has room for.
MANY: Ranges = [(at, at + 1) for at in range(0, 80, 2)]
LONG = [(0, 80, 1)]


def columns(rows: list[tuple[int, int, int]]) -> Columns:
    made = Columns.empty()
    for start, end, bits in rows:
        for column, value in zip(made, (start * PAGE, end * PAGE, bits), strict=True):
            column.append(value)
    return made


def bounds(parts: Ranges) -> tuple[array[int], array[int]]:
    return (
        array("Q", [start * PAGE for start, _ in parts]),
        array("Q", [end * PAGE for _, end in parts]),
    )


def pages_of(rows: list[tuple[int, int, int]]) -> Pages:
    return {page: bits for start, end, bits in rows for page in range(start, end)}


def owner_of(page: int, parts: Ranges) -> int:
    for index, (start, end) in enumerate(parts):
        if start <= page < end:
            return index
    return -1


def longest(pages: Pages) -> list[tuple[int, int, int]]:
    """Return the list of these pages with the fewest rows."""
    rows: list[tuple[int, int, int]] = []
    for page, bits in sorted(pages.items()):
        if rows and rows[-1][1:] == (page, bits):
            rows[-1] = (rows[-1][0], page + 1, bits)
        else:
            rows.append((page, page + 1, bits))
    return rows


def rows_of(made: Columns) -> list[tuple[int, int, int]]:
    return [
        (start // PAGE, end // PAGE, bits)
        for start, end, bits in zip(*made, strict=True)
    ]


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first try be too small in half of the cases."""
    monkeypatch.setattr(native_regions, "_MORE_ROWS", 3)


@given(regions, ranges)
@example(LONG, MANY)
def test_inside_and_outside_part_a_list(
    rows: list[tuple[int, int, int]], parts: Ranges
) -> None:
    """Each page is in exactly one of the two, and in the right one."""
    pages = pages_of(rows)
    inner = {page: pages[page] for page in pages if owner_of(page, parts) >= 0}
    outer = {page: pages[page] for page in pages if page not in inner}
    given_rows = columns(rows)
    assert rows_of(native.inside(given_rows, *bounds(parts))) == longest(inner)
    assert rows_of(native.outside(given_rows, *bounds(parts))) == longest(outer)
    assert given_rows == columns(rows)


@given(regions, ranges)
@example(LONG, MANY)
def test_shares_count_bytes_by_range(
    rows: list[tuple[int, int, int]], parts: Ranges
) -> None:
    """Ranges without a page are left out; pages outside all ranges are counted."""
    owners = [owner_of(page, parts) for page in pages_of(rows)]
    made = native.shares(columns(rows), *bounds(parts))
    counted = {
        index: owners.count(index) * PAGE for index in sorted(set(owners) - {-1})
    }
    assert list(made.ranges) == list(counted)
    assert list(made.lengths) == list(counted.values())
    assert made.outside == owners.count(-1) * PAGE


@given(regions, ranges)
@example(LONG, MANY)
def test_join_names_the_range_of_each_page(
    rows: list[tuple[int, int, int]], parts: Ranges
) -> None:
    """Rows are cut at the borders of ranges, and nowhere else."""
    joined, owners = native.join(columns(rows), *bounds(parts))
    pages = pages_of(rows)
    both = {page: bits * 1000 + owner_of(page, parts) for page, bits in pages.items()}
    expected = longest(both)
    assert rows_of(joined) == [(start, end, pages[start]) for start, end, _ in expected]
    assert list(owners) == [owner_of(start, parts) for start, _, _ in expected]


@given(regions, regions, st.booleans())
@example(LONG, [(*pair, 0) for pair in MANY], True)
@example(LONG, [(*pair, 0) for pair in MANY], False)
def test_overlay_lets_the_upper_list_count(
    under: list[tuple[int, int, int]],
    over: list[tuple[int, int, int]],
    outside: bool,
) -> None:
    """Outside the lower list the upper one is taken only if requested."""
    lower, upper = pages_of(under), pages_of(over)
    expected = lower | {
        page: bits for page, bits in upper.items() if outside or page in lower
    }
    made = native.overlay(columns(under), columns(over), outside=outside)
    assert rows_of(made) == longest(expected)


@given(regions, st.dictionaries(st.integers(1, 3), st.integers(0, 4)))
def test_relabel_drops_what_has_no_label(
    rows: list[tuple[int, int, int]], labels: dict[int, int]
) -> None:
    """Rows that touch and get equal new categories become one."""
    expected = {
        page: labels[bits] for page, bits in pages_of(rows).items() if bits in labels
    }
    assert rows_of(native.relabel(columns(rows), labels)) == longest(expected)


@pytest.mark.parametrize("gap", [1, 2, 3, 7, 100, 1000])
def test_search_passes_over_what_does_not_matter(gap: int) -> None:
    """The search finds the right ones among 20,000 ranges and as many regions."""
    parts = [(at, at + 1) for at in range(0, 40_000, 2)]
    few = list(range(0, 40_000, 2 * gap))
    made = native.inside(columns([(at, at + 1, 5) for at in few]), *bounds(parts))
    assert rows_of(made) == [(at, at + 1, 5) for at in few]
    many = columns([(start, end, 5) for start, end in parts])
    assert rows_of(native.inside(many, *bounds([(at, at + 1) for at in few]))) == [
        (at, at + 1, 5) for at in few
    ]
    counted = native.shares(columns([(at, at + 2, 0) for at in few]), *bounds(parts))
    assert list(counted.ranges) == [at // 2 for at in few]
    assert counted.outside == len(few) * PAGE
