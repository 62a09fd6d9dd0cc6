"""Comma-separated values: a line of keys, then numbers as they are."""

import csv
from typing import TextIO

from pagescan.columns import Column, Value
from pagescan.model import Output, Report
from pagescan.render import Rows
from pagescan.render.rows import cells, chosen_columns


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; names are as the kernel gives them, quoted where need be."""
    columns = chosen_columns(report, rows, output)
    writer = csv.writer(stream, lineterminator="\n")
    if output.header and (report.tick or 1) == 1:
        writer.writerow([column.key for column in columns])
    for values in cells(rows, columns, output):
        writer.writerow(
            [
                _show(value, column)
                for value, column in zip(values, columns, strict=True)
            ]
        )


def _show(value: Value, column: Column) -> str:
    if value is None:
        return ""
    if column.unit == "flag":
        return "1" if value else "0"
    if column.unit == "address":
        return hex(int(value))
    return str(value)
