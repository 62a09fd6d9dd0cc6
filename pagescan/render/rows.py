"""What the formats with columns share: which columns, and the values of each row."""

from collections.abc import Iterator

from pagescan.columns import (
    BY_MAPPING_DEFAULT,
    MAPPING_COLUMNS,
    MAPS_DEFAULT,
    REGION_COLUMNS,
    REGION_DEFAULT,
    Column,
    Value,
    mapping_value,
    region_value,
    select,
)
from pagescan.model import Output, Report
from pagescan.regions import Batch
from pagescan.render import Rows


def chosen_columns(report: Report, rows: Rows, output: Output) -> list[Column]:
    """Return the columns that were asked for, or the usual ones of the report."""
    if isinstance(rows, Batch):
        return select(output.columns, REGION_DEFAULT, REGION_COLUMNS)
    usual = MAPS_DEFAULT if report.kind == "maps" else BY_MAPPING_DEFAULT
    return select(output.columns, usual, MAPPING_COLUMNS)


def cells(rows: Rows, columns: list[Column], output: Output) -> Iterator[list[Value]]:
    """Yield the values of each row, lazily: a reader may be gone after the first."""
    keys = [column.key for column in columns]
    if isinstance(rows, Batch):
        regions = rows.pages() if output.by == "page" else rows.regions()
        for region in regions:
            yield [region_value(region, key) for key in keys]
    else:
        for row in rows:
            yield [mapping_value(row, key) for key in keys]
