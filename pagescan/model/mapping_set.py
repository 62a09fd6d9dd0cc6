"""A set of selected mappings, with the arrays that a scan needs; pure, no I/O.

A target may have a hundred thousand mappings and one look per second. So the arrays are
made once and used again until the mappings change.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from pagescan.model.memory import Kind, Mapping, Untracked
from pagescan.model.ranges import Ranges

if TYPE_CHECKING:
    from pagescan.native import PreparedScan, Spans

KindKey = tuple[Kind, int]
"""A mapping's kind and huge page size, which decide how it is scanned."""


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
        self.bounds: Ranges | None = None
        self.keys: list[KindKey] | None = None
        self.kinds: list[KindKey] | None = None
        self.spans: dict[tuple[object, ...], Spans] = {}
        self.scans: dict[tuple[object, ...], PreparedScan] = {}


def kept_scans(
    mappings: Sequence[Mapping],
) -> dict[tuple[object, ...], PreparedScan] | None:
    """Return the cache of prepared scans; None: these mappings have no cache."""
    return mappings.scans if isinstance(mappings, Chosen) else None


def bounds_of(mappings: Sequence[Mapping]) -> Ranges:
    """Return the starts and the ends of mappings; the caller must not change them."""
    if isinstance(mappings, Chosen) and mappings.bounds is not None:
        return mappings.bounds
    bounds = Ranges(
        array("Q", [mapping.start for mapping in mappings]),
        array("Q", [mapping.end for mapping in mappings]),
    )
    if isinstance(mappings, Chosen):
        mappings.bounds = bounds
    return bounds


def keys_of(mappings: Sequence[Mapping]) -> list[KindKey]:
    """Return the kind and huge page size of each mapping."""
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
    kinds = list(dict.fromkeys(keys_of(mappings)))
    if isinstance(mappings, Chosen):
        mappings.kinds = kinds
    return kinds


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
    """Whether it is a whole mapping of the kernel's, and not a selected part of one."""
    if not chosen.there:
        return False
    index = bisect_right(chosen.there, mapping.start, key=lambda item: item.start) - 1
    real = chosen.there[index]
    return (real.start, real.end) == (mapping.start, mapping.end)


def has_no_room(mapping: Mapping, there: Sequence[Mapping]) -> bool:
    """Whether neighbours on both sides keep it from growing.

    A reservation does not: memory mapped over it may be joined with its neighbour.
    """
    index = bisect_right(there, mapping.start, key=lambda item: item.start) - 1
    if not 0 < index < len(there) - 1:
        return False
    before, after = there[index - 1], there[index + 1]
    touches = before.end == mapping.start and mapping.end == after.start
    return touches and not (is_reservation(before) or is_reservation(after))


def is_reservation(mapping: Mapping | None) -> bool:
    """Whether it is private memory without any access; False if there is no mapping."""
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
