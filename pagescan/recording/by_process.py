"""The view of the processes of a recording. Pure functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pagescan.recording.records import BILLION, nanoseconds
from pagescan.recording.tables import ProcessRow, ViewTable

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook


def processes(excerpt: Excerpt) -> ViewTable[ProcessRow]:
    """Return the processes: those that wrote most first, untracked ones last."""
    by_process = excerpt.by_process()
    pages = {
        process: sum(map(excerpt.pages, looks)) for process, looks in by_process.items()
    }
    total = sum(pages.values()) or 1
    rows = [
        _row(excerpt, process, looks, pages[process], total)
        for process, looks in by_process.items()
    ]
    rows.sort(key=lambda row: -row.pages)
    return ViewTable([*rows, *_untracked(excerpt)])


def _row(
    excerpt: Excerpt, process: int, looks: list[RecordedLook], pages: int, total: int
) -> ProcessRow:
    one = excerpt.recording.processes[process]
    size = one.target.page_size
    known = [look.resident for look in looks if look.resident is not None]
    counts = [excerpt.pages(look) for look in looks]
    begun = looks[0].time_ns - looks[0].interval_ns
    return ProcessRow(
        process,
        one.target.pid,
        one.target.name,
        pages,
        pages * size,
        pages / total,
        sum(map(bool, counts)),
        max(
            count * size / (look.seconds or 1.0)
            for count, look in zip(counts, looks, strict=True)
        ),
        known[-1] if known else None,
        known[-1] - known[0] if known else None,
        begun,
        (looks[-1].time_ns - begun) / BILLION,
        one.ending,
        None,
    )


def _untracked(excerpt: Excerpt) -> list[ProcessRow]:
    """Return the processes that were not tracked as a whole."""
    recording = excerpt.recording
    rows = []
    for row in recording.untracked:
        one = recording.processes[row.process]
        if row.item.start == row.item.end:
            rows.append(
                ProcessRow(
                    row.process,
                    one.target.pid,
                    one.target.name,
                    *(0, 0, 0.0, 0, 0.0, None, None),
                    nanoseconds(one.armed_at),
                    0.0,
                    one.ending,
                    row.item.why,
                )
            )
    return rows
