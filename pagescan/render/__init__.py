"""Writes results: one file per output format; each takes a report and its rows."""

import sys
from typing import TYPE_CHECKING, TextIO

from pagescan.model.batch import Batch
from pagescan.model.results import Output, Report

if TYPE_CHECKING:
    from pagescan.render.rows import Rows


def write_result(
    report: Report, rows: "Rows", output: Output, stream: TextIO | None = None
) -> None:
    """Write a report and its rows in the format of `output`; None: to stdout."""
    stream = stream or sys.stdout
    if output.by == "mapping" and isinstance(rows, Batch):
        rows = rows.by_mapping()
    if output.sort is not None:
        from pagescan.render.sorting import sorted_rows

        rows = sorted_rows(report, rows, output)
    match output.format:
        case "json":
            from pagescan.render.json_document import write
        case "jsonl":
            from pagescan.render.json_lines import write
        case "csv":
            from pagescan.render.csv_rows import write
        case "table":
            from pagescan.render.table import write
        case _:
            from pagescan.render.plain import write
    progress = output.progress
    if progress is None or not isinstance(rows, Batch):
        write(report, rows, output, stream)
        stream.flush()
        return
    progress.begin(report.summary.pages if output.by == "page" else len(rows))
    try:
        write(report, rows, output, stream)
        stream.flush()
    finally:
        progress.begin(0)
