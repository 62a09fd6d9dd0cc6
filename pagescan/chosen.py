"""A set of selected mappings, with the arrays that a scan needs; pure, no I/O.

A target may have a hundred thousand mappings and one look per second. So the arrays are
made once and used again until the mappings change.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat

from pagescan.model import Kind, Mapping, Untracked
from pagescan.native import Columns, PreparedScan, Spans

KindKey = tuple[Kind, int]
"""A mapping's kind and huge page size, which decide how it is scanned."""


# A hole of up to this many bytes is scanned with its neighbours: that saves a call.
_NARROW = 2 << 20


class Chosen(list[Mapping]):
    """Selected mappings, ascending, with cached arrays; the list must not change.

    Attributes:
        there: All mappings of the target, of which the selected ones are some, or parts
            of some; empty: unknown.
        scans: The prepared scans that the next look at them can use again.
    """

    def __init__(
        self, mappings: Iterable[Mapping] = (), there: Sequence[Mapping] = ()
    ) -> None:
        """Copy the selected mappings; nothing is cached yet."""
        super().__init__(mappings)
        self.there = there
        self.bounds: tuple[array[int], array[int]] | None = None
        self.keys: list[KindKey] | None = None
        self.kinds: list[KindKey] | None = None
        self.spans: dict[tuple[object, ...], Spans] = {}
        self.scans: dict[tuple[object, ...], PreparedScan] = {}


def length_of(spans: Spans) -> int:
    """Return the bytes of all ranges together."""
    return sum(spans.ends) - sum(spans.starts)


def kept_scans(
    mappings: Sequence[Mapping],
) -> dict[tuple[object, ...], PreparedScan] | None:
    """Return the cache of prepared scans; None: these mappings have no cache."""
    return mappings.scans if isinstance(mappings, Chosen) else None


def bounds_of(mappings: Sequence[Mapping]) -> tuple[array[int], array[int]]:
    """Return the starts and the ends of mappings; the caller must not change them."""
    if isinstance(mappings, Chosen) and mappings.bounds is not None:
        return mappings.bounds
    bounds = (
        array("Q", [mapping.start for mapping in mappings]),
        array("Q", [mapping.end for mapping in mappings]),
    )
    if isinstance(mappings, Chosen):
        mappings.bounds = bounds
    return bounds


def _keys(mappings: Sequence[Mapping]) -> list[KindKey]:
    if isinstance(mappings, Chosen) and mappings.keys is not None:
        return mappings.keys
    keys = [(item.kind, item.page_size) for item in mappings]
    if isinstance(mappings, Chosen):
        mappings.keys = keys
    return keys


def kinds_of(mappings: Sequence[Mapping]) -> list[KindKey]:
    """Return the different kinds, in the order of their first mapping."""
    if isinstance(mappings, Chosen) and mappings.kinds is not None:
        return mappings.kinds
    kinds = list(dict.fromkeys(_keys(mappings)))
    if isinstance(mappings, Chosen):
        mappings.kinds = kinds
    return kinds


def spans_of(
    mappings: Sequence[Mapping],
    rules: dict[KindKey, int],
    *,
    over_holes: bool = False,
) -> Spans:
    """Return mappings as ranges to scan; neighbours with one rule become one range.

    Args:
        mappings: Ascending.
        rules: The index of a rule by kind and huge page size; mappings of other kinds
            are left out.
        over_holes: Also join across holes of up to 2 MiB, in a `Chosen`. A mapping may
            appear in such a hole before the scan, so the caller must drop results
            outside the set. Only for scans of registered memory.

    Returns:
        Ranges; the caller must not change them.
    """
    if not isinstance(mappings, Chosen):
        return _spans(mappings, rules, repeat(False, len(mappings)))
    key = (over_holes, *rules.items())
    if key not in mappings.spans:
        known = over_holes and mappings.there
        narrow = _narrow(mappings) if known else repeat(False, len(mappings))
        mappings.spans[key] = _spans(mappings, rules, narrow)
    return mappings.spans[key]


def _spans(
    mappings: Sequence[Mapping], rules: dict[KindKey, int], narrow: Iterable[bool]
) -> Spans:
    starts, ends, which = Spans(array("Q"), array("Q"), array("Q"))
    end, last = -1, -1
    for mapping, key, near in zip(mappings, _keys(mappings), narrow, strict=True):
        rule = rules.get(key)
        if rule is None:
            last = -1
            continue
        if rule == last and (mapping.start == end or near):
            ends[-1] = mapping.end
        else:
            starts.append(mapping.start)
            ends.append(mapping.end)
            which.append(rule)
        end, last = mapping.end, rule
    return Spans(starts, ends, which)


def _narrow(mappings: Chosen) -> Iterable[bool]:
    """Yield for each mapping whether a narrow hole alone separates it from the last."""
    there = iter(mappings.there)
    one, end, last = next(there), 0, 0
    for mapping in mappings:
        while one.end <= mapping.start:
            one, end = next(there), one.end
        # Other mappings are no holes, nor are unselected parts of a mapping.
        yield one.start == mapping.start and last == end > one.start - _NARROW
        last = mapping.end


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


def reservations_beside(
    indices: Iterable[int], mappings: Sequence[Mapping]
) -> list[Mapping]:
    """Return the private reservations next to the mappings at `indices`, ascending."""
    touching: dict[int, Mapping] = {}
    for index in indices:
        one = mappings[index]
        for other in (
            *mappings[max(0, index - 1) : index],
            *mappings[index + 1 : index + 2],
        ):
            touches = other.end == one.start or other.start == one.end
            if touches and other.reserved and other.kind is Kind.ANON:
                touching[other.start] = other
    return [touching[start] for start in sorted(touching)]


def is_whole(mapping: Mapping, chosen: Chosen) -> bool:
    """Whether it is what the kernel has, and no part of that which was selected."""
    if not chosen.there:
        return False
    index = bisect_right(chosen.there, mapping.start, key=lambda item: item.start) - 1
    real = chosen.there[index]
    return (real.start, real.end) == (mapping.start, mapping.end)


def has_no_room(mapping: Mapping, there: Sequence[Mapping]) -> bool:
    """Whether something is in the way on both sides: it can grow no more.

    A reservation is not: what is mapped over it may become one with its neighbour.
    """
    index = bisect_right(there, mapping.start, key=lambda item: item.start) - 1
    if not 0 < index < len(there) - 1:
        return False
    before, after = there[index - 1], there[index + 1]
    touches = before.end == mapping.start and mapping.end == after.start
    return touches and not (is_reservation(before) or is_reservation(after))


def is_reservation(mapping: Mapping | None) -> bool:
    """Whether it is private memory that nobody can use as it is; False: no mapping."""
    return bool(mapping and mapping.reserved and mapping.kind is Kind.ANON)


def reserved_beside(low: int, high: int, there: Sequence[Mapping]) -> tuple[bool, bool]:
    """Whether a private reservation ends at an address, and one begins at another."""
    index = bisect_right(there, low, key=lambda item: item.start) - 1
    before = there[index - 1] if index > 0 else None
    after = bisect_right(there, high - 1, key=lambda item: item.start)
    behind = there[after] if after < len(there) else None

    return (
        bool(before and before.end == low and is_reservation(before)),
        bool(behind and behind.start == high and is_reservation(behind)),
    )


class Covers:
    """Answers whether any of many ranges, which may overlap, covers a whole mapping."""

    def __init__(self, items: Iterable[Untracked]) -> None:
        """Sort the ranges once."""
        spans = sorted((item.start, item.end) for item in items)
        self._starts = [start for start, _ in spans]
        # For each start: the last end of all ranges that begin there or earlier.
        self._ends = list(accumulate((end for _, end in spans), max))

    def __contains__(self, mapping: Mapping | Untracked) -> bool:
        index = bisect_right(self._starts, mapping.start) - 1
        return index >= 0 and mapping.end <= self._ends[index]
