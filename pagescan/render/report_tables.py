"""Tables of a recording's views: for terminals, pipes and CSV, with equal columns."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from pagescan.model.units import (
    escape,
    format_address,
    format_duration,
    format_time,
)
from pagescan.render.cells import elide_middle, fit_path, pad, width_of
from pagescan.render.view_cells import (
    address_text,
    growth_text,
    plain_text,
    rate_text,
    share_text,
    size_text,
)

if TYPE_CHECKING:
    from pagescan.model.results import Output

Form = Callable[[Any], str]
_SHORT = 20  # cells of a name that is not the last column


class ViewColumn(NamedTuple):
    """A column of a view.

    Attributes:
        head: Its name.
        field: The field of the row.
        form: The form for people; programs get the plain value.
    """

    head: str
    field: str
    form: Form


def _clock(value: Any) -> str:  # noqa: ANN401 - any of the fields
    return f"{moment_of(value):%H:%M:%S}"


def _short(value: Any) -> str:  # noqa: ANN401 - as above
    """Return the last part of a path, and no more than a column's width."""
    text = plain_text(value)
    return elide_middle(text.rpartition("/")[2] or text, _SHORT)


WRITTEN = ViewColumn("written", "written", size_text)
SHARE = ViewColumn("share", "share", share_text)
PEAK = ViewColumn("peak", "peak", rate_text)
OF_LOOKS = ViewColumn("looks", "looks", plain_text)
THREAD = ViewColumn("thread", "thread", plain_text)
MODULE = ViewColumn("module", "module", plain_text)
PROCESS = ViewColumn("process", "processes_in_short", plain_text)
FUNCTION = ViewColumn("function", "function", str)
WHERE = ViewColumn("mapping", "mapping", _short)
CODE = ViewColumn("module", "module", _short)
RATES = (
    ViewColumn("old rate", "old_rate", rate_text),
    ViewColumn("new rate", "new_rate", rate_text),
    ViewColumn("old share", "old_share", share_text),
    ViewColumn("new share", "new_share", share_text),
)
START = ViewColumn("start", "start", format_address)
NAME = ViewColumn("mapping", "mapping", plain_text)
LABEL = ViewColumn("label", "label", plain_text)
SHOWN = ViewColumn("mapping", "mapping", str)
"""The label, or else the name."""
COLUMNS: dict[str, tuple[ViewColumn, ...]] = {
    "mappings": (
        ViewColumn("written", "written", size_text),
        ViewColumn("share", "share", share_text),
        ViewColumn("peak", "peak", rate_text),
        ViewColumn("looks", "looks", str),
        ViewColumn("size", "bytes", size_text),
        ViewColumn("growth", "growth", growth_text),
        START,
        LABEL,
        NAME,
    ),
    "timeline": (
        ViewColumn("time", "time_ns", _clock),
        ViewColumn("seconds", "seconds", format_duration),
        ViewColumn("looks", "looks", str),
        ViewColumn("written", "bytes", size_text),
        ViewColumn("rate", "rate", rate_text),
        ViewColumn("resident", "resident", size_text),
    ),
    "phases": (
        ViewColumn("from", "time_ns", _clock),
        ViewColumn("seconds", "seconds", format_duration),
        ViewColumn("looks", "looks", str),
        ViewColumn("rate", "rate", rate_text),
        ViewColumn("share", "share", share_text),
        ViewColumn("mapping", "mapping", plain_text),
    ),
    "ages": (
        ViewColumn("written", "written", size_text),
        ViewColumn("once", "once", size_text),
        ViewColumn("sometimes", "sometimes", size_text),
        ViewColumn("always", "always", size_text),
        ViewColumn("size", "bytes", size_text),
        ViewColumn("growth", "growth", growth_text),
        START,
        LABEL,
        NAME,
    ),
    "working-set": (
        ViewColumn("looks", "looks", str),
        ViewColumn("seconds", "seconds", format_duration),
        ViewColumn("written", "bytes", size_text),
        ViewColumn("share", "share", share_text),
    ),
    "rounds": (
        ViewColumn("round", "round", str),
        ViewColumn("sent", "bytes", size_text),
        ViewColumn("seconds", "seconds", format_duration),
        ViewColumn("dirty", "dirty", size_text),
    ),
    "last": (
        START,
        ViewColumn("end", "end", format_address),
        ViewColumn("written", "bytes", size_text),
        ViewColumn("mapping", "mapping", plain_text),
    ),
    "writers": (
        *(WRITTEN, SHARE, PEAK, OF_LOOKS, THREAD),
        ViewColumn("threads", "threads", plain_text),
        ViewColumn("mapping", "mapping", plain_text),
        ViewColumn("mappings", "mappings", plain_text),
        ViewColumn("pid", "pid", plain_text),
        ViewColumn("process", "process", plain_text),
        ViewColumn("processes", "processes", plain_text),
        *(MODULE, FUNCTION),
    ),
    "writers on a screen": (WRITTEN, SHARE, THREAD, WHERE, FUNCTION),
    "writers on a wide screen": (
        *(WRITTEN, SHARE, PEAK, OF_LOOKS, THREAD, WHERE, CODE, FUNCTION),
    ),
    "writers on a screen of a group": (WRITTEN, SHARE, PROCESS, WHERE, FUNCTION),
    "writers on a wide screen of a group": (
        *(WRITTEN, SHARE, PEAK, OF_LOOKS, PROCESS, THREAD, WHERE, CODE, FUNCTION),
    ),
    "functions": (*RATES, MODULE, FUNCTION),
    "functions on a screen": (*RATES, FUNCTION),
    "processes": (
        *(WRITTEN, SHARE, PEAK, OF_LOOKS),
        ViewColumn("resident", "resident", size_text),
        ViewColumn("growth", "growth", growth_text),
        ViewColumn("from", "begun_ns", _clock),
        ViewColumn("seconds", "seconds", format_duration),
        ViewColumn("end", "end", plain_text),
        ViewColumn("pid", "pid", str),
        ViewColumn("process", "name", str),
    ),
    "processes of both": (
        *RATES,
        ViewColumn("process", "process", str),
    ),
    "comparison": (
        ViewColumn("old rate", "old_rate", rate_text),
        ViewColumn("new rate", "new_rate", rate_text),
        ViewColumn("old size", "old_bytes", size_text),
        ViewColumn("new size", "new_bytes", size_text),
        ViewColumn("old pages", "old_set", size_text),
        ViewColumn("new pages", "new_set", size_text),
        ViewColumn("same", "similarity", share_text),
        ViewColumn("old start", "old_start", address_text),
        ViewColumn("new start", "new_start", address_text),
        NAME,
    ),
}
"""The columns of each table; the last may be cut to fit the window."""
COLUMNS["comparison of groups"] = (
    ViewColumn("process", "process", plain_text),
    *COLUMNS["comparison"],
)
_TIMES = ("time_ns", "begun_ns")
_ADDRESSES = ("start", "end", "old_start", "new_start")
_GIVE_WAY = (
    *("end", "old start", "old size", "new size", "old pages"),
    *("seconds", "from", "looks", "hosts", "peak", "processes", "size"),
)
"""Heads of columns that a narrow window leaves out, the first one first."""
_LEAST_TEXT = 12
"""Columns on the screen that a name keeps before a number gives way."""
_LEFT = (
    *("start", "end", "label", "mapping", "thread", "module", "function", "process"),
    *("host", "name", "old", "new"),
)


def moment_of(time_ns: int) -> datetime:
    """Return the moment of a number of nanoseconds since 1970, in UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC)


def write_table(
    name: str,
    rows: Sequence[Any],
    output: Output,
    *,
    most: int | None = None,
    processes: Sequence[str] = (),
) -> None:
    """Write the rows of a view to stdout.

    Args:
        name: A key of `COLUMNS`.
        rows: The rows.
        output: The format: csv, table or plain.
        most: How many rows are shown; None: all of them.
        processes: The names of the processes, if there are several; rows of mappings
            then begin with theirs.
    """
    columns = _columns_of(name, rows, output)
    if len(processes) > 1 and COLUMNS[name][-1].field == "mapping" and _owned(rows):
        columns.insert(0, ViewColumn("process", "process", processes.__getitem__))
    if output.format == "csv":
        _write_csv(columns, rows, output)
        return
    shown = rows if most is None else rows[:most]
    cells = [
        [_cell(row, column, exact=output.exact) for column in columns] for row in shown
    ]
    lines = [[column.head for column in columns], *cells] if output.header else cells
    if not lines:
        return
    if output.format == "table":
        columns, lines = _fitted(columns, lines)
    widths = [max(map(width_of, cells)) for cells in zip(*lines, strict=True)]
    for line in lines:
        padded = [
            pad(cell, width, right=column.head not in _LEFT)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")
    if len(rows) > len(shown):
        sys.stdout.write(f"… and {len(rows) - len(shown)} more\n")


def _fitted(
    columns: list[ViewColumn], lines: list[list[str]]
) -> tuple[list[ViewColumn], list[list[str]]]:
    """Return a table that fits the window: texts give way first, then columns."""
    window = shutil.get_terminal_size().columns
    widths = [max(map(width_of, cells)) for cells in zip(*lines, strict=True)]
    texts = [
        at
        for at, column in enumerate(columns)
        if column.head in _LEFT and column.form is not format_address
    ]
    while sum(widths) + 2 * len(widths) - 2 > window:
        long = [at for at in texts if widths[at] > _LEAST_TEXT]
        if not long:
            break
        widths[max(long, key=lambda at: widths[at])] -= 1
    else:
        for line in lines:
            for at in texts:
                line[at] = fit_path(line[at], widths[at])
        return columns, lines
    heads = [column.head for column in columns]
    given = next((heads.index(head) for head in _GIVE_WAY if head in heads), None)
    if given is None:
        return columns, lines
    fewer = [line[:given] + line[given + 1 :] for line in lines]
    return _fitted(columns[:given] + columns[given + 1 :], fewer)


def _owned(rows: Sequence[Any]) -> bool:
    """Whether rows name the process by its index."""
    return bool(rows) and isinstance(getattr(rows[0], "process", None), int)


def _columns_of(name: str, rows: Sequence[Any], output: Output) -> list[ViewColumn]:
    """Return the columns: on a terminal one name, and an address if two are alike."""
    columns = list(COLUMNS[name])
    if output.format == "table" and LABEL in columns:
        names = [row.label or row.mapping for row in rows]
        alike = [START] if len(set(names)) < len(names) else []
        others = (one for one in columns if one not in (START, LABEL, NAME))
        return [*others, *alike, SHOWN]
    if output.format != "csv" and not _any_label(rows):
        columns = [column for column in columns if column is not LABEL]
    return columns


def _any_label(rows: Sequence[Any]) -> bool:
    return any(getattr(row, "label", None) for row in rows)


def _cell(row: Any, column: ViewColumn, *, exact: bool) -> str:  # noqa: ANN401
    if column is SHOWN and row.label:
        return escape(row.label)
    value = getattr(row, column.field)
    if exact and column.form in (size_text, rate_text, growth_text):
        return "-" if value is None else str(round(value))
    return escape(column.form(value))


def _write_csv(
    columns: Sequence[ViewColumn], rows: Sequence[Any], output: Output
) -> None:
    """Write rows with plain numbers, addresses in hex, and times by RFC 3339."""
    from pagescan.render.few_rows import write_rows

    write_rows(
        [column.head.replace(" ", "_") for column in columns],
        [
            [
                column.form(row.process)
                if isinstance(getattr(row, column.field), int)
                and column.field == "process"
                else plain_value(column.field, getattr(row, column.field))
                for column in columns
            ]
            for row in rows
        ],
        output,
    )


def plain_value(field: str, value: Any) -> str:  # noqa: ANN401 - any of the fields
    """Return a value as CSV has it."""
    if value is None:
        return ""
    if field in _TIMES:
        return format_time(moment_of(value))
    if field in _ADDRESSES and isinstance(value, int):
        return format_address(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def write_heat_rows(rows: Sequence[Any], begun: Sequence[int], output: Output) -> None:
    """Write a heat map as CSV: one row per piece of memory and slot of time."""
    from pagescan.render.few_rows import write_rows

    names = ("start", "end", "label", "mapping")
    write_rows(
        ("time", *names, "share"),
        [
            (
                plain_value("time_ns", at),
                *(plain_value(name, getattr(row, name)) for name in names),
                plain_value("share", share),
            )
            for row in rows
            for at, share in zip(begun, row.shares, strict=True)
            if share is not None
        ],
        output,
    )
