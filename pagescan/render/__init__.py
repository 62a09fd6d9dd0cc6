"""Writes results: one file per output format; each takes a report and its rows."""

import sys
from collections.abc import Sequence
from typing import Any, TextIO

from pagescan import __version__
from pagescan.model.batch import Batch
from pagescan.model.results import MappingCounts, Output, Report, TargetFacts
from pagescan.model.units import escape, format_time

SCHEMA = "pagescan/1"

Rows = Batch | Sequence[MappingCounts]


def write_result(
    report: Report, rows: Rows, output: Output, stream: TextIO | None = None
) -> None:
    """Write a report and its rows in the format of `output`; None: to stdout."""
    stream = stream or sys.stdout
    if output.by == "mapping" and isinstance(rows, Batch):
        rows = rows.by_mapping()
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


def target_keys(target: TargetFacts) -> dict[str, Any]:
    """Return the JSON keys of a target."""
    return {
        "pid": target.pid,
        "name": target.name,
        "exe": target.exe,
        "start_time": target.start_time,
        "page_size": target.page_size,
    }


def document(kind: str, **keys: object) -> dict[str, Any]:
    """Return a JSON document without regions: its head, and the keys given."""
    from pagescan.model.units import now

    return {
        "schema": SCHEMA,
        "kind": kind,
        "version": __version__,
        "time": format_time(now()),
        **keys,
    }


def write_document(content: dict[str, Any], stream: TextIO | None = None) -> None:
    """Write a JSON document as one line."""
    import json

    stream = stream or sys.stdout
    stream.write(json.dumps(content, ensure_ascii=True) + "\n")
    stream.flush()


def write_rows(
    headers: Sequence[str], rows: Sequence[Sequence[str]], output: Output
) -> None:
    """Write a short table of texts, as columns or as CSV; all rows are in memory."""
    if output.format == "csv":
        import csv

        from pagescan.render.csv_rows import shown_on

        cell = shown_on(sys.stdout)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        if output.header:
            writer.writerow(headers)
        writer.writerows([cell(text) for text in row] for row in rows)
        return
    from pagescan.render.cells import pad, width_of

    shown = [[escape(cell) for cell in row] for row in rows]
    lines = [headers, *shown] if output.header else shown
    widths = [max(map(width_of, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (pad(cell, width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
