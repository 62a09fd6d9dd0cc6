"""Writes comma-separated values: a line of keys, then rows with exact numbers."""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from typing import Any, TextIO

from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.model.units import escape, exactly
from pagescan.render.columns import Column, Value
from pagescan.render.line_template import Part
from pagescan.render.rows import Columns, Rows, line_text, lines, selected_columns


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; names are as the kernel gives them, quoted where necessary.

    On a terminal, characters that are not printable are escaped.
    """
    style = _Style(selected_columns(report, rows, output), stream)
    if output.header and (report.tick or 1) == 1:
        stream.write(line_text(style, [column.key for column in style.columns]))
    stream.writelines(lines(rows, output, style))


def shown_on(stream: TextIO) -> Callable[[str], str]:
    """Return the function that makes cells of texts: escaped on a terminal only."""
    if stream.isatty():
        return escape
    return partial(exactly, encoding=getattr(stream, "encoding", None) or "utf-8")


class _Style:
    """Cells between commas, quoted where csv quotes them."""

    def __init__(self, columns: Columns, stream: TextIO) -> None:
        self.columns = columns
        self._shown = shown_on(stream)

    def cell(self, value: Value, column: Column[Any]) -> str:
        if value is None:
            return column.unknown
        if column.unit == "flag":
            return "1" if value else "0"
        if isinstance(value, tuple):
            return ",".join(value)
        if isinstance(value, str):
            return self._shown(value)
        return hex(value) if column.unit in ("address", "offset") else str(value)

    def line(self, cells: Sequence[Part]) -> list[Part]:
        if list(cells) == [""]:
            return ['""\n']  # an empty line would be no row
        parts: list[Part] = []
        for cell in cells:
            parts += (_quoted(cell) if isinstance(cell, str) else cell, ",")
        return [*parts[:-1], "\n"]


def _quoted(text: str) -> str:
    """Return the text as csv writes it among other cells."""
    if text.isalnum():
        return text
    buffer = StringIO()
    csv.writer(buffer, lineterminator="").writerow([text, ""])
    return buffer.getvalue()[:-1]
