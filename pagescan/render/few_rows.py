"""Writes a short table of texts, as columns or as CSV; all rows are in memory."""

import sys
from collections.abc import Sequence

from pagescan.model.results import Output
from pagescan.model.units import escape


def write_rows(
    headers: Sequence[str], rows: Sequence[Sequence[str]], output: Output
) -> None:
    """Write rows to stdout, below their headers."""
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
