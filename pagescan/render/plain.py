"""Columns of fixed width for a pipe: nothing wrapped or cut, no row waited for."""

from functools import partial
from typing import TextIO

from pagescan.columns import Column, show
from pagescan.model import Output, Report
from pagescan.render import Rows
from pagescan.render.rows import chosen_columns, lines


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result."""
    columns = chosen_columns(report, rows, output)
    if output.header:
        stream.write(line([column.header for column in columns], columns))
    text = partial(show, exact=output.exact)
    whole = partial(line, columns=columns)
    stream.writelines(lines(rows, columns, output, text, whole))


def line(texts: list[str], columns: list[Column]) -> str:
    """Return one line: cells at least as wide as their columns, two blanks between."""
    padded = (
        text.rjust(max(column.width, len(column.header)))
        if column.right
        else text.ljust(max(column.width, len(column.header)))
        for text, column in zip(texts, columns, strict=True)
    )
    return "  ".join(padded).rstrip() + "\n"
