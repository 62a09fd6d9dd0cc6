"""Compares two recordings: rates, working sets, mappings side by side. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.ranges import length_of, union
from pagescan.native import Columns
from pagescan.recording import views
from pagescan.recording.bands import Band, Bands
from pagescan.recording.by_page import ALWAYS_PERCENT
from pagescan.recording.tables import MappingRow, ViewTable

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.views import RecordingSummary


class ComparisonRow(NamedTuple):
    """A mapping of both recordings, or of one: the figures of the other are None.

    Attributes:
        mapping: Its label, or else its name.
        old_rate: Written bytes per second, in the old recording.
        new_rate: The same in the new one.
        old_bytes: Its size at the end of the old recording.
        new_bytes: The same in the new one.
        old_set: Different bytes written, in the old recording.
        new_set: The same in the new one.
        similarity: The pages written in both recordings, divided by those written in
            at least one; 0 to 1. Pages are paired by their distance from the
            start of the mapping.
    """

    mapping: str
    old_rate: float | None
    new_rate: float | None
    old_bytes: int | None
    new_bytes: int | None
    old_set: int | None
    new_set: int | None
    similarity: float | None


class Comparison(NamedTuple):
    """Two recordings side by side.

    Attributes:
        old: The totals of the old one.
        new: The totals of the new one.
        old_set: Different bytes that the old one has written.
        new_set: The same of the new one.
        mappings: The mappings, those with the greatest change of the rate first.
    """

    old: RecordingSummary
    new: RecordingSummary
    old_set: int
    new_set: int
    mappings: ViewTable[ComparisonRow]


class _Side(NamedTuple):
    """A mapping of one recording: its writes, and its written pages from its start."""

    row: MappingRow
    pages: Columns


def compare(old: Excerpt, new: Excerpt) -> Comparison:
    """Return two recordings side by side.

    Mappings of one name are paired in the order of their addresses.

    Raises:
        PagescanError: One of them has no look.
    """
    before, after = views.summary(old), views.summary(new)
    one, other = _sides(old, before), _sides(new, after)
    rows: ViewTable[ComparisonRow] = ViewTable()
    for name in {**one, **other}:
        pairs = zip_longest(one.get(name, ()), other.get(name, ()))
        rows += [_row(name, pair, (before.seconds, after.seconds)) for pair in pairs]
    rows.sort(key=lambda row: -abs((row.new_rate or 0) - (row.old_rate or 0)))
    return Comparison(before, after, _set_of(one), _set_of(other), rows)


def _sides(excerpt: Excerpt, summary: RecordingSummary) -> dict[str, list[_Side]]:
    """Return the written mappings by name, ascending by address."""
    pages = {
        (band.process, band.start, band.mapping): part for band, part in _pages(excerpt)
    }
    sides: dict[str, list[_Side]] = {}
    for row in sorted(summary.mappings, key=lambda row: (row.process, row.start)):
        key = (row.process, row.start, row.mapping)
        name = row.label or row.mapping
        sides.setdefault(name, []).append(_Side(row, pages[key]))
    return sides


def _pages(excerpt: Excerpt) -> list[tuple[Band, Columns]]:
    """Return the written pages of each band, as regions from its start."""
    bands = Bands(excerpt)
    result: list[tuple[Band, Columns]] = []
    for process, counts in excerpt.page_counts.items():
        written = union(counts.classes(ALWAYS_PERCENT), Columns.empty())
        result += [
            (band, _from_start(written, band))
            for band in bands
            if band.process == process
        ]
    return result


def _from_start(written: Columns, band: Band) -> Columns:
    low, high = array("Q", [band.start]), array("Q", [band.end])
    part = native.inside(written, low, high)
    start = band.start
    return Columns(
        array("Q", [address - start for address in part.starts]),
        array("Q", [address - start for address in part.ends]),
        part.categories,
    )


def _row(
    name: str, pair: Sequence[_Side | None], seconds: tuple[float, float]
) -> ComparisonRow:
    old, new = pair
    return ComparisonRow(
        name,
        old.row.written / seconds[0] if old and seconds[0] else None,
        new.row.written / seconds[1] if new and seconds[1] else None,
        old.row.bytes if old else None,
        new.row.bytes if new else None,
        length_of(old.pages) if old else None,
        length_of(new.pages) if new else None,
        similarity(old.pages, new.pages) if old and new else None,
    )


def similarity(one: Columns, other: Columns) -> float:
    """Return the pages in both lists, divided by those in at least one (Jaccard)."""
    either = length_of(union(one, other))
    both = length_of(one) + length_of(other) - either
    return both / either if either else 1.0


def _set_of(sides: dict[str, list[_Side]]) -> int:
    return sum(length_of(side.pages) for mine in sides.values() for side in mine)
