"""Writes results: one file per output format; each takes a report and its rows."""

import sys
from typing import TYPE_CHECKING, TextIO, cast

from pagescan.model.batch import Batch
from pagescan.model.report import Report
from pagescan.model.results import Output

if TYPE_CHECKING:
    from pagescan.render.group_rows import GroupRows
    from pagescan.render.rows import Rows


def write_result(
    report: Report,
    rows: "Rows | GroupRows",
    output: Output,
    stream: TextIO | None = None,
) -> None:
    """Write a report and its rows in the format of `output`; None: to stdout."""
    stream = stream or sys.stdout
    if report.group is None:
        _write_one(report, cast("Rows", rows), output, stream)
    else:
        _write_group(report, rows, output, stream)


def _write_one(report: Report, rows: "Rows", output: Output, stream: TextIO) -> None:
    """Write rows that are one list in the format of `output`."""
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


def _write_group(
    report: Report, rows: "Rows | GroupRows", output: Output, stream: TextIO
) -> None:
    """Write the rows of a group; in a table those of each process have a title."""
    from dataclasses import replace

    from pagescan.model.units import escape
    from pagescan.render.group_rows import GroupRows

    if not isinstance(rows, GroupRows):
        _write_one(report, rows, output, stream)
        return
    if output.is_json:
        from pagescan.render import json_document, json_lines

        module = json_document if output.format == "json" else json_lines
        module.write(report, cast("Rows", rows.by(output.by)), output, stream)
        stream.flush()
        return
    table, header = output.format == "table", output.header
    for index, (process, part) in enumerate(rows.parts):
        if table:
            name = process.label or process.target.name
            title = f"{process.target.pid} {escape(name)}\n"
            stream.write(f"\n{title}" if index else title)
        of_one = replace(report, target=process.target, summary=process.summary)
        _write_one(of_one, part, output._replace(header=header), stream)
        header = output.header and table
    stream.flush()
