"""The algebra of region lists: see shim_regions.c."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections.abc import Callable
from typing import Any

from pagescan.native.door import c_columns, check, ffi, i64, lib, u64
from pagescan.native.types import ALL_PAGES, CATEGORY_BITS, ZERO, Columns, Shares

# Initial room for the result of cutting a list of regions; more is made when needed.
_MORE_ROWS = 64


def join(
    regions: Columns, starts: array[int], ends: array[int]
) -> tuple[Columns, array[int]]:
    """Cut ascending regions at the borders of ascending ranges.

    Returns:
        The regions, and the index of the range of each: array('q'), -1 for none.
    """
    c_regions = c_columns(regions, len(regions.starts))
    rows = len(regions.starts) + _MORE_ROWS
    while True:
        joined, out = empty_rows(rows)
        owners = array("q", bytes(8 * rows))
        if not _ranged(lib.ps_join, c_regions, starts, ends, out, i64(owners)):
            break
        rows = out.length
    for column in (*joined, owners):
        del column[out.length :]
    return joined, owners


def inside(regions: Columns, starts: array[int], ends: array[int]) -> Columns:
    """Return the parts of ascending regions that lie inside some ranges.

    Args:
        regions: Ascending and disjoint.
        starts: Starts of the ranges, ascending and disjoint: they may touch.
        ends: Ends of the ranges.
    """
    return _parts(lib.ps_inside, regions, starts, ends)


def outside(regions: Columns, starts: array[int], ends: array[int]) -> Columns:
    """Return the parts of ascending regions that lie outside all of some ranges.

    The arguments are those of `inside`.
    """
    return _parts(lib.ps_outside, regions, starts, ends)


def shares(regions: Columns, starts: array[int], ends: array[int]) -> Shares:
    """Measure the length of ascending regions in each of some ranges.

    The arguments are those of `inside`.
    """
    c_regions = c_columns(regions, len(regions.starts))
    rows = min(len(starts), len(regions.starts) + _MORE_ROWS)
    out = ffi.new("struct ps_shares *")
    while True:
        indices, lengths = (ZERO * rows for _ in range(2))
        out.ranges, out.bytes, out.capacity = u64(indices), u64(lengths), rows
        if not _ranged(lib.ps_shares, c_regions, starts, ends, out):
            break
        rows = out.length
    del indices[out.length :], lengths[out.length :]
    return Shares(indices, lengths, out.outside)


def overlay(under: Columns, over: Columns, *, outside: bool) -> Columns:
    """Lay ascending regions over others; in an overlap, take the upper categories.

    Args:
        under: The lower list.
        over: The upper list.
        outside: Whether to include the parts that only the upper list has.
    """
    lower, upper = (c_columns(one, len(one.starts)) for one in (under, over))
    return filled(
        len(under.starts) + len(over.starts) + _MORE_ROWS,
        lambda out: lib.ps_overlay(lower, upper, outside, out),
    )


def relabel(regions: Columns, labels: dict[int, int]) -> Columns:
    """Return regions with other categories; those without a new label are left out.

    Args:
        regions: Ascending and disjoint.
        labels: The new categories, by the old ones.
    """
    c_regions = c_columns(regions, len(regions.starts))
    before, after = array("Q", labels), array("Q", labels.values())
    old, new = u64(before), u64(after)
    return filled(
        len(regions.starts),
        lambda out: lib.ps_relabel(c_regions, old, new, len(before), out),
    )


def whole_units(regions: Columns, size: int, left_out: int | None = None) -> Columns:
    """Return the whole, aligned units of that many bytes inside ascending regions.

    Regions with the categories `left_out` are skipped.
    """
    none = ALL_PAGES if left_out is None else left_out
    rows = len(regions.starts)
    c_regions = c_columns(regions, rows)
    return filled(rows, lambda out: lib.ps_whole_units(c_regions, size, none, out))


def tally(
    regions: Columns, owners: array[int] | None, page_size: int, mappings: int
) -> tuple[array[int], array[int]]:
    """Count pages by mapping, and by mapping and category bit.

    Returns:
        Pages, one number per mapping; counts, CATEGORY_BITS per mapping, lowest bit
        first.
    """
    pages = array("Q", bytes(8 * mappings))
    counts = array("Q", bytes(8 * mappings * CATEGORY_BITS))
    c_owners = ffi.NULL if owners is None else i64(owners)
    check(
        lib.ps_tally(
            c_columns(regions, len(regions.starts)),
            c_owners,
            page_size,
            mappings,
            u64(pages),
            u64(counts),
        )
    )
    return pages, counts


def _parts(
    function: Callable[..., int],
    regions: Columns,
    starts: array[int],
    ends: array[int],
) -> Columns:
    """Return the parts of regions that a function of the shim picks by ranges."""
    c_regions = c_columns(regions, len(regions.starts))
    return filled(
        len(regions.starts) + _MORE_ROWS,
        lambda out: _ranged(function, c_regions, starts, ends, out),
    )


def _ranged(
    function: Callable[..., int],
    regions: Any,
    starts: array[int],
    ends: array[int],
    *out: Any,
) -> int:
    """Call a function of the shim with regions and ranges."""
    return check(function(regions, u64(starts), u64(ends), len(starts), *out))


def filled(rows: int, function: Callable[[Any], int]) -> Columns:
    """Return the rows that a function of the shim writes.

    Args:
        rows: Room for the first try: most lists are hardly cut.
        function: Takes a struct ps_columns; returns 1 if it needs `length` rows of
            room.
    """
    while True:
        result, out = empty_rows(rows)
        if not check(function(out)):
            break
        rows = out.length
    for column in result:
        del column[out.length :]
    return result


def empty_rows(capacity: int) -> tuple[Columns, Any]:
    """Return rows to be filled, and a struct ps_columns that refers to them."""
    rows = Columns(*(ZERO * capacity for _ in range(3)))
    out = c_columns(rows, capacity)
    out.length = 0
    return rows, out
