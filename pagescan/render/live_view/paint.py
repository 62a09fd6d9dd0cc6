"""The colours of the live view, and the lines that are made of cells and of keys."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from rich.text import Text

from pagescan.render.live_view.ages import NEVER
from pagescan.render.live_view.page_map import Cell
from pagescan.render.strip import log_block

BAR = "white on grey23"
KEY = "bold bright_yellow on grey23"
RATE = "bold yellow"
SELECTED = "on grey23"
WARNING = "bold white on red"
WRITER = "bright_cyan"
NOTE = "bold bright_yellow"
AGES = ("color(203)", "color(215)", "color(67)", "color(242)", "color(239)")
"""By class of age, the newest first; the last one is for pages never written."""
_AGE_NAMES = ("last look", "10 s", "1 min", "older")
_SCALE = "▁ 0.1% ▃ 1% ▆ 10% █ all pages of a cell"
_SHORT_SCALE = "▁ 0.1% ▃ 1% ▆ 10% █ all"


def cells_of(cells: Iterable[Cell], never: str = " ") -> Text:
    """Return cells as block characters: the height is the share, the colour the age."""
    line = Text()
    for age, run in groupby(cells, key=lambda cell: cell.age):
        if age == NEVER:
            line.append(never * len(list(run)), style=AGES[NEVER])
        else:
            blocks = "".join(log_block(cell.share) for cell in run)
            line.append(blocks, style=AGES[age])
    return line


def legend(width: int) -> Text:
    """Return the meaning of heights and colours, as much of it as fits."""
    ages = Text()
    for name, style in zip(_AGE_NAMES, AGES, strict=False):
        ages.append(" █", style=style)
        ages.append(f" {name}", style="dim")
    scale = next(
        (text for text in (_SCALE, _SHORT_SCALE) if len(text) + 2 + len(ages) <= width),
        "",
    )
    if not scale:
        return ages
    return Text.assemble((scale, "dim"), "  ", ages)


def keys_line(keys: Sequence[tuple[str, str]], width: int) -> Text:
    """Return keys with their meaning, as many as fit, and closer if not all do."""
    line = Text(style=BAR)
    whole = sum(len(key) + len(word) + 3 for key, word in keys) - 2
    for key, word in keys:
        gap = "" if not line else "  " if whole <= width else " "
        if len(line) + len(gap) + len(key) + len(word) + 1 > width:
            continue
        line.append(gap, style=BAR)
        line.append(key, style=KEY)
        line.append(f" {word}", style=BAR)
    return bar(line, width)


def bar(line: Text, width: int) -> Text:
    """Return a line that fills the width of the window with its background."""
    line.truncate(width)
    line.append(" " * (width - line.cell_len), style=BAR)
    return line
