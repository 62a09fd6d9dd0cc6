"""Writes a table for a terminal: as wide as the window; the last column may be cut."""

import os
import shutil
from collections.abc import Sequence
from itertools import islice
from typing import Any, TextIO

from pagescan.model.results import Output, Report
from pagescan.render.cells import elide_middle, width_of
from pagescan.render.columns import Column, Value, show
from pagescan.render.line_template import Part
from pagescan.render.rows import (
    Columns,
    Rows,
    line_text,
    lines,
    padded,
    row_cells,
    selected_columns,
)

# The first rows set the widths; a wider cell in a later row moves the rest of its line.
_ROWS_FOR_WIDTHS = 500


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; the first rows appear before the last are known."""
    style = _Style(selected_columns(report, rows, output), output)
    style.fit(list(islice(row_cells(rows, output, style), _ROWS_FOR_WIDTHS)))
    if output.header:
        head = line_text(style, [column.key for column in style.columns])
        bold = wants_color(output.color, stream)
        stream.write(f"\x1b[1m{head[:-1]}\x1b[0m\n" if bold else head)
    stream.writelines(lines(rows, output, style))


class _Style:
    """Cells as wide as the widest of the first rows; the last fits into the window."""

    def __init__(self, columns: Columns, output: Output) -> None:
        self.columns = columns
        self._exact = output.exact
        self._widths: list[int] = []
        self._room = 0

    def fit(self, first: list[list[str]]) -> None:
        """Set the widths by the cells of the first rows and by the window."""
        heads = [column.key for column in self.columns]
        self._widths = [
            max(map(width_of, cells)) for cells in zip(heads, *first, strict=True)
        ]
        window = shutil.get_terminal_size().columns
        others = sum(self._widths[:-1]) + 2 * (len(self.columns) - 1)
        self._room = max(8, window - others)

    def cell(self, value: Value, column: Column[Any]) -> str:
        return show(value, column, exact=self._exact)

    def line(self, cells: Sequence[Part]) -> list[Part]:
        last = cells[-1]
        if isinstance(last, str) and self.columns[-1].unit in ("text", "names"):
            cells = [*cells[:-1], elide_middle(last, self._room)]
        return padded(cells, self.columns, self._widths)


def wants_color(setting: bool | None, stream: TextIO) -> bool:
    """Whether to use colour: --color, NO_COLOR, FORCE_COLOR, isatty decide in turn."""
    if setting is not None:
        return setting
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
