"""Writes columns of fixed width for a pipe: no text is cut, and no row waits."""

from collections.abc import Sequence
from typing import Any, TextIO

from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.render.columns import Column, Value, show
from pagescan.render.line_template import Part
from pagescan.render.rows import (
    Columns,
    Rows,
    line_text,
    lines,
    padded,
    selected_columns,
)


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result."""
    style = _Style(selected_columns(report, rows, output), output)
    if output.header and (len(rows) or (report.tick or 1) == 1):
        stream.write(line_text(style, [column.key for column in style.columns]))
    stream.writelines(lines(rows, output, style))


class _Style:
    """Cells as wide as their column is declared to be."""

    def __init__(self, columns: Columns, output: Output) -> None:
        self.columns = columns
        self._exact = output.exact
        self._widths = [max(column.width, len(column.key)) for column in columns]

    def cell(self, value: Value, column: Column[Any]) -> str:
        return show(value, column, exact=self._exact)

    def line(self, cells: Sequence[Part]) -> list[Part]:
        return padded(cells, self.columns, self._widths)
