"""Selects columns and makes the text of rows, for all formats with columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from pagescan.model.batch import Batch
from pagescan.model.results import MappingCounts, Output
from pagescan.render.cells import pad
from pagescan.render.columns import (
    BY_MAPPING_DEFAULT,
    LOOK_COLUMNS,
    MAPPING_COLUMNS,
    MAPS_COLUMNS,
    MAPS_DEFAULT,
    MAPS_WITH_SHARES,
    OF_GROUPS,
    PID,
    PLAN_COLUMNS,
    PLAN_DEFAULT,
    PROCESS_COLUMNS,
    PROCESS_DEFAULTS,
    REGION_COLUMNS,
    REGION_DEFAULT,
    WATCHED_MAPPING_COLUMNS,
    WATCHED_MAPPING_DEFAULT,
    Column,
    RegionRow,
    Value,
    facts_of_mapping,
    of_look,
    of_target,
    region_rows,
    select,
)
from pagescan.render.line_template import Key, LineTemplate, Part, Slot, batch_lines

if TYPE_CHECKING:
    from pagescan.model.report import Report

Rows = Batch | Sequence[MappingCounts]
Columns = Sequence[Column[Any]]


class LineStyle(Protocol):
    """The look of a line, in one format."""

    @property
    def columns(self) -> Columns:
        """The columns of each line."""

    def cell(self, value: Value, column: Column[Any]) -> str:
        """Return the text of a value."""

    def line(self, cells: Sequence[Part]) -> list[Part]:
        """Return the parts of a line with these cells, its newline included."""


def columns_of(kind: str, by: str) -> tuple[str, Mapping[str, Column[Any]]]:
    """Return the default columns of a kind of result, and all columns that it has.

    Args:
        kind: The kind of the report: the command's word for it.
        by: What a row stands for, where the user decides that.
    """
    if kind == "dump-plan":
        return PLAN_DEFAULT, PLAN_COLUMNS
    if by == "process":
        return PROCESS_DEFAULTS[kind], {**PROCESS_COLUMNS, **LOOK_COLUMNS}
    of_groups = {"pid": PID} if kind in OF_GROUPS else {}
    if kind == "maps":
        return MAPS_DEFAULT, {**MAPS_COLUMNS, **of_groups}
    default = REGION_DEFAULT
    columns: Mapping[str, Column[Any]] = REGION_COLUMNS
    if by == "mapping":
        default, columns = BY_MAPPING_DEFAULT, MAPPING_COLUMNS
        if kind == "watch":
            default, columns = WATCHED_MAPPING_DEFAULT, WATCHED_MAPPING_COLUMNS
    of_look = LOOK_COLUMNS if kind == "watch" else {}
    return default, {**columns, **of_look, **of_groups}


def selected_columns(report: Report, rows: Rows, output: Output) -> Columns:
    """Return the columns that the user selected, or the default ones of the report.

    The rows of all looks of a `watch` are one CSV: there, `tick` and `time` come first.
    """
    default, columns = all_columns(report, rows)
    of_processes = _is_of_processes(report, rows)
    if (
        not of_processes
        and not isinstance(rows, Batch)
        and any(row.shares for row in rows)
    ):
        default = MAPS_WITH_SHARES
    if report.group is not None and not of_processes:
        default = f"pid,{default}"
    chosen = select(output.columns, default, columns)
    if report.tick is None or output.format != "csv":
        return chosen
    first = of_look(report)
    return [
        *first.values(),
        *(column for column in chosen if column.key not in first),
    ]


def all_columns(report: Report, rows: Rows) -> tuple[str, Mapping[str, Column[Any]]]:
    """Return the default columns of a result, and all columns that its rows have."""
    kind = "dump-plan" if report.plan is not None else report.kind
    by = "region" if isinstance(rows, Batch) else "mapping"
    if _is_of_processes(report, rows):
        by = "process"
    default, columns = columns_of(kind, by)
    if by != "process" and kind in OF_GROUPS:
        columns = {**columns, **of_target(report)}
    if report.tick is not None:
        columns = {**columns, **of_look(report)}
    return default, columns


def _is_of_processes(report: Report, rows: Rows) -> bool:
    """Whether each row is a process of a group."""
    if report.group is None:
        return False
    from pagescan.render.group_rows import ProcessTable

    return isinstance(rows, ProcessTable)


def lines(rows: Rows, output: Output, style: LineStyle) -> Iterator[str]:
    """Yield the text of the rows; each item may hold many lines."""
    if not isinstance(rows, Batch):
        for cells in row_cells(rows, output, style):
            yield line_text(style, cells)
        return
    batch = rows

    def template(key: Key) -> LineTemplate:
        length, bits, owner = key
        of_mapping = facts_of_mapping(batch, owner)
        row = RegionRow(0, length, length // batch.page_size, bits, *of_mapping)
        cells: list[Part] = [
            Slot(column.key)
            if column.key in ("start", "end")
            else style.cell(column.value(row), column)
            for column in style.columns
        ]
        return LineTemplate.of(style.line(cells))

    yield from batch_lines(batch, template, output)


def row_cells(rows: Rows, output: Output, style: LineStyle) -> Iterator[list[str]]:
    """Yield the cells of each row, lazily: the reader may stop after the first."""
    facts: Iterator[Any] = (
        region_rows(rows, by_page=output.by == "page")
        if isinstance(rows, Batch)
        else iter(rows)
    )
    for row in facts:
        yield [style.cell(column.value(row), column) for column in style.columns]


def line_text(style: LineStyle, cells: Sequence[str]) -> str:
    """Return a line without slots."""
    return "".join(part for part in style.line(cells) if isinstance(part, str))


def padded(
    cells: Sequence[Part], columns: Columns, widths: Sequence[int]
) -> list[Part]:
    """Return a line's parts: cells padded to their columns, two blanks between them.

    No blank ends the line.
    """
    parts: list[Part] = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        if isinstance(cell, Slot):
            parts.append(Slot(cell.name, width))
        else:
            parts.append(pad(cell, width, right=column.right))
        parts.append("  ")
    while parts:
        last = parts.pop()
        if isinstance(last, Slot):
            parts.append(Slot(last.name))
            break
        if text := last.rstrip():
            parts.append(text)
            break
    return [*parts, "\n"]
