"""Units: the parts of mappings that `watch --budget` draws from; pure, no I/O."""

from collections.abc import Iterable, Sequence

from pagescan import native
from pagescan.model.looks import Sampled
from pagescan.model.mapping_set import bounds_of
from pagescan.model.memory import HUGE_PAGE, Mapping
from pagescan.model.ranges import numbered, ranges_of
from pagescan.native import Columns
from pagescan.tracking.growing_ends import End


def count_pages(
    regions: Columns, units: Sequence[Mapping], *, page_size: int
) -> list[int]:
    """Count the pages of the regions in each unit; both lists ascending."""
    counts = [0] * len(units)
    shares = native.shares(regions, *bounds_of(units))
    for index, length in zip(shares.ranges, shares.lengths, strict=True):
        counts[index] = length // page_size
    return counts


def within(units: Sequence[Mapping], mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the units that still lie whole within one mapping; both ascending."""
    parts, owners = native.join(numbered(bounds_of(units)), *bounds_of(mappings))
    return [
        units[index]
        for start, end, index, owner in zip(*parts, owners, strict=True)
        if owner >= 0 and (start, end) == (units[index].start, units[index].end)
    ]


def apart(units: Sequence[Mapping], others: Sequence[Mapping]) -> list[Mapping]:
    """Return the units that overlap none of the others; the units are ascending.

    A unit at the edge of a mapping may have grown; it still counts as the same unit.
    """
    ranges = ranges_of((other.start, other.end) for other in others)
    overlapping = set(native.inside(numbered(bounds_of(units)), *ranges).categories)
    return [unit for index, unit in enumerate(units) if index not in overlapping]


def holes(mappings: Sequence[Mapping], units: Sequence[Mapping]) -> list[Mapping]:
    """Return the parts of mappings outside all units; the mappings are ascending."""
    ranges = ranges_of((unit.start, unit.end) for unit in units)
    outside = native.outside(numbered(bounds_of(mappings)), *ranges)
    return [
        mappings[index]._replace(start=start, end=end)
        for start, end, index in zip(*outside, strict=True)
    ]


def units_around(regions: Columns, mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return the units that contain a part of some regions, ascending.

    A unit is a huge page, or a whole mapping if that is smaller.
    """
    parts, owners = native.join(regions, *bounds_of(mappings))
    units: dict[int, Mapping] = {}
    for start, end, owner in zip(parts.starts, parts.ends, owners, strict=True):
        if owner < 0:
            continue
        mapping = mappings[owner]
        size = mapping.page_size or HUGE_PAGE
        for cut in range(start - start % size, end, size):
            low = max(mapping.start, cut)
            units[low] = mapping._replace(start=low, end=min(mapping.end, cut + size))
    return list(units.values())


def units_of(ends: Iterable[End], mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return growing ends in the form of units."""
    return [mappings[0]._replace(start=end.start, end=end.end) for end in ends]


def sampled(
    tracked: Sequence[Mapping], population: Sequence[Mapping], came: Sequence[Mapping]
) -> Sampled:
    """Return what a look was about, given its units and the memory that appeared."""
    drawn, whole = sorted([*tracked, *came]), sorted([*population, *came])
    return Sampled(bounds_of(drawn), bounds_of(whole))
