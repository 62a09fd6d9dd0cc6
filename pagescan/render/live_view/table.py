"""Draws the table of the live view: one row per mapping, or per group of mappings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from pagescan.model.units import escape
from pagescan.render.cells import elide_middle, pad, width_of
from pagescan.render.live_view import paint
from pagescan.render.live_view.figures import Figures, LiveRow
from pagescan.render.live_view.page_map import PageMap
from pagescan.render.live_view.row_writers import RowWriters
from pagescan.render.live_view.view_state import SORTS
from pagescan.render.strip import bars, compact, signed

_NARROW = 70
_WIDE = 100
_ADDRESS = 12
_NAME = 15
_MARK = 1
_LONGEST_WRITER = 48
_RATE, _SINCE, _PRESENT, _GROWTH, _OTHER = 7, 7, 9, 8, 8


@dataclass(frozen=True, slots=True)
class Layout:
    """The widths of the parts of a row, for a width of the window; 0: left out."""

    label: int
    strip: int
    history: int = 0
    address: int = 0
    others: tuple[str, ...] = ()
    """The counts that are shown beside the present one."""
    wide: bool = True
    """Whether there is room for the history and the counts."""
    writer: int = 0
    """The function that wrote most; it takes the place of the history."""

    @classmethod
    def fit(
        cls,
        width: int,
        others: Sequence[str] = (),
        *,
        writers: bool = False,
        name: int = 0,
    ) -> "Layout":
        """Divide the width that the numbers leave between the other parts.

        Args:
            width: The width of the window.
            others: The counts beside the present one that are not zero throughout.
            writers: Whether the rows have a writer.
            name: The width of the longest name; 0: unknown.
        """
        if width < _NARROW:
            label = max(8, width // 3)
            rest = max(3, width - _MARK - label - _RATE - _SINCE - 1)
            if writers:  # in place of the strip
                return cls(label, 0, wide=False, writer=rest)
            return cls(label, rest, wide=False)
        left = width - _MARK - _RATE - _SINCE - _PRESENT - _GROWTH - 2
        if width < _WIDE:
            others = ()
        left -= _OTHER * len(others)
        address = _ADDRESS if width >= _WIDE else 0
        left -= address + (1 if address else 0)
        history = max(8, min(20, left // 6))
        # Names are what is asked for: they get what they need, up to a bound.
        label = max(_NAME, min(48, name, left * 9 // 20) if name else left // 3)
        writer = 0
        if writers:
            history, writer = 0, max(12, min(_LONGEST_WRITER, (left - label) * 3 // 5))
        strip = max(8, left - history - writer - label)
        return cls(label, strip, history, address, tuple(others), writer=writer)

    @property
    def sorts(self) -> tuple[str, ...]:
        """The columns of the window that can sort the rows."""
        return SORTS if self.wide else ("rate", "since", "address")

    def header(self, sort: str) -> Text:
        """Return the line of column names, with a mark at the column that sorts."""
        line = Text(" ", style="bold")

        def add(name: str, width: int, key: str = "", *, left: bool = False) -> None:
            if key == sort:
                name += "▾"
            text = pad(name, width) if left else pad(name, width, right=True)
            line.append(text, style=paint.RATE if key == sort else "bold")

        if self.address:
            add("address", self.address, "address", left=True)
            line.append(" ")
        add("mapping", self.label, "" if self.address else "address", left=True)
        add("per s", _RATE, "rate")
        if self.history:
            line.append(" " + pad("history", self.history))
        add("since", _SINCE, "since")
        if self.wide:
            add("present", _PRESENT, "present")
            add("growth", _GROWTH, "growth")
            for name in self.others:
                add(name, _OTHER)
        if self.writer:
            line.append(" " + pad("first writer", self.writer))
        if self.strip:
            wide = self.strip >= len(" where it wrote")
            line.append(" where it wrote" if wide else " where")
        return line

    def name(self, row: LiveRow) -> str:
        """Return the row's name, shortened to fit.

        A mapping without a name has its address there, unless that has a column.
        """
        if isinstance(row.key, str):
            count = _count_of(row)
            name = self._short(escape(row.key), self.label - len(count))
            return pad(name + count, self.label)
        mapping = row.mappings[0]
        name = escape(row.label or mapping.name)
        if not name:
            name = "[anon]"
            if not self.address:
                name = f"[anon] {mapping.start:x}"
                name = name if len(name) <= self.label else f"{mapping.start:x}"
        return pad(self._short(name, self.label), self.label)

    @staticmethod
    def _short(name: str, width: int) -> str:
        if width_of(name) > width and name.startswith("/"):
            name = os.path.basename(name) or name
        return elide_middle(name, width)


def longest(rows: Sequence[LiveRow]) -> int:
    """Return the width of the longest name of some rows; of a path, its last part."""
    return max((width_of(_short(row)) for row in rows), default=0)


def _short(row: LiveRow) -> str:
    if isinstance(row.key, str):
        return escape(os.path.basename(row.key)) + _count_of(row)
    return escape(row.label or os.path.basename(row.mappings[0].name))


def _count_of(row: LiveRow) -> str:
    """Return how many mappings the row of a group has; "" for a mapping's row."""
    return f" ×{len(row.mappings)}" if isinstance(row.key, str) else ""


def line_of(
    row: LiveRow,
    layout: Layout,
    figures: Figures,
    writers: RowWriters | None = None,
    *,
    selected: bool,
) -> Text:
    """Return the line of a row."""
    quiet = "" if row.rate > 0 else "dim"
    line = Text(style=paint.SELECTED if selected else "")
    line.append("▸" if selected else " ", style="bold bright_yellow")
    if layout.address:
        first = "" if isinstance(row.key, str) else f"{row.key:x}"
        line.append(f"{first:<{layout.address}} ", style="dim")
    line.append(layout.name(row), style="bold" if selected else quiet)
    rate, written = compact(int(row.rate)), compact(row.written)
    if figures.is_unknown(row):
        rate = written = "-"
    line.append(f"{rate:>{_RATE}}", style=quiet or paint.RATE)
    if layout.history:
        history = bars(figures.bars_of(row, layout.history), layout.history)
        line.append(f" {history}", style="yellow")
    line.append(f"{written:>{_SINCE}}", style=quiet)
    if layout.wide:
        _append_counts(line, row, layout)
    if layout.writer and writers is not None:
        cell = writers.cell(row, layout.writer)
        line.append(" " + pad(cell, layout.writer), style=quiet or paint.WRITER)
    if not layout.strip:
        return line
    line.append(" ▕", style="dim")
    line.append_text(strip_of(row, figures, layout.strip - 2))
    line.append("▏", style="dim")
    return line


def _append_counts(line: Text, row: LiveRow, layout: Layout) -> None:
    known = row.counts or {}
    present = compact(row.present) if row.counts else "-"
    line.append(f"{'gone' if row.gone else present:>{_PRESENT}}")
    growth = signed(row.growth) if row.counts else "-"
    style = "bold magenta" if row.growth > 0 else "green" if row.growth < 0 else "dim"
    line.append(f"{growth:>{_GROWTH}}", style=style)
    for name in layout.others:
        text = compact(known.get(name, 0)) if row.counts else "-"
        line.append(f"{text:>{_OTHER}}", style="dim" if text == "0" else "")


def strip_of(row: LiveRow, figures: Figures, width: int) -> Text:
    """Return the strip of a row: the places that were written, and when."""
    return paint.cells_of(page_map_of(row, figures).strip(width))


def page_map_of(row: LiveRow, figures: Figures) -> PageMap:
    """Return the page map of the mappings of a row; it is made once per look."""
    ranges = sorted((mapping.start, mapping.end) for mapping in row.mappings)
    populated = None if row.counts is None else figures.populated
    if figures.page_maps_of != figures.version:
        figures.page_maps.clear()
        figures.page_maps_of = figures.version
    key = (populated is None, *ranges)
    if (page_map := figures.page_maps.get(key)) is None:
        page_map = PageMap(ranges, populated, figures.ages, figures.page_size)
        figures.page_maps[key] = page_map
    return page_map
