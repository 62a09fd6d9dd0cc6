"""Writes the results of `who`: a JSON document, CSV, or one row per writer."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import escape, format_address, format_share, format_size
from pagescan.render.cells import elide_middle, fit_path, pad, width_of
from pagescan.render.document import (
    any_untracked_keys,
    cost_keys,
    document,
    group_keys,
    process_keys,
    session_keys,
    share_key,
    target_keys,
    write_document,
)
from pagescan.render.few_rows import write_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagescan.model.groups import MemberUntracked
    from pagescan.model.memory import Untracked
    from pagescan.model.results import Cost, Output, SessionFacts
    from pagescan.model.writers import Writer, WriterReport, WrittenRun

_HEADERS = ("pages", "bytes", "share", "function", "module", "threads", "mapping")
_OF_GROUP = ("pages", "bytes", "share", "process", *_HEADERS[3:])
"""The columns of a table for a group."""
_NUMBERS = 3
"""The first columns are numbers."""
_LEAST_WIDTH = 8
_WORTH = {"function": 2.5, "process": 2.2, "mapping": 1.2}
"""In a short line, a cell of this column is worth this many cells of another."""
_SUBJECT_WORTH = 4.0
"""The same for the column that the rows stand for."""
_NO_WRITER = "(kernel or other process, or lost)"
_ROWS_BESIDE = 8
"""Lines of a terminal that are left for the header, the prompt and the messages below,
so that the header stays on the screen."""


def write_writers(
    report: WriterReport,
    output: Output,
    *,
    session: SessionFacts,
    untracked: Sequence[Untracked | MemberUntracked],
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
        keys = _document(report, session, untracked)
        keys["cost"] = cost_keys(cost) | {
            "samples": report.samples,
            "estimated_ns_per_write": estimated_ns,
            "ring_bytes": report.ring_bytes,
        }
        write_document(keys)
    elif report.by == "page":
        headers = ("start", "end", *_headers(report, output))
        write_rows(headers, _page_rows(report, output), output)
    elif output.format == "table":
        _write_table(report, output)
    else:
        write_rows(_headers(report, output), _rows(report, output), output)


def _document(
    report: WriterReport,
    session: SessionFacts,
    untracked: Sequence[Untracked | MemberUntracked],
) -> dict[str, Any]:
    """Return the JSON document without its cost."""
    return document(
        "who",
        time=report.time,
        target=target_keys(report.target),
        group=group_keys(report.group),
        session=session_keys(session),
        **_process_keys(report),
        by=report.by,
        ticks=report.ticks,
        period=report.period,
        user_only=report.user_only,
        summary=_summary_keys(report),
        writers=[_writer_keys(writer) for writer in report.writers],
        regions=_region_keys(report) if report.by == "page" else None,
        untracked=[any_untracked_keys(item) for item in untracked],
    )


def _headers(report: WriterReport, output: Output) -> tuple[str, ...]:
    """Return the names of the columns; in a table a label stands for a name."""
    if output.format != "table":
        of_group = ("pid", "process") if report.group is not None else ()
        numbers, texts = _HEADERS[:_NUMBERS], _HEADERS[_NUMBERS:-1]
        return (*numbers, *of_group, *texts, "label", "mapping")
    if report.group is None:
        return _HEADERS
    if report.by == "thread":
        return _OF_GROUP
    # The process says enough, and the line is short.
    return tuple(header for header in _OF_GROUP if header != "threads")


def _process_keys(report: WriterReport) -> dict[str, Any]:
    """Return the keys that only a group has."""
    if report.group is None:
        return {}
    return {
        "processes": [process_keys(process) for process in report.processes],
        "gone": report.gone,
        "short_lived": report.short_lived,
    }


def _summary_keys(report: WriterReport) -> dict[str, Any]:
    return {
        "written": report.written,
        "attributed": report.attributed,
        "kernel_or_other": report.kernel_or_other,
        "lost": report.lost,
        "ambiguous": report.ambiguous,
        "python": None if report.python is None else report.python._asdict(),
    }


def _writer_keys(writer: Writer) -> dict[str, Any]:
    return {
        "pid": writer.pid,
        "process": writer.process,
        "process_count": writer.process_count,
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
        "label": writer.label,
        "mapping_count": writer.mapping_count,
        "callers": list(writer.callers),
        "python": writer.python,
    }


def _region_keys(report: WriterReport) -> list[dict[str, Any]]:
    rows = []
    for run in report.runs:
        writer, thread = run.writer, None
        if writer is not None:
            thread = writer.threads[0]
        rows.append(
            {
                "pid": run.pid,
                "start": format_address(run.start),
                "end": format_address(run.end),
                "pages": (run.end - run.start) // PAGE_SIZE,
                "bytes": run.end - run.start,
                "categories": None,
                "mapping": run.mapping,
                "label": run.label,
                "perms": None,
                "new": None,
                "writer": None
                if writer is None or thread is None
                else {
                    "function": writer.function,
                    "module": writer.module,
                    "offset": writer.offset,
                    "file": writer.file,
                    "line": writer.line,
                    "python": writer.python,
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


def _module_text(writer: Writer) -> str:
    """Return the module; of a function of Python with the line where it begins."""
    if writer.python and writer.line is not None:
        return f"{writer.module}:{writer.line}"
    return writer.module or ""


def _cells(writer: Writer, report: WriterReport, output: Output) -> tuple[str, ...]:
    first = writer.threads[0]
    headers = _headers(report, output)
    thread = f"{first.name}/{first.tid}" if report.by == "thread" else first.name
    return (
        str(writer.pages),
        _size(writer.bytes, output),
        _share(writer.share, output),
        *_process_cells(writer, report, output),
        _function_text(writer, report.by),
        _module_text(writer),
        *([_and_more(thread, writer.thread_count)] if "threads" in headers else []),
        *_place_cells(writer, writer.mapping_count, output),
    )


def _place_cells(
    place: Writer | WrittenRun, count: int, output: Output
) -> tuple[str, ...]:
    """Return the label and the name of a mapping; in a table, the better of both."""
    name, label = place.mapping or "", place.label or ""
    if output.format == "table":
        return (_and_more(label or name, count),)
    return (label, _and_more(name, count))


def _process_cells(
    writer: Writer, report: WriterReport, output: Output
) -> tuple[str, ...]:
    """Return the cells that only rows of a group have."""
    if report.group is None:
        return ()
    if writer.pid is None:
        name = _and_more(writer.process or "", writer.process_count)
    elif output.format == "table":
        return (f"{writer.process}/{writer.pid}",)
    else:
        name = writer.process or ""
    pid = "" if writer.pid is None else str(writer.pid)
    return (name,) if output.format == "table" else (pid, name)


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
        rows.append(_named_row((str(pages), size, share), name, report, output))
    return rows


def _named_row(
    numbers: tuple[str, ...], name: str, report: WriterReport, output: Output
) -> tuple[str, ...]:
    """Return a row that has a name in place of a function, and no other text."""
    headers = _headers(report, output)
    cells = dict.fromkeys(headers[_NUMBERS:], "") | {"function": name}
    return (*numbers, *cells.values())


def _page_rows(report: WriterReport, output: Output) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for run in report.runs:
        size = run.end - run.start
        share = _share(size / PAGE_SIZE / max(1, report.written), output)
        numbers = (str(size // PAGE_SIZE), _size(size, output), share)
        row = _named_row(numbers, _NO_WRITER, report, output)
        if run.writer is not None:
            row = (*numbers, *_cells(run.writer, report, output)[_NUMBERS:])
        elif report.group is not None and output.format != "table":
            row = (*numbers, str(run.pid), *row[_NUMBERS + 1 :])
        ends = (format_address(run.start), format_address(run.end))
        place = _place_cells(run, 1, output)
        rows.append((*ends, *row[: -len(place)], *place))
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
        numbers = (
            str(pages),
            _size(pages * PAGE_SIZE, output),
            _share(share, output),
        )
        rest = _named_row(numbers, f"({len(hidden)} more)", report, output)
        rows = [*rows[:kept], rest, *rows[len(rows) - fixed :]]
    headers = _headers(report, output)
    shown = [
        [
            _last_part(cell) if header in ("module", "mapping") else escape(cell)
            for header, cell in zip(headers, row, strict=True)
        ]
        for row in rows
    ]
    _write_lines(headers, shown, size.columns, report.by, header=output.header)


def _last_part(name: str) -> str:
    """Return the last part of a path."""
    return escape(name.rpartition("/")[2] if name.startswith("/") else name)


def _write_lines(
    headers: tuple[str, ...],
    rows: list[list[str]],
    columns: int,
    by: str,
    *,
    header: bool,
) -> None:
    widths = [max(map(width_of, cells)) for cells in zip(headers, *rows, strict=True)]
    worth = _WORTH | {by: _SUBJECT_WORTH}
    widths = _fitted(headers, widths, columns, worth)
    lines: list[Sequence[str]] = [headers, *rows] if header else [*rows]
    for line in lines:
        cells = []
        for at, (cell, width) in enumerate(zip(line, widths, strict=True)):
            fit = elide_middle if headers[at] == "function" else fit_path
            cells.append(pad(fit(cell, width), width, right=at < _NUMBERS))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.flush()


def _fitted(
    headers: Sequence[str], widths: list[int], columns: int, worth: dict[str, float]
) -> list[int]:
    """Return widths that fit into a line: what is worth most gives way last."""
    widths = list(widths)
    room = columns - 2 * (len(widths) - 1)
    while sum(widths) > room:
        texts = [at for at in range(_NUMBERS, len(widths)) if widths[at] > _LEAST_WIDTH]
        if not texts:
            break
        widest = max(texts, key=lambda at: widths[at] / worth.get(headers[at], 1))
        widths[widest] -= 1
    return widths
