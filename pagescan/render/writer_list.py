"""Writes the results of `who`: a JSON document, CSV, or one row per writer."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import escape, format_address, format_share, format_size
from pagescan.render.cells import elide_middle, fit_path, pad, width_of
from pagescan.render.document import (
    cost_keys,
    document,
    session_keys,
    share_key,
    target_keys,
    untracked_keys,
    write_document,
)
from pagescan.render.few_rows import write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagescan.model.memory import Untracked
    from pagescan.model.results import Cost, Output, SessionFacts
    from pagescan.model.writers import Writer, WriterReport

_HEADERS = ("pages", "bytes", "share", "function", "module", "threads", "mapping")
_NUMBERS = 3
"""The first columns are numbers."""
_LEAST_WIDTH = 8
_WORTH = {"function": 2.5, "mapping": 0.8}
"""In a short line, a cell of this column is worth this many cells of another."""
_ROWS_BESIDE = 4
"""Lines of a terminal that are left for the header, the prompt and a message."""


def write_writers(
    report: WriterReport,
    output: Output,
    *,
    session: SessionFacts,
    untracked: tuple[Untracked, ...],
    cost: Cost,
    estimated_ns: int,
) -> None:
    """Write a report to stdout.

    Args:
        report: The writers.
        output: The format.
        session: The tracking of the target.
        untracked: Parts of the selection that were not tracked.
        cost: The cost of all looks.
        estimated_ns: The estimated cost of one first write to the target.
    """
    if output.is_json:
        costs = cost_keys(cost) | {
            "samples": report.samples,
            "estimated_ns_per_write": estimated_ns,
            "ring_bytes": report.ring_bytes,
        }
        write_document(
            document(
                "who",
                time=report.time,
                target=target_keys(report.target),
                session=session_keys(session),
                by=report.by,
                ticks=report.ticks,
                period=report.period,
                user_only=report.user_only,
                summary=_summary_keys(report),
                writers=[_writer_keys(writer) for writer in report.writers],
                regions=_region_keys(report) if report.by == "page" else None,
                untracked=[untracked_keys(item) for item in untracked],
                cost=costs,
            )
        )
    elif report.by == "page":
        write_rows(("start", "end", *_HEADERS), _page_rows(report, output), output)
    elif output.format == "table":
        _write_table(report, output)
    else:
        write_rows(_HEADERS, _rows(report, output), output)


def _summary_keys(report: WriterReport) -> dict[str, Any]:
    return {
        "written": report.written,
        "attributed": report.attributed,
        "kernel_or_other": report.kernel_or_other,
        "lost": report.lost,
        "ambiguous": report.ambiguous,
    }


def _writer_keys(writer: Writer) -> dict[str, Any]:
    return {
        "pages": writer.pages,
        "bytes": writer.bytes,
        "share": share_key(writer.share),
        "function": writer.function,
        "function_count": writer.function_count,
        "module": writer.module,
        "offset": writer.offset,
        "file": writer.file,
        "line": writer.line,
        "threads": [thread._asdict() for thread in writer.threads],
        "thread_count": writer.thread_count,
        "mapping": writer.mapping,
        "mapping_count": writer.mapping_count,
        "callers": list(writer.callers),
    }


def _region_keys(report: WriterReport) -> list[dict[str, Any]]:
    rows = []
    for run in report.runs:
        writer, thread = run.writer, None
        if writer is not None:
            thread = writer.threads[0]
        rows.append(
            {
                "start": format_address(run.start),
                "end": format_address(run.end),
                "pages": (run.end - run.start) // PAGE_SIZE,
                "bytes": run.end - run.start,
                "mapping": run.mapping,
                "writer": None
                if writer is None or thread is None
                else {
                    "function": writer.function,
                    "module": writer.module,
                    "offset": writer.offset,
                    "file": writer.file,
                    "line": writer.line,
                    "tid": thread.tid,
                    "thread": thread.name,
                },
            }
        )
    return rows


def _function_text(writer: Writer, by: str) -> str:
    """Return the name of a function; of a page's, else the offset; with a line."""
    name = writer.function or "(no name)"
    if writer.function is None and by == "page":
        name = f"+{writer.offset:#x}"
    if by == "line" and writer.file:
        return f"{name} {writer.file}:{writer.line}"
    return " < ".join((_and_more(name, writer.function_count), *writer.callers))


def _cells(writer: Writer, report: WriterReport, output: Output) -> tuple[str, ...]:
    first = writer.threads[0]
    thread = f"{first.name}/{first.tid}" if report.by == "thread" else first.name
    return (
        str(writer.pages),
        _size(writer.bytes, output),
        _share(writer.share, output),
        _function_text(writer, report.by),
        writer.module or "",
        _and_more(thread, writer.thread_count),
        _and_more(writer.mapping or "", writer.mapping_count),
    )


def _and_more(text: str, count: int) -> str:
    return f"{text} +{count - 1}" if count > 1 else text


def _size(number: int, output: Output) -> str:
    exact = output.exact or output.format == "csv"
    return str(number) if exact else format_size(number)


def _share(share: float, output: Output) -> str:
    return f"{share:.5f}" if output.format == "csv" else format_share(share)


def _rows(report: WriterReport, output: Output) -> list[tuple[str, ...]]:
    rows = [_cells(writer, report, output) for writer in report.writers]
    for name, pages in report.fixed_rows:
        size = _size(pages * PAGE_SIZE, output)
        share = _share(pages / report.written, output)
        rows.append((str(pages), size, share, name, "", "", ""))
    return rows


def _page_rows(report: WriterReport, output: Output) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in report.runs:
        size = run.end - run.start
        share = _share(size / PAGE_SIZE / max(1, report.written), output)
        numbers = (str(size // PAGE_SIZE), _size(size, output), share)
        names: tuple[str, ...] = ("(kernel or other process, or lost)", "", "")
        if run.writer is not None:
            names = _cells(run.writer, report, output)[3:6]
        ends = (format_address(run.start), format_address(run.end))
        rows.append((*ends, *numbers, *names, run.mapping or ""))
    return rows


def _write_table(report: WriterReport, output: Output) -> None:
    """Write as many rows as the terminal has; the last one sums up the others."""
    size = shutil.get_terminal_size()
    fixed = len(report.fixed_rows)
    rows = _rows(report, output)
    room = max(5, size.lines - _ROWS_BESIDE)
    if len(rows) > room:
        kept = room - fixed - 1
        hidden = report.writers[kept:]
        pages = sum(writer.pages for writer in hidden)
        share = sum(writer.share for writer in hidden)
        rest = (
            str(pages),
            _size(pages * PAGE_SIZE, output),
            _share(share, output),
            f"({len(hidden)} more)",
            "",
            "",
            "",
        )
        rows = [*rows[:kept], rest, *rows[len(rows) - fixed :]]
    shown = [
        [
            *map(escape, row[:-3]),
            _last_part(row[-3]),
            escape(row[-2]),
            _last_part(row[-1]),
        ]
        for row in rows
    ]
    _write_lines(shown, size.columns, header=output.header)


def _last_part(name: str) -> str:
    """Return the last part of a path."""
    return escape(name.rpartition("/")[2] if name.startswith("/") else name)


def _write_lines(rows: list[list[str]], columns: int, *, header: bool) -> None:
    widths = [max(map(width_of, cells)) for cells in zip(_HEADERS, *rows, strict=True)]
    widths = _fitted(widths, columns)
    lines: list[Sequence[str]] = [_HEADERS, *rows] if header else [*rows]
    for line in lines:
        cells = []
        for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
            fit = elide_middle if _HEADERS[at] == "function" else fit_path
            cells.append(pad(fit(cell, width), width, right=at < _NUMBERS))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.flush()


def _fitted(widths: list[int], columns: int) -> list[int]:
    """Return widths that fit into a line: the functions give way last."""
    widths = list(widths)
    room = columns - 2 * (len(widths) - 1)
    texts = range(_NUMBERS, len(widths))
    while sum(widths) > room:
        widest = max(texts, key=lambda at: widths[at] / _WORTH.get(_HEADERS[at], 1))
        if widths[widest] <= _LEAST_WIDTH:
            break
        widths[widest] -= 1
    return widths
