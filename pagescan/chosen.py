"""Mappings that are looked at together, and what a scan needs of them; pure.

A target may have a hundred thousand mappings, and a look every second: what is made of
them is made once, as long as they are the same.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat

from pagescan.model import Kind, Mapping, Untracked
from pagescan.native import Columns, PreparedScan, Spans

KindKey = tuple[Kind, int]
"""What decides how a mapping is scanned: its kind, and the size of its huge pages."""


# A hole up to so long between two mappings is scanned with them, for one call less.
_NARROW = 2 << 20


class Chosen(list[Mapping]):
    """Mappings, ascending; never changed once they are in here.

    Attributes:
        there: All mappings that there are: the chosen ones, or what they are parts of,
            and others; empty: not known.
        scans: What the scanner keeps for the next look at them.
    """

    def __init__(
        self, mappings: Iterable[Mapping] = (), there: Sequence[Mapping] = ()
    ) -> None:
        """Take them over."""
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
    """Return where scans of them may be kept for the next look; None: there is none."""
    return mappings.scans if isinstance(mappings, Chosen) else None


def bounds_of(mappings: Sequence[Mapping]) -> tuple[array[int], array[int]]:
    """Return the starts and the ends; not to be changed."""
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
    """Return the kinds there are, in the order in which they come first."""
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
        rules: The index of a rule by kind and huge page size; other kinds are left out.
        over_holes: So do those of a `Chosen` with a narrow hole between them. There may
            be a mapping by the time of the scan: the answer has to be freed of it, and
            what is registered is the only thing that may be joined over a hole.

    Returns:
        Ranges; not to be changed.
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
    """Yield for each whether a narrow hole lies before it, and then the one before."""
    there = iter(mappings.there)
    one, end, last = next(there), 0, 0
    for mapping in mappings:
        while one.end <= mapping.start:
            one, end = next(there), one.end
        # What is mapped and not chosen is no hole; nor is the rest of a mapping.
        yield one.start == mapping.start and last == end > one.start - _NARROW
        last = mapping.end


def reaches_out(regions: Columns, mappings: Sequence[Mapping]) -> bool:
    """Whether something of ascending regions lies in none of the mappings."""
    starts, ends = bounds_of(mappings)
    at = row = index = 0
    while row < len(regions.starts):
        at = max(at, regions.starts[row])
        index = bisect_right(ends, at, index)  # the first that ends behind it
        if index == len(ends) or starts[index] > at:
            return True
        at = ends[index]
        row = bisect_right(regions.ends, at, row)
    return False


def reservations_beside(
    indices: Iterable[int], mappings: Sequence[Mapping]
) -> list[Mapping]:
    """Return the private reservations that touch one of some mappings; ascending."""
    found: dict[int, Mapping] = {}
    for index in indices:
        one = mappings[index]
        for other in (
            *mappings[max(0, index - 1) : index],
            *mappings[index + 1 : index + 2],
        ):
            touches = other.end == one.start or other.start == one.end
            if touches and other.reserved and other.kind is Kind.ANON:
                found[other.start] = other
    return [found[start] for start in sorted(found)]


class Covers:
    """Answers whether one of many ranges covers another one; they may overlap."""

    def __init__(self, items: Iterable[Untracked]) -> None:
        """Sort the ranges once."""
        spans = sorted((item.start, item.end) for item in items)
        self._starts = [start for start, _ in spans]
        # Of those that begin no later, the one that ends last covers most.
        self._ends = list(accumulate((end for _, end in spans), max))

    def __contains__(self, mapping: Mapping | Untracked) -> bool:
        index = bisect_right(self._starts, mapping.start) - 1
        return index >= 0 and mapping.end <= self._ends[index]
