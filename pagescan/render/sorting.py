"""Sorts the rows of a result by columns, for --sort; all rows are in memory."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pagescan.model.batch import Batch
from pagescan.model.report import Report
from pagescan.model.results import MappingCounts, Output
from pagescan.render.columns import (
    Column,
    RegionRow,
    Value,
    facts_of_mapping,
    sort_keys,
)
from pagescan.render.rows import Rows, all_columns


def sorted_rows(report: Report, rows: Rows, output: Output) -> Rows:
    """Return the rows in the order of --sort; equal rows keep their order."""
    keys = sort_keys(output.sort, all_columns(report, rows)[1])
    if not isinstance(rows, Batch):
        order = _order(keys, len(rows), lambda column: _of_rows(rows, column))
        ordered = [rows[at] for at in order]
        return type(rows)(ordered) if isinstance(rows, list) else ordered
    batch = _single_pages(rows) if output.by == "page" else rows
    order = _order(keys, len(batch), lambda column: _of_regions(batch, column))
    starts, ends, bits = (
        array("Q", map(values.__getitem__, order))
        for values in (batch.starts, batch.ends, batch.bits)
    )
    owners = array("q", map(batch.owners.__getitem__, order))
    return replace(batch, starts=starts, ends=ends, bits=bits, owners=owners)


def _order(
    keys: Sequence[tuple[Column[Any], bool]],
    count: int,
    values_of: Callable[[Column[Any]], Sequence[Value]],
) -> list[int]:
    """Return the indices of the rows in order; unknown values come last."""
    order = list(range(count))
    for column, largest_first in reversed(keys):
        values = values_of(column)
        unknown = [at for at in order if values[at] is None]
        order = [at for at in order if values[at] is not None]
        order.sort(key=values.__getitem__, reverse=largest_first)  # type: ignore[arg-type]
        order += unknown
    return order


def _of_rows(rows: Sequence[MappingCounts], column: Column[Any]) -> Sequence[Value]:
    return [column.value(row) for row in rows]


def _of_regions(batch: Batch, column: Column[Any]) -> Sequence[Value]:
    """Return the values of a column; each is made once per length, bits and mapping."""
    if column.key in ("start", "end"):
        return batch.starts if column.key == "start" else batch.ends
    values: dict[tuple[int, int, int], Value] = {}
    found = []
    for start, end, bits, owner in zip(
        batch.starts, batch.ends, batch.bits, batch.owners, strict=True
    ):
        key = end - start, bits, owner
        if key not in values:
            pages = key[0] // batch.page_size
            row = RegionRow(0, key[0], pages, bits, *facts_of_mapping(batch, owner))
            values[key] = column.value(row)
        found.append(values[key])
    return found


def _single_pages(batch: Batch) -> Batch:
    """Return a batch with a region per page."""
    size = batch.page_size
    counts = [
        (end - start) // size
        for start, end in zip(batch.starts, batch.ends, strict=True)
    ]
    starts = array("Q")
    bits, owners = array("Q"), array("q")
    for at, (start, count) in enumerate(zip(batch.starts, counts, strict=True)):
        starts.extend(range(start, start + count * size, size))
        bits.extend([batch.bits[at]] * count)
        owners.extend([batch.owners[at]] * count)
    ends = array("Q", (start + size for start in starts))
    return replace(batch, starts=starts, ends=ends, bits=bits, owners=owners)
