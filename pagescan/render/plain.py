"""Writes columns of fixed width for a pipe: no text is cut, and no row waits."""

from functools import partial
from typing import TextIO

from pagescan.model.results import Output, Report
from pagescan.render import Rows
from pagescan.render.cells import pad
from pagescan.render.columns import Column, show
from pagescan.render.rows import chosen_columns, lines


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result."""
    columns = chosen_columns(report, rows, output)
    widths = [max(column.width, len(column.header)) for column in columns]
    if output.header:
        stream.write(line([column.header for column in columns], columns, widths))
    text = partial(show, exact=output.exact)
    whole = partial(line, columns=columns, widths=widths)
    stream.writelines(lines(rows, columns, output, text, whole, widths))


def line(texts: list[str], columns: list[Column], widths: list[int]) -> str:
    """Return one line: cells padded to their columns, two blanks between them."""
    padded = (
        pad(text, width, right=column.right)
        for text, column, width in zip(texts, columns, widths, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"
