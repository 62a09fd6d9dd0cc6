"""Cuts a scan into disjoint parts, for several threads of the shim."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import repeat
from typing import TYPE_CHECKING

from pagescan.model.memory import HUGE_PAGE
from pagescan.model.ranges import length_of
from pagescan.native import Columns, Spans

if TYPE_CHECKING:
    from pagescan.model.mapping_set import KindKey, MappingSet

# Below this many bytes one thread is enough.
_WORTH_IT = 1 << 30
# Above this many ranges per part, the ranges are small: each part gets equally many.
_MANY = 64


def split(spans: Spans, parts: int, align: int) -> list[Spans]:
    """Cut spans into about equal parts, ascending, at multiples of `align` bytes."""
    rows = len(spans.starts)
    if spans.ends[-1] - spans.starts[0] < _WORTH_IT:
        return [spans]
    if rows > _MANY * parts:
        step = -(-rows // parts)
        return [
            Spans(*(column[at : at + step] for column in spans))
            for at in range(0, rows, step)
        ]
    total = length_of(spans)
    if total < _WORTH_IT:
        return [spans]
    share = total // parts + align
    cut: list[Spans] = []
    room = 0
    for start, end, rule in zip(*spans, strict=True):
        at = start
        while at < end:
            if room <= 0:
                cut.append(Spans(array("Q"), array("Q"), array("Q")))
                room = share
            stop = at + room
            stop = end if stop >= end else max(stop - stop % align, at + 1)
            stop = min(end, stop + -stop % align)
            for column, value in zip(cut[-1], (at, stop, rule), strict=True):
                column.append(value)
            room -= stop - at
            at = stop
    return cut


# A hole of up to this many bytes is scanned with its neighbours: that saves a call.
_NARROW = HUGE_PAGE


def spans_of(
    mappings: MappingSet,
    rules: dict[KindKey, int],
    *,
    over_holes: bool = False,
) -> Spans:
    """Return mappings as ranges to scan; neighbours with one rule become one range.

    Args:
        mappings: Ascending.
        rules: The index of a rule by kind and huge page size; mappings of other kinds
            are left out.
        over_holes: Also join across holes of up to 2 MiB, where all mappings are known.
            A mapping may appear in such a hole before the scan, so the caller must drop
            results outside the set. Only for scans of registered memory.

    Returns:
        Ranges; the caller must not change them.
    """
    key = (over_holes, *rules.items())
    if key not in mappings.spans:
        known = over_holes and mappings.all_mappings
        narrow = _narrow(mappings) if known else repeat(False, len(mappings))
        mappings.spans[key] = _spans(mappings, rules, narrow)
    return mappings.spans[key]


def _spans(
    mappings: MappingSet, rules: dict[KindKey, int], narrow: Iterable[bool]
) -> Spans:
    starts, ends, which = Spans(array("Q"), array("Q"), array("Q"))
    end, last = -1, -1
    for mapping, key, near in zip(mappings, mappings.keys, narrow, strict=True):
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


def _narrow(mappings: MappingSet) -> Iterable[bool]:
    """Yield for each mapping whether a narrow hole alone separates it from the last."""
    others = iter(mappings.all_mappings)
    one, end, last = next(others), 0, 0
    for mapping in mappings:
        while one.end <= mapping.start:
            one, end = next(others), one.end
        # Other mappings are no holes, nor are unselected parts of a mapping.
        yield one.start == mapping.start and last == end > one.start - _NARROW
        last = mapping.end


def as_spans(columns: Columns) -> Spans:
    """Read the categories of regions as the index of the rule to scan them by next."""
    return Spans(*columns)
