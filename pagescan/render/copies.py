"""Writes the results of `cow`: a JSON document, CSV, or a table."""

import shutil
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from pagescan.model.copies import (
    Copies,
    CopyReport,
    ForkCopies,
    ProcessCopies,
    SideCopies,
)
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import Output
from pagescan.model.units import escape, format_size, format_time
from pagescan.render.cells import elide_middle, pad, width_of


class CopyRow(NamedTuple):
    """The copies of one side by function, by mapping or by time."""

    fork: ForkCopies
    side: SideCopies
    part: Copies


class _Column(NamedTuple):
    key: str
    value: Callable[[Any], Any]
    unit: str = "text"


_PROCESS = (
    _Column("process", lambda row: row.name),
    _Column("pid", lambda row: row.pid, "number"),
    _Column("role", lambda row: row.role),
    _Column("age", lambda row: row.age, "seconds"),
    _Column("shared", lambda row: row.shared, "number"),
    _Column("copied", lambda row: row.copied, "number"),
    _Column("bytes", lambda row: row.bytes, "bytes"),
    _Column("new", lambda row: row.new, "number"),
    _Column("rate", lambda row: round(row.rate), "number"),
    _Column("function", lambda row: row.function),
)
_PART = (
    _Column("pages", lambda row: row.part.pages, "number"),
    _Column("bytes", lambda row: row.part.pages * PAGE_SIZE, "bytes"),
    _Column("share", lambda row: row.part.share, "share"),
)
_WHOSE = (
    _Column("fork", lambda row: row.fork.number, "number"),
    _Column("role", lambda row: row.side.role),
    _Column("pid", lambda row: row.side.pid, "number"),
)
COLUMNS: dict[str, tuple[_Column, ...]] = {
    "process": _PROCESS,
    "function": (
        *_PART,
        *_WHOSE,
        _Column("module", lambda row: row.part.module),
        _Column("function", lambda row: row.part.function),
    ),
    "mapping": (*_PART, *_WHOSE, _Column("mapping", lambda row: row.part.mapping)),
    "time": (_Column("at", lambda row: row.part.at, "time"), *_PART, *_WHOSE),
}


def rows_of(report: CopyReport, by: str) -> list[ProcessCopies] | list[CopyRow]:
    """Return the rows of a report, the largest first."""
    if by == "process":
        return [*report.processes]
    rows = [
        CopyRow(fork, side, part)
        for fork in report.forks
        for side in fork.sides
        for part in side.by
    ]
    return rows if by == "time" else sorted(rows, key=lambda row: -row.part.pages)


def write_copies(
    report: CopyReport, output: Output, stream: TextIO | None = None
) -> int:
    """Write a report, None: to stdout; return how many lines a table has."""
    stream = stream or sys.stdout
    if output.format == "json":
        from pagescan.render.document import document, write_document

        keys = copy_keys(report)
        write_document(document("cow", time=report.time, **keys), stream)
        return 0
    columns, rows = COLUMNS[output.by], rows_of(report, output.by)
    if output.format == "table" and output.by == "process":  # the age tells it, too
        columns = tuple(column for column in columns if column.key != "role")
    if output.format == "csv":
        _write_csv(report, columns, rows, output, stream)
        return 0
    cells = [[_cell(c, row, output) for c in columns] for row in rows]
    head = [[column.key for column in columns]] if output.header else []
    lines = [*head, *cells]
    if output.format == "table":
        lines = _fitted(lines)
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            pad(cell, width, right=column.unit not in ("text", "time"))
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        stream.write("  ".join(padded).rstrip() + "\n")
    stream.flush()
    return len(lines)


def _fitted(lines: list[list[str]]) -> list[list[str]]:
    """Return as many lines as the window has, with a last column that fits into it.

    The next report takes their place, so no line may go on in a second one.
    """
    window = shutil.get_terminal_size()
    lines = lines[: max(2, window.lines - 1)]
    *others, _ = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    room = max(1, window.columns - sum(others) - 2 * len(others))
    return [[*line[:-1], elide_middle(line[-1], room)] for line in lines]


def _cell(column: _Column, row: object, output: Output) -> str:
    value = column.value(row)
    if value is None:
        return "-"
    if column.unit == "bytes" and not output.exact:
        return format_size(value)
    if column.unit == "share":
        return f"{value:.1%}"
    if column.unit == "seconds":
        return f"{value:.1f}"
    if column.unit == "time":
        return format_time(value)
    if column.key == "module" and output.format == "table":
        value = value.rpartition("/")[2]
    return escape(str(value))


def _write_csv(
    report: CopyReport,
    columns: tuple[_Column, ...],
    rows: list[Any],
    output: Output,
    stream: TextIO,
) -> None:
    import csv

    from pagescan.render.csv_rows import shown_on

    shown = shown_on(stream)
    writer = csv.writer(stream, lineterminator="\n")
    if output.header and report.tick == 1:
        writer.writerow(["tick", "time", *(column.key for column in columns)])
    for row in rows:
        values = (column.value(row) for column in columns)
        cells = [
            format_time(value) if column.unit == "time" else value
            for value, column in zip(values, columns, strict=True)
        ]
        writer.writerow(
            [
                report.tick,
                format_time(report.time),
                *("" if cell is None else shown(str(cell)) for cell in cells),
            ]
        )
    stream.flush()


def copy_keys(report: CopyReport) -> dict[str, Any]:
    """Return the JSON keys of a report, without those of every document."""
    from pagescan.render.document import target_keys

    return {
        "target": target_keys(report.target),
        "tick": report.tick,
        "interval_ns": report.interval_ns,
        "end": report.end,
        "processes": [_process_keys(row) for row in report.processes],
        "forks": [_fork_keys(fork) for fork in report.forks],
        "hints": [*report.hints],
        "vforks": report.vforks,
        "cost": {
            "samples": report.samples,
            "lost": report.lost,
            "ring_bytes": report.ring_bytes,
        },
    }


def _process_keys(row: ProcessCopies) -> dict[str, Any]:
    return {
        "name": row.name,
        "pid": row.pid,
        "role": row.role,
        "age": None if row.age is None else round(row.age, 3),
        "shared": row.shared,
        "copied": row.copied,
        "bytes": row.bytes,
        "new": row.new,
        "rate": round(row.rate, 1),
        "function": row.function,
    }


def _fork_keys(fork: ForkCopies) -> dict[str, Any]:
    return {
        "number": fork.number,
        "at": format_time(fork.at),
        "parent": fork.parent,
        "child": fork.child,
        "seconds": round(fork.seconds, 3),
        "end": fork.end,
        "shared_at_fork": fork.shared_at_fork,
        "copied": fork.copied,
        "peak_rate": round(fork.peak_rate, 1),
        "predicted": fork.predicted,
        "reserve_bytes": fork.reserve,
        "sides": [_side_keys(side) for side in fork.sides],
        "lost": fork.lost,
        "engine": fork.engine,
    }


def _side_keys(side: SideCopies) -> dict[str, Any]:
    return {
        "pid": side.pid,
        "role": side.role,
        "copied": side.copied,
        "new": side.new,
        "by": [_part_keys(part) for part in side.by],
    }


def _part_keys(part: Copies) -> dict[str, Any]:
    return {
        "pages": part.pages,
        "bytes": part.pages * PAGE_SIZE,
        "share": round(part.share, 5),
        "function": part.function,
        "module": part.module,
        "mapping": part.mapping,
        "at": format_time(part.at) if part.at else None,
    }
