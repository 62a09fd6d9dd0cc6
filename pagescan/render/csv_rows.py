"""Writes comma-separated values: a line of keys, then rows with exact numbers."""

import csv
import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any, TextIO

from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.model.units import escape, escape_character, exactly
from pagescan.render.columns import Column, Value
from pagescan.render.line_template import Part
from pagescan.render.rows import Columns, Rows, line_text, lines, selected_columns


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; names are as the kernel gives them, quoted where necessary.

    A name that begins as a formula has its first character escaped.

    On a terminal, characters that are not printable are escaped.
    """
    style = _Style(selected_columns(report, rows, output), stream)
    if output.header and (report.tick or 1) == 1:
        stream.write(line_text(style, [column.key for column in style.columns]))
    stream.writelines(lines(rows, output, style))


def shown_on(stream: TextIO) -> Callable[[str], str]:
    """Return the function that makes cells of texts: escaped on a terminal only.

    The target chooses its names, and a spreadsheet takes a cell that begins with one of
    = + - @ for a formula, which may start a program. So the first character of such a
    text is escaped, like a byte that is not UTF-8.
    """
    if stream.isatty():
        return lambda text: _inert(escape(text))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return lambda text: _inert(exactly(text, encoding))


def _inert(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula; numbers stay."""
    if text[:1] not in _FORMULA or text == "-" or _NUMBER.fullmatch(text):
        return text
    return escape_character(text[0]) + text[1:]


_FORMULA = {*"=+-@\t\r"}
_NUMBER = re.compile(r"[-+]?[0-9][0-9.,]*(e[-+]?[0-9]+)?( ?[KMGTPE]?i?B?| ?%)")


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
