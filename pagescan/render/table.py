"""A table for a terminal: as wide as the window, the mapping last and elided."""

import os
import shutil
from itertools import chain, islice
from typing import TextIO

from pagescan.columns import Column, show
from pagescan.model import Output, Report
from pagescan.render import Rows
from pagescan.render.rows import cells, chosen_columns

# The widths are taken from so many rows; a later one that is wider pushes its line.
_LOOKED_AT = 500


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result, row by row."""
    columns = chosen_columns(report, rows, output)
    texts = (
        [
            show(value, column, exact=output.exact)
            for value, column in zip(values, columns, strict=True)
        ]
        for values in cells(rows, columns, output)
    )
    first = list(islice(texts, _LOOKED_AT))
    widths = [
        max(len(text) for text in column)
        for column in zip([column.header for column in columns], *first, strict=True)
    ]
    room = _room_for_last(columns, widths)
    color = wants_color(output.color, stream)
    if output.header:
        head = _line([column.header for column in columns], columns, widths, room)
        stream.write(f"\x1b[1m{head}\x1b[0m\n" if color else f"{head}\n")
    for row in chain(first, texts):
        text = _line(row, columns, widths, room)
        stream.write(text + "\n")


def _room_for_last(columns: list[Column], widths: list[int]) -> int:
    window = shutil.get_terminal_size().columns
    return max(8, window - sum(widths[:-1]) - 2 * (len(columns) - 1))


def _line(texts: list[str], columns: list[Column], widths: list[int], room: int) -> str:
    padded = [
        text.rjust(width) if column.right else text.ljust(width)
        for text, column, width in zip(texts, columns, widths, strict=True)
    ]
    if columns[-1].unit == "text":
        padded[-1] = elide_middle(texts[-1], room)
    return "  ".join(padded).rstrip()


def elide_middle(text: str, width: int) -> str:
    """Return text that fits: its ends tell more than its middle."""
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    head = width - 1 - tail
    return f"{text[:head]}…{text[-tail:]}" if tail else text[:width]


def wants_color(chosen: bool | None, stream: TextIO) -> bool:
    """Whether to use colour: --color beats NO_COLOR beats FORCE_COLOR beats isatty."""
    if chosen is not None:
        return chosen
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
