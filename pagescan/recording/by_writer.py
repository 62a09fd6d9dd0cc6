"""The view of the writers: which functions wrote most. Pure functions."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.errors import PagescanError
from pagescan.recording.records import RecordedWriters
from pagescan.recording.tables import (
    ViewTable,
    WriterProcess,
    WriterRow,
    WritersView,
)

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook
    from pagescan.recording.store import Recording

_Code = tuple[str | None, str | None]
LOST_NAME: _Code = ("(name lost)", None)
"""Stands for a function whose row is damaged."""


@dataclass(slots=True)
class _Sum:
    """The pages of one function."""

    pages: int = 0
    bytes: int = 0
    looks: int = 0
    peak: float = 0.0
    threads: Counter[int] = field(default_factory=Counter)
    mappings: Counter[int] = field(default_factory=Counter)
    processes: Counter[int] = field(default_factory=Counter)


def writers(excerpt: Excerpt) -> WritersView:
    """Return the functions whose first writes reached the most pages.

    A page belongs to the code that wrote it first in a look; it counts once per look.

    Raises:
        PagescanError: The recording has no writers.
    """
    if not excerpt.recording.has_writers:
        raise PagescanError(
            "the recording does not say who wrote", hint="record --who keeps it"
        )
    return excerpt.once("writers", lambda: _read(excerpt))


def _read(excerpt: Excerpt) -> WritersView:
    sums: dict[_Code, _Sum] = {}
    totals = Counter[str]()
    for look in excerpt.looks:
        found = writers_of(excerpt, look)
        if found is None:
            continue
        pages = sum(excerpt.counts(look).pages)
        missing = max(0, pages - found.attributed)
        lost = min(found.lost, missing)
        totals.update(
            looks=1,
            pages=pages,
            attributed=found.attributed,
            other=missing - lost,
            lost=lost,
            ambiguous=found.ambiguous,
            samples=found.samples,
        )
        _add(excerpt, look, found, sums)
    rows = [_row(excerpt.recording, code, one, totals) for code, one in sums.items()]
    rows.sort(key=lambda row: -row.pages)
    whole = excerpt.selection.everything
    return WritersView(
        totals["looks"],
        totals["pages"],
        totals["attributed"],
        totals["other"],
        totals["lost"],
        totals["ambiguous"] if whole else None,
        totals["samples"] if whole else None,
        excerpt.recording.user_only,
        tuple(without_writers(excerpt)),
        ViewTable(rows),
    )


def without_writers(excerpt: Excerpt) -> Counter[str]:
    """Return how many looks of which files were recorded without --who."""
    files = map(excerpt.recording.file_without_writers, excerpt.looks)
    return Counter(path for path in files if path is not None)


def _add(
    excerpt: Excerpt,
    look: RecordedLook,
    found: RecordedWriters,
    sums: dict[_Code, _Sum],
) -> None:
    """Add the writers of a look to the sums."""
    size, seconds = excerpt.page_size(look), look.seconds or 1.0
    here: Counter[_Code] = Counter()
    for function, thread, mapping, pages in found.counts:
        code = code_of(excerpt.recording, function)
        one = sums.setdefault(code, _Sum())
        one.threads[thread] += pages
        one.mappings[mapping] += pages
        one.processes[look.process] += pages
        here[code] += pages
    for code, pages in here.items():
        one = sums[code]
        one.pages += pages
        one.bytes += pages * size
        one.looks += 1
        one.peak = max(one.peak, pages * size / seconds)


def _row(
    recording: Recording, code: _Code, one: _Sum, totals: Counter[str]
) -> WriterRow:
    thread = one.threads.most_common(1)[0][0]
    names: Counter[str | None] = Counter()
    for mapping, pages in one.mappings.items():
        names[name_of(recording, mapping)] += pages
    processes = _processes(recording, one)
    return WriterRow(
        *code,
        one.pages,
        one.bytes,
        one.pages / totals["pages"] if totals["pages"] else 0.0,
        one.looks,
        one.peak,
        recording.threads[thread].name if thread >= 0 else "?",
        len({_tid(recording, number) for number in one.threads}),
        names.most_common(1)[0][0],
        len(names),
        len(processes),
        processes[0].pid if len(processes) == 1 else None,
        processes[0].process,
        processes,
    )


def _processes(recording: Recording, one: _Sum) -> ViewTable[WriterProcess]:
    """Return the processes of a function; one that is in several files is one row."""
    rows: dict[tuple[int, int], WriterProcess] = {}
    for process, pages in sorted(one.processes.items()):
        target = recording.processes[process].target
        size = pages * target.page_size
        before = rows.get((target.pid, target.start_time), _NOTHING)
        rows[target.pid, target.start_time] = WriterProcess(
            target.pid, target.name, before.pages + pages, before.written + size
        )
    return ViewTable(sorted(rows.values(), key=lambda row: -row.pages))


_NOTHING = WriterProcess(0, "", 0, 0)


def _tid(recording: Recording, thread: int) -> tuple[int, int]:
    """Return the process and the number of a thread, which may change its name."""
    if thread < 0:
        return -1, -1
    row = recording.threads[thread]
    return row.process, row.tid


def code_of(recording: Recording, function: int) -> _Code:
    """Return the function and the module of a row; code without a name is one row."""
    if function < 0:
        return LOST_NAME
    row = recording.functions[function]
    return row.function, row.module


def name_of(recording: Recording, mapping: int) -> str | None:
    """Return the label of a mapping, or its name; None: it is not known."""
    if mapping < 0:
        return None
    row = recording.mappings[mapping]
    return row.label or row.mapping.label


def writers_of(excerpt: Excerpt, look: RecordedLook) -> RecordedWriters | None:
    """Return the writers of a look, in the selected memory; None: not recorded."""
    found = excerpt.recording.writers_of(look)
    if found is None or excerpt.selection.everything:
        return found
    runs = excerpt.selected(look, excerpt.recording.writer_runs(look))
    size, count = excerpt.page_size(look), len(found.counts)
    owners = array("q", runs.categories)
    pages = native.tally(runs, owners, size, count + 1)[0]
    counts = [
        one._replace(pages=number)
        for one, number in zip(found.counts, pages[1:], strict=True)
        if number
    ]
    return RecordedWriters(sum(pages[1:]), 0, found.lost, found.samples, tuple(counts))
