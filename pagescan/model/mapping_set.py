"""A set of selected mappings, with the arrays that a scan needs; pure, no I/O.

A target may have a hundred thousand mappings and one look per second. So the arrays are
made once and used again until the mappings change.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple, overload

from pagescan.model.memory import Kind, Mapping, Untracked
from pagescan.model.ranges import Ranges

if TYPE_CHECKING:
    from pagescan.native import PreparedScan, Spans

KindKey = tuple[Kind, int]
"""A mapping's kind and huge page size, which decide how it is scanned."""


class NamedScan(NamedTuple):
    """A prepared scan, and the question that it answers.

    Attributes:
        question: The ranges, the rules and whatever else the scan was prepared with.
        scan: The scan.
    """

    question: tuple[object, ...]
    scan: PreparedScan


class MappingSet(Sequence[Mapping]):
    """Selected mappings, ascending; immutable, with the arrays that scans need, cached.

    Attributes:
        all_mappings: All mappings of the target: the selected ones are some of them, or
            parts of some; empty: unknown.
        scans: The prepared scans that the next look can use again, by name.
        spans: Ranges to scan, by the rules that they were made for.
    """

    def __init__(
        self, mappings: Iterable[Mapping] = (), all_mappings: Sequence[Mapping] = ()
    ) -> None:
        """Copy the selected mappings; nothing is cached yet."""
        self._mappings = tuple(mappings)
        self.all_mappings = all_mappings
        self.spans: dict[tuple[object, ...], Spans] = {}
        self.scans: dict[str, NamedScan] = {}

    def __len__(self) -> int:
        return len(self._mappings)

    def __iter__(self) -> Iterator[Mapping]:
        return iter(self._mappings)

    @overload
    def __getitem__(self, index: int) -> Mapping: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping]: ...
    def __getitem__(self, index: int | slice) -> Mapping | Sequence[Mapping]:
        return self._mappings[index]

    @cached_property
    def bounds(self) -> Ranges:
        """The starts and the ends; the caller must not change them."""
        return bounds_of(self._mappings)

    @cached_property
    def keys(self) -> list[KindKey]:
        """The kind and huge page size of each mapping."""
        return [(item.kind, item.page_size) for item in self._mappings]

    @cached_property
    def kinds(self) -> tuple[KindKey, ...]:
        """The different kinds, in the order of their first mapping."""
        return tuple(dict.fromkeys(self.keys))


def bounds_of(mappings: Sequence[Mapping]) -> Ranges:
    """Return the starts and the ends of mappings; a `MappingSet` has them cached."""
    return Ranges(
        array("Q", [mapping.start for mapping in mappings]),
        array("Q", [mapping.end for mapping in mappings]),
    )


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


def is_whole(mapping: Mapping, selected: MappingSet) -> bool:
    """Whether it is a whole mapping of the kernel's, and not a selected part of one."""
    mappings = selected.all_mappings
    return bool(mappings) and whole_of(mapping, mappings)[:2] == mapping[:2]


def whole_of(part: Mapping, mappings: Sequence[Mapping]) -> Mapping:
    """Return the one of all mappings of a target that a part was cut from."""
    return mappings[_index_of(part, mappings)]


def wholes_of(
    parts: Iterable[Mapping], mappings: Sequence[Mapping]
) -> Iterator[Mapping]:
    """Yield for each part the mapping that it was cut from.

    A part is searched for only if its mapping does not follow that of the last part.

    Args:
        parts: Parts of mappings, or whole ones.
        mappings: All mappings of the target, ascending.
    """
    at = -1
    for part in parts:
        at += 1
        if at == len(mappings) or mappings[at].start != part.start:
            at = _index_of(part, mappings)
        yield mappings[at]


def _index_of(part: Mapping, mappings: Sequence[Mapping]) -> int:
    return bisect_right(mappings, part.start, key=lambda item: item.start) - 1


def has_no_room(mapping: Mapping, mappings: Sequence[Mapping]) -> bool:
    """Whether neighbours on both sides keep it from growing.

    A reservation does not: memory mapped over it may be joined with its neighbour.
    """
    index = bisect_right(mappings, mapping.start, key=lambda item: item.start) - 1
    if not 0 < index < len(mappings) - 1:
        return False
    before, after = mappings[index - 1], mappings[index + 1]
    touches = before.end == mapping.start and mapping.end == after.start
    return touches and not (is_reservation(before) or is_reservation(after))


def is_reservation(mapping: Mapping | None) -> bool:
    """Whether it is private memory without any access; False if there is no mapping."""
    return bool(mapping and mapping.reserved and mapping.kind is Kind.ANON)


def reserved_beside(
    low: int, high: int, mappings: Sequence[Mapping]
) -> tuple[bool, bool]:
    """Whether a private reservation ends at an address, and one begins at another."""
    index = bisect_right(mappings, low, key=lambda item: item.start) - 1
    before = mappings[index - 1] if index > 0 else None
    after = bisect_right(mappings, high - 1, key=lambda item: item.start)
    behind = mappings[after] if after < len(mappings) else None

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


def look_alike(one: Mapping, other: Mapping) -> bool:
    """Whether two mappings touch and look alike in /proc/PID/maps."""
    return (
        one.end == other.start
        and one.perms == other.perms
        and one.name == other.name
        and one.inode == other.inode
        and one.device == other.device
        and one.page_size == other.page_size
        and (not one.inode or one.offset + one.end - one.start == other.offset)
    )


def own_borders(tracked: Iterable[tuple[Mapping, bool]]) -> set[int]:
    """Return the starts of mappings that tracking has not cut off from those before.

    It divides a mapping into memory that is registered and memory that is not. Earlier
    tracking may have left the heap in two mappings, both of which are registered now;
    since a process has one heap, they are one.

    Args:
        tracked: Each mapping, ascending, and whether it is registered.
    """
    return {
        other.start
        for (_, first), (other, second) in pairwise(tracked)
        if first and second and other.name != "[heap]"
    }


def whole(
    mappings: Sequence[Mapping], at: int, borders: Container[int] = ()
) -> tuple[Mapping, int]:
    """Return a mapping with its neighbours that look alike, and the index behind them.

    Tracking divides a mapping that grows; this is the mapping as its program knows it.

    Args:
        mappings: Mappings, ascending.
        at: The index of one of them.
        borders: Starts of mappings that are not joined with those before them.
    """

    def joins(index: int) -> bool:
        one, other = mappings[index - 1], mappings[index]
        return look_alike(one, other) and other.start not in borders

    first, behind = at, at + 1
    while first and joins(first):
        first -= 1
    while behind < len(mappings) and joins(behind):
        behind += 1
    if behind == first + 1:
        return mappings[first], behind
    return mappings[first]._replace(end=mappings[behind - 1].end), behind


def wholes(
    mappings: Sequence[Mapping], indices: Sequence[int], borders: Container[int]
) -> Iterator[tuple[Mapping, Sequence[int]]]:
    """Yield the mappings as their program knows them, each with its parts.

    Args:
        mappings: Mappings, ascending.
        indices: Some of them, ascending: a mapping without any of these is left out.
        borders: Starts of mappings that are not joined with those before them.
    """
    at = 0
    while at < len(indices):
        one, behind = whole(mappings, indices[at], borders)
        end = bisect_left(indices, behind, at)
        yield one, indices[at:end]
        at = end
