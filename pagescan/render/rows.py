"""Selects columns and makes the text of rows, for all formats with columns."""

import re
from collections.abc import Callable, Iterator, Sequence

from pagescan.model.batch import Batch
from pagescan.model.results import Output, Report
from pagescan.render import Rows
from pagescan.render.batch_text import PLACES, Key, chunks, region_of
from pagescan.render.columns import (
    BY_MAPPING_DEFAULT,
    MAPPING_COLUMNS,
    MAPS_DEFAULT,
    PLAN_COLUMNS,
    PLAN_DEFAULT,
    REGION_COLUMNS,
    REGION_DEFAULT,
    Column,
    Value,
    mapping_value,
    region_value,
    select,
)

# Placeholder for an address, repeated to the column's width; no name can have a NUL.
_HOLE = "\0"
_HOLES = re.compile(f"{_HOLE}+")


def chosen_columns(report: Report, rows: Rows, output: Output) -> list[Column]:
    """Return the columns that the user selected, or the default ones of the report."""
    if report.plan is not None:
        return select(output.columns, PLAN_DEFAULT, PLAN_COLUMNS)
    if isinstance(rows, Batch):
        return select(output.columns, REGION_DEFAULT, REGION_COLUMNS)
    usual = MAPS_DEFAULT if report.kind == "maps" else BY_MAPPING_DEFAULT
    return select(output.columns, usual, MAPPING_COLUMNS)


def lines(
    rows: Rows,
    columns: Sequence[Column],
    output: Output,
    text: Callable[[Value, Column], str],
    line: Callable[[list[str]], str],
    widths: Sequence[int] = (),
) -> Iterator[str]:
    """Yield the text of the rows; each item may hold many lines.

    Args:
        rows: The rows.
        columns: The columns of each row.
        output: Says what one row is.
        text: Returns the text of one cell.
        line: Returns the line for a list of cells, with its newline.
        widths: The widths of the columns, if cells are padded.
    """
    if not isinstance(rows, Batch):
        for values in cells(rows, list(columns), output):
            pairs = zip(values, columns, strict=True)
            yield line([text(value, column) for value, column in pairs])
        return
    batch = rows
    holes = [_HOLE] * len(columns)
    if widths:  # the last cell of a line is not padded
        holes[:-1] = [_HOLE * width for width in widths[:-1]]

    def template(key: Key) -> str:
        region = region_of(batch, key)
        texts = [
            hole if one.key in PLACES else text(region_value(region, one.key), one)
            for one, hole in zip(columns, holes, strict=True)
        ]
        return _HOLES.sub(_address, line(texts).replace("%", "%%"))

    addresses = tuple(one.key for one in columns if one.key in PLACES)
    yield from chunks(
        batch,
        template,
        addresses,
        by_page=output.by == "page",
        progress=output.progress,
    )


def _address(hole: re.Match[str]) -> str:
    return f"%#-{len(hole[0])}x"


def cells(rows: Rows, columns: list[Column], output: Output) -> Iterator[list[Value]]:
    """Yield the values of each row, lazily: the reader may stop after the first."""
    keys = [column.key for column in columns]
    if isinstance(rows, Batch):
        regions = rows.pages() if output.by == "page" else rows.regions()
        for region in regions:
            yield [region_value(region, key) for key in keys]
    else:
        for row in rows:
            yield [mapping_value(row, key) for key in keys]
