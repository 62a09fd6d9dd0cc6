"""Cuts a scan into disjoint parts, for several threads of the shim."""

from array import array

from pagescan.chosen import length_of
from pagescan.native import Spans

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
