"""Writes a table for a terminal: as wide as the window; the last column may be cut.

Of the default columns, those that are empty throughout are left out.
"""

import os
import shutil
from collections.abc import Sequence
from itertools import islice
from typing import Any, TextIO

from pagescan.model.batch import Batch
from pagescan.model.report import Report
from pagescan.model.results import MappingCounts, Output
from pagescan.model.units import plural
from pagescan.render.cells import elide_middle, fit_path, width_of
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
_NAME = 24  # characters of a window that a name needs beside its label


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; the first rows appear before the last are known."""
    columns = selected_columns(report, rows, output)
    if output.columns is None:
        columns = [column for column in columns if _in_use(column, report, rows)]
    style, total = _fitted(columns, report, rows, output)
    if output.columns is None and style.room < _NAME and _has_label(columns):
        style, total = _fitted(_label_as_name(columns), report, rows, output)
        columns = style.columns
    bold = wants_color(output.color, stream)
    if output.header:
        head = line_text(style, [column.key for column in columns])
        stream.write(f"\x1b[1m{head[:-1]}\x1b[0m\n" if bold else head)
    stream.writelines(lines(rows, output, style))
    for cells in total:
        line = line_text(style, cells)
        stream.write(f"\x1b[1m{line[:-1]}\x1b[0m\n" if bold else line)


def _fitted(
    columns: Columns, report: Report, rows: Rows, output: Output
) -> tuple["_Style", list[list[str]]]:
    """Return the widths of columns, and the cells of the last line."""
    style = _Style(columns, output)
    total = _total(report, rows, style)
    first = islice(row_cells(rows, output, style), _ROWS_FOR_WIDTHS)
    style.fit([*first, *total])
    return style, total


def _has_label(columns: Columns) -> bool:
    return columns[-1].key == "mapping" and any(c.key == "label" for c in columns)


def _label_as_name(columns: Columns) -> Columns:
    """Return columns in which the label, where there is one, is the mapping's name."""
    *others, mapping = columns
    name = mapping._replace(value=lambda row: row.label or mapping.value(row))
    return [*(column for column in others if column.key != "label"), name]


def _in_use(column: Column[Any], report: Report, rows: Rows) -> bool:
    """Whether any row has something in a column; addresses and sizes always have."""
    if column.key == "label":
        return bool(rows.labels) if isinstance(rows, Batch) else any(map(_label, rows))
    if isinstance(rows, Batch):
        return report.summary.categories.get(column.key) != 0
    if column.json.startswith("counts."):
        return any(column.value(row) for row in rows)
    return True


def _label(row: MappingCounts) -> str | None:
    return row.label


def _total(report: Report, rows: Rows, style: "_Style") -> list[list[str]]:
    """Return the cells of the last line of `maps`: the sums; of others, no line."""
    if report.kind != "maps" or isinstance(rows, Batch) or len(rows) < 2:
        return []
    cells = []
    for column in style.columns:
        if column.key == "start":
            text = plural(len(rows), "mapping")
        elif column.right:
            values = [column.value(row) for row in rows]
            known = [value for value in values if isinstance(value, int)]
            text = style.cell(sum(known) if known else None, column)
        else:
            text = ""
        cells.append(text)
    return [cells]


class _Style:
    """Cells as wide as the widest of the first rows; the last fits into the window."""

    def __init__(self, columns: Columns, output: Output) -> None:
        self.columns = columns
        self._exact = output.exact
        self._widths: list[int] = []
        self.room = 0

    def fit(self, first: list[list[str]]) -> None:
        """Set the widths by the cells of the first rows and by the window."""
        heads = [column.key for column in self.columns]
        self._widths = [
            max(map(width_of, cells)) for cells in zip(heads, *first, strict=True)
        ]
        window = shutil.get_terminal_size().columns
        for at, column in enumerate(self.columns[:-1]):
            if column.unit == "text":  # the last column is a name, and needs more
                self._widths[at] = min(self._widths[at], max(12, window // 5))
        others = sum(self._widths[:-1]) + 2 * (len(self.columns) - 1)
        self.room = max(8, window - others)

    def cell(self, value: Value, column: Column[Any]) -> str:
        return show(value, column, exact=self._exact)

    def line(self, cells: Sequence[Part]) -> list[Part]:
        *others, last = zip(cells, self.columns, self._widths, strict=True)
        fitted: list[Part] = [
            elide_middle(cell, width)
            if isinstance(cell, str) and column.unit == "text"
            else cell
            for cell, column, width in others
        ]
        cell, column, _ = last
        if isinstance(cell, str) and column.unit in ("text", "names"):
            cell = fit_path(cell, self.room)
        return padded([*fitted, cell], self.columns, self._widths)


def wants_color(setting: bool | None, stream: TextIO) -> bool:
    """Whether to use colour: --color, NO_COLOR, FORCE_COLOR, isatty decide in turn."""
    if setting is not None:
        return setting
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
