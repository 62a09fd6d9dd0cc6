"""Units, the pieces of mappings that `watch --budget` draws from; pure, no I/O."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from pagescan.chosen import bounds_of
from pagescan.model import Mapping
from pagescan.native import Columns


def count_pages(
    found: Columns, units: Sequence[Mapping], *, page_size: int
) -> list[int]:
    """Return the pages of some regions in each of some units; both ascending."""
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
    """Return those units that are mapped still, as they were."""
    starts, _ = bounds_of(chosen)
    held = []
    for unit in units:
        index = bisect_right(starts, unit.start) - 1
        if index >= 0 and unit.end <= chosen[index].end:
            held.append(unit)
    return held


def apart(units: Iterable[Mapping], others: Sequence[Mapping]) -> list[Mapping]:
    """Return those units that none of the others overlaps; the others ascending.

    A unit at the border of a mapping grows with it, and is no other one then.
    """
    starts, ends = bounds_of(others)

    def is_apart(unit: Mapping) -> bool:
        index = bisect_right(ends, unit.start)  # the first that ends behind its start
        return index == len(starts) or starts[index] >= unit.end

    return list(filter(is_apart, units))


def holes(mappings: Iterable[Mapping], units: Sequence[Mapping]) -> list[Mapping]:
    """Return the parts of mappings in which there is no unit; the units by start."""
    starts, _ = bounds_of(units)
    found = []
    for mapping in mappings:
        at = mapping.start
        low, high = (bisect_left(starts, end) for end in (mapping.start, mapping.end))
        for unit in units[low:high]:
            if at < unit.start:
                found.append(mapping._replace(start=at, end=unit.start))
            at = max(at, unit.end)
        if at < mapping.end:
            found.append(mapping._replace(start=at))
    return found
