"""Units: the parts of mappings that `watch --budget` draws from; pure, no I/O."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from pagescan.model.mapping_set import bounds_of
from pagescan.model.memory import Mapping
from pagescan.native import Columns


def count_pages(
    found: Columns, units: Sequence[Mapping], *, page_size: int
) -> list[int]:
    """Count the pages of the regions in each unit; both lists ascending."""
    starts, _ = bounds_of(units)
    counts = [0] * len(units)
    for start, end in zip(found.starts, found.ends, strict=True):
        index = max(0, bisect_right(starts, start) - 1)
        while index < len(units) and units[index].start < end:
            unit = units[index]
            counts[index] += max(0, min(end, unit.end) - max(start, unit.start))
            index += 1
    return [length // page_size for length in counts]


def within(units: Iterable[Mapping], chosen: Sequence[Mapping]) -> list[Mapping]:
    """Return the units that still lie whole within one mapping; mappings ascending."""
    starts, _ = bounds_of(chosen)
    mapped = []
    for unit in units:
        index = bisect_right(starts, unit.start) - 1
        if index >= 0 and unit.end <= chosen[index].end:
            mapped.append(unit)
    return mapped


def apart(units: Iterable[Mapping], others: Sequence[Mapping]) -> list[Mapping]:
    """Return the units that overlap none of the others; the others ascending.

    A unit at the edge of a mapping may have grown; it still counts as the same unit.
    """
    starts, ends = bounds_of(others)

    def is_apart(unit: Mapping) -> bool:
        index = bisect_right(ends, unit.start)  # the first other that ends behind it
        return index == len(starts) or starts[index] >= unit.end

    return list(filter(is_apart, units))


def holes(mappings: Iterable[Mapping], units: Sequence[Mapping]) -> list[Mapping]:
    """Return the parts of mappings outside all units; units sorted by start."""
    starts, _ = bounds_of(units)
    outside = []
    for mapping in mappings:
        at = mapping.start
        low, high = (bisect_left(starts, end) for end in (mapping.start, mapping.end))
        for unit in units[low:high]:
            if at < unit.start:
                outside.append(mapping._replace(start=at, end=unit.start))
            at = max(at, unit.end)
        if at < mapping.end:
            outside.append(mapping._replace(start=at))
    return outside
