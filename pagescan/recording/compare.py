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
from pagescan.recording.tables import MappingRow, ViewTable, WriterRow, WritersView

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.views import RecordingSummary


class ComparisonRow(NamedTuple):
    """A mapping of both recordings, or of one: the figures of the other are None.

    Attributes:
        process: The name of its process; None: each recording has one process.
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
        old_start: Its address in the old recording: mappings may share a name.
        new_start: The same in the new one.
    """

    process: str | None
    mapping: str
    old_rate: float | None
    new_rate: float | None
    old_bytes: int | None
    new_bytes: int | None
    old_set: int | None
    new_set: int | None
    similarity: float | None
    old_start: int | None
    new_start: int | None


class ProgramRow(NamedTuple):
    """The processes of one name, of both recordings or of one.

    Attributes:
        process: The name.
        old_rate: Bytes per second that they wrote, in the old recording.
        new_rate: The same in the new one.
        old_share: The part of all written pages, in the old recording.
        new_share: The same in the new one.
    """

    process: str
    old_rate: float | None
    new_rate: float | None
    old_share: float | None
    new_share: float | None


class FunctionRow(NamedTuple):
    """A function of both recordings, or of one: the figures of the other are None.

    Attributes:
        function: The function; None: all code of the module that has no name.
        module: Its file or mapping; None: nothing was mapped there.
        old_rate: Bytes per second that it wrote first, in the old recording.
        new_rate: The same in the new one.
        old_share: The part of all written pages, in the old recording.
        new_share: The same in the new one.
    """

    function: str | None
    module: str | None
    old_rate: float | None
    new_rate: float | None
    old_share: float | None
    new_share: float | None


class Comparison(NamedTuple):
    """Two recordings side by side.

    Attributes:
        old: The totals of the old one.
        new: The totals of the new one.
        old_set: Different bytes that the old one has written.
        new_set: The same of the new one.
        mappings: The mappings, those with the greatest change of the rate first.
        functions: The functions, in the same order; None: one of the recordings does
            not say who wrote.
        processes: The processes by name; None: each recording has one.
    """

    old: RecordingSummary
    new: RecordingSummary
    old_set: int
    new_set: int
    mappings: ViewTable[ComparisonRow]
    functions: ViewTable[FunctionRow] | None
    processes: ViewTable[ProgramRow] | None


class _Side(NamedTuple):
    """A mapping of one recording: its writes, and its written pages from its start."""

    row: MappingRow
    pages: Columns


def compare(old: Excerpt, new: Excerpt) -> Comparison:
    """Return two recordings side by side.

    Mappings of one name are paired in the order of their addresses; in recordings of
    several processes, within processes of one name.

    Raises:
        PagescanError: One of them has no look.
    """
    before, after = views.summary(old), views.summary(new)
    several = max(len(before.processes), len(after.processes)) > 1
    one = _sides(old, before, several=several)
    other = _sides(new, after, several=several)
    rows: ViewTable[ComparisonRow] = ViewTable()
    for name in {**one, **other}:
        pairs = zip_longest(one.get(name, ()), other.get(name, ()))
        rows += [_row(name, pair, (before.seconds, after.seconds)) for pair in pairs]
    rows.sort(key=lambda row: -abs((row.new_rate or 0) - (row.old_rate or 0)))
    functions = _functions(before, after)
    programs = _programs(before, after) if several else None
    sets = _set_of(one), _set_of(other)
    return Comparison(before, after, *sets, rows, functions, programs)


def _programs(old: RecordingSummary, new: RecordingSummary) -> ViewTable[ProgramRow]:
    """Return the processes of two recordings, paired by their names."""
    one, other = _by_program(old), _by_program(new)
    rows: ViewTable[ProgramRow] = ViewTable()
    for name in {**one, **other}:
        before, after = one.get(name), other.get(name)
        rows.append(
            ProgramRow(
                name,
                before[0] / old.seconds if before and old.seconds else None,
                after[0] / new.seconds if after and new.seconds else None,
                before[1] if before else None,
                after[1] if after else None,
            )
        )
    rows.sort(key=lambda row: -abs((row.new_rate or 0) - (row.old_rate or 0)))
    return rows


def _by_program(summary: RecordingSummary) -> dict[str, tuple[int, float]]:
    """Return the written bytes and their share, by the name of the process."""
    sums: dict[str, tuple[int, float]] = {}
    for row in summary.processes:
        if row.why is None:
            written, share = sums.get(row.name, (0, 0.0))
            sums[row.name] = written + row.written, share + row.share
    return sums


def _functions(
    old: RecordingSummary, new: RecordingSummary
) -> ViewTable[FunctionRow] | None:
    """Return the functions of two recordings, paired by their names and modules.

    Modules are paired by the last part of their paths: a release may have its own
    directory.
    """
    if old.writers is None or new.writers is None:
        return None
    one, other = _by_code(old.writers), _by_code(new.writers)
    rows: ViewTable[FunctionRow] = ViewTable()
    for code in {**one, **other}:
        before, after = one.get(code), other.get(code)
        newest = after or before
        rows.append(
            FunctionRow(
                code[0],
                newest.module if newest else None,
                before.written / old.seconds if before and old.seconds else None,
                after.written / new.seconds if after and new.seconds else None,
                before.share if before else None,
                after.share if after else None,
            )
        )
    rows.sort(key=lambda row: -abs((row.new_rate or 0) - (row.old_rate or 0)))
    return rows


def _by_code(view: WritersView) -> dict[tuple[str | None, str], WriterRow]:
    """Return the functions by name and module; equal names are added up."""
    rows: dict[tuple[str | None, str], WriterRow] = {}
    for row in view.functions:
        code = row.function, (row.module or "").rpartition("/")[2]
        if code in rows:
            known = rows[code]
            row = known._replace(  # noqa: PLW2901 - the sum takes its place
                written=known.written + row.written, share=known.share + row.share
            )
        rows[code] = row
    return rows


_Name = tuple[str | None, str]


def _sides(
    excerpt: Excerpt, summary: RecordingSummary, *, several: bool
) -> dict[_Name, list[_Side]]:
    """Return the written mappings by process and name, ascending by address.

    Args:
        excerpt: The recording.
        summary: Its totals.
        several: Whether mappings are paired within processes of one name.
    """
    pages = {
        (band.process, band.start, band.mapping): part for band, part in _pages(excerpt)
    }
    programs = [one.target.name for one in excerpt.recording.processes]
    sides: dict[_Name, list[_Side]] = {}
    for row in sorted(summary.mappings, key=lambda row: (row.process, row.start)):
        key = (row.process, row.start, row.mapping)
        program = programs[row.process] if several else None
        name = program, row.label or row.mapping
        sides.setdefault(name, []).append(_Side(row, pages[key]))
    return sides


def _pages(excerpt: Excerpt) -> list[tuple[Band, Columns]]:
    """Return the written pages of each band, as regions from its start."""
    bands = Bands(excerpt)
    result: list[tuple[Band, Columns]] = []
    pages = {
        process: native.WrittenPages(excerpt.page_size(looks[0]))
        for process, looks in excerpt.by_process().items()
    }
    for process, unpacked in excerpt.unpacked(excerpt.looks):
        pages[process].add(unpacked)
    for process, found in pages.items():
        written = found.regions()
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
    name: _Name, pair: Sequence[_Side | None], seconds: tuple[float, float]
) -> ComparisonRow:
    old, new = pair
    return ComparisonRow(
        *name,
        old.row.written / seconds[0] if old and seconds[0] else None,
        new.row.written / seconds[1] if new and seconds[1] else None,
        old.row.bytes if old else None,
        new.row.bytes if new else None,
        length_of(old.pages) if old else None,
        length_of(new.pages) if new else None,
        similarity(old.pages, new.pages) if old and new else None,
        old.row.start if old else None,
        new.row.start if new else None,
    )


def similarity(one: Columns, other: Columns) -> float:
    """Return the pages in both lists, divided by those in at least one (Jaccard)."""
    either = length_of(union(one, other))
    both = length_of(one) + length_of(other) - either
    return both / either if either else 1.0


def _set_of(sides: dict[_Name, list[_Side]]) -> int:
    return sum(length_of(side.pages) for mine in sides.values() for side in mine)
