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
from pagescan.model.units import escape, format_age, format_size, format_time, plural
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
    _Column("process", lambda row: row.label or row.name),
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
    "mapping": (
        *_PART,
        *_WHOSE,
        _Column("label", lambda row: row.part.label),
        _Column("mapping", lambda row: row.part.mapping),
    ),
    "time": (_Column("at", lambda row: row.part.at, "time"), *_PART, *_WHOSE),
}


def _for_people(columns: tuple[_Column, ...], by: str) -> tuple[_Column, ...]:
    """Leave out a column that another one tells, too: a window is narrow."""
    if by == "process":  # the age tells the role
        return tuple(column for column in columns if column.key != "role")
    if by == "mapping":
        *others, _, mapping = columns
        name = mapping._replace(value=lambda row: row.part.label or row.part.mapping)
        return (*others, name)
    return columns


def rows_of(report: CopyReport, by: str) -> list[ProcessCopies] | list[CopyRow]:
    """Return the rows of a report, the largest first; processes below their parents."""
    if by == "process":
        return [row for _, row in in_tree(report)]
    rows = [
        CopyRow(fork, side, part)
        for fork in report.forks
        for side in fork.sides
        for part in side.by
    ]
    return rows if by == "time" else sorted(rows, key=lambda row: -row.part.pages)


def in_tree(report: CopyReport) -> list[tuple[int, ProcessCopies]]:
    """Return how deep each process stands below others, and the process.

    The processes of one target stay in their order. In a group, those that have copied
    most come first among the children of a parent.
    """
    if report.group is None:
        return [(0, row) for row in report.processes]
    pids = {row.pid for row in report.processes}
    children: dict[int | None, list[ProcessCopies]] = {}
    for row in sorted(report.processes, key=lambda row: -row.copied):
        children.setdefault(row.parent, []).append(row)
    rows: list[tuple[int, ProcessCopies]] = []
    waiting = [(0, row) for row in reversed(report.processes) if row.parent not in pids]
    while waiting:
        depth, row = waiting.pop()
        rows.append((depth, row))
        below = children.pop(row.pid, [])
        waiting += [(depth + 1, child) for child in reversed(below)]
    return rows


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
    if output.format == "table":
        columns = _for_people(columns, output.by)
    if output.format == "csv":
        _write_csv(report, columns, rows, output, stream)
        return 0
    cells = [[_cell(c, row, output) for c in columns] for row in rows]
    if output.format == "table" and output.by == "process":
        for (depth, _), line in zip(in_tree(report), cells, strict=True):
            line[0] = 2 * depth * " " + line[0]
    lines = [[column.key for column in columns]] if output.header else []
    foot: list[str] = []
    if output.format == "table":
        cells, foot = _that_fit(cells, report, output)
        lines = _fitted([*lines, *cells])
    else:
        lines += cells
    if not lines:
        return 0
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            pad(cell, width, right=column.unit not in ("text", "time"))
            for cell, width, column in zip(line, widths, columns, strict=True)
        )
        text = "  ".join(padded).rstrip()
        if output.format == "table":
            text = elide_middle(text, shutil.get_terminal_size().columns)
        stream.write(text + "\n")
    stream.writelines(f"{line}\n" for line in foot)
    stream.flush()
    return len(lines) + len(foot)


_UNITS = (
    "age: since the fork; shared, copied, new: pages; rate: pages copied per second"
)
_LEAST_ROWS = 3
_LEAST_WIDTH = 12


def _that_fit(
    cells: list[list[str]], report: CopyReport, output: Output
) -> tuple[list[list[str]], list[str]]:
    """Return as many rows as the window has room for, and the lines below them."""
    window = shutil.get_terminal_size()
    foot = [_UNITS] if output.header and output.by == "process" else []
    if report.group is not None:
        foot.insert(0, sum_line(report))
    room = max(_LEAST_ROWS, window.lines - 2 - len(foot))  # 1 for the head, 1 below
    if len(cells) > room:
        hidden = len(cells) - room + 1
        cells = cells[: room - 1]
        foot.insert(0, f"… {hidden} more (a pipe shows all)")
    return cells, [elide_middle(line, window.columns - 1) for line in foot]


def sum_line(report: CopyReport) -> str:
    """Return the sentence about all processes of a group together."""
    summary = report.summary
    living = sum(row.end is None for row in report.processes)
    return (
        f"{living} process{'es' * (living != 1)}, {plural(summary.forks, 'fork')}:"
        f" {plural(summary.copied, 'page')} ({format_size(summary.bytes)}) copied,"
        f" each once; {summary.new:,} new"
    )


def _fitted(lines: list[list[str]]) -> list[list[str]]:
    """Return lines with a first and a last column that fit into the window.

    The next report takes their place, so no line may go on in a second one.
    """
    if not lines:
        return lines
    window = shutil.get_terminal_size()
    *others, last = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    room = window.columns - sum(others) - 2 * len(others)
    name = max(_LEAST_WIDTH, others[0] - max(0, min(last, _LEAST_WIDTH) - room))
    room = max(1, room + others[0] - name)
    return [
        [elide_middle(line[0], name), *line[1:-1], elide_middle(line[-1], room)]
        for line in lines
    ]


def _cell(column: _Column, row: object, output: Output) -> str:
    value = column.value(row)
    if value is None:
        return "-"
    if column.unit == "bytes" and not output.exact:
        return format_size(value)
    if column.unit == "share":
        return f"{value:.1%}"
    if column.unit == "seconds":
        people = output.format == "table"
        return format_age(value) if people else f"{value:.1f}"
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
    from pagescan.render.document import (
        group_keys,
        member_untracked_keys,
        target_keys,
    )

    summary = report.summary
    return {
        "target": target_keys(report.target),
        "group": group_keys(report.group),
        "tick": report.tick,
        "interval_ns": report.interval_ns,
        "end": report.end,
        "summary": {
            "forks": summary.forks,
            "copied": summary.copied,
            "bytes": summary.bytes,
            "new": summary.new,
        },
        "processes": [_process_keys(row) for row in report.processes],
        "forks": [_fork_keys(fork) for fork in report.forks],
        "hints": [*report.hints],
        "vforks": report.vforks,
        "untracked": [member_untracked_keys(item) for item in report.untracked],
        "cost": {
            "samples": report.samples,
            "lost": report.lost,
            "ring_bytes": report.ring_bytes,
        },
    }


def _process_keys(row: ProcessCopies) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.label,
        "pid": row.pid,
        "parent": row.parent,
        "role": row.role,
        "age": None if row.age is None else round(row.age, 3),
        "shared": row.shared,
        "copied": row.copied,
        "bytes": row.bytes,
        "new": row.new,
        "rate": round(row.rate, 1),
        "function": row.function,
        "end": row.end,
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
        "kept": fork.kept,
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
        "label": part.label,
        "at": format_time(part.at) if part.at else None,
    }
