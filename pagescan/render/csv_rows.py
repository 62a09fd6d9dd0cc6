"""Writes comma-separated values: a line of keys, then rows with exact numbers."""

import csv
from collections.abc import Callable
from functools import partial
from io import StringIO
from typing import TextIO

from pagescan.model.results import Output, Report
from pagescan.model.units import escape, exactly
from pagescan.render import Rows
from pagescan.render.columns import Column, Value
from pagescan.render.rows import chosen_columns, lines


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; names are as the kernel gives them, quoted where necessary.

    On a terminal, characters that are not printable are escaped.
    """
    columns = chosen_columns(report, rows, output)
    if output.header and (report.tick or 1) == 1:
        stream.write(_line([column.key for column in columns]))
    stream.writelines(
        lines(rows, columns, output, partial(_show, name=shown_on(stream)), _line)
    )


def _line(texts: list[str]) -> str:
    buffer = StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(texts)
    return buffer.getvalue()


def shown_on(stream: TextIO) -> Callable[[str], str]:
    """Return the function that makes cells of texts: escaped on a terminal only."""
    if stream.isatty():
        return escape
    return partial(exactly, encoding=getattr(stream, "encoding", None) or "utf-8")


def _show(value: Value, column: Column, *, name: Callable[[str], str]) -> str:
    if value is None:
        return ""
    if column.unit == "flag":
        return "1" if value else "0"
    if column.unit == "address":
        return hex(int(value))
    return name(value) if isinstance(value, str) else str(value)
