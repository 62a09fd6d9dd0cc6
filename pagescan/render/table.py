"""Writes a table for a terminal: as wide as the window; the last column may be cut."""

import os
import shutil
from functools import partial
from itertools import islice
from typing import TextIO

from pagescan.model.results import Output, Report
from pagescan.render import Rows
from pagescan.render.cells import elide_middle, pad, width_of
from pagescan.render.columns import Column, show
from pagescan.render.rows import cells, chosen_columns, lines

# The first rows set the widths; a wider cell in a later row moves the rest of its line.
_LOOKED_AT = 500


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write one result; the first rows appear before the last are known."""
    columns = chosen_columns(report, rows, output)
    text = partial(show, exact=output.exact)
    first = [
        [text(value, column) for value, column in zip(values, columns, strict=True)]
        for values in islice(cells(rows, columns, output), _LOOKED_AT)
    ]
    heads = [column.header for column in columns]
    widths = [max(map(width_of, column)) for column in zip(heads, *first, strict=True)]
    room = _room_for_last(columns, widths)
    line = partial(_line, columns=columns, widths=widths, room=room)
    color = wants_color(output.color, stream)
    if output.header:
        head = line(heads)
        stream.write(f"\x1b[1m{head[:-1]}\x1b[0m\n" if color else head)
    stream.writelines(lines(rows, columns, output, text, line, widths))


def _room_for_last(columns: list[Column], widths: list[int]) -> int:
    window = shutil.get_terminal_size().columns
    return max(8, window - sum(widths[:-1]) - 2 * (len(columns) - 1))


def _line(texts: list[str], columns: list[Column], widths: list[int], room: int) -> str:
    padded = [
        pad(text, width, right=column.right)
        for text, column, width in zip(texts, columns, widths, strict=True)
    ]
    if columns[-1].unit == "text":
        padded[-1] = elide_middle(texts[-1], room)
    return "  ".join(padded).rstrip() + "\n"


def wants_color(chosen: bool | None, stream: TextIO) -> bool:
    """Whether to use colour: --color, NO_COLOR, FORCE_COLOR, isatty decide in turn."""
    if chosen is not None:
        return chosen
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
