"""Draws one mapping over the whole window: which pages were written, and when."""

from typing import NamedTuple

from rich.text import Text

from pagescan.model.units import escape, format_seconds, plural
from pagescan.render.cells import elide_middle
from pagescan.render.live_view import paint
from pagescan.render.live_view.figures import Figures, LiveRow
from pagescan.render.live_view.page_map import Cell, PageMap
from pagescan.render.live_view.row_writers import RowWriters
from pagescan.render.live_view.table import page_map_of
from pagescan.render.live_view.view_state import MapState, Shown
from pagescan.render.strip import bars, compact, signed

_ADDRESS = 13
_HEAD, _FOOT = 2, 1
_STEP = 16  # cells: so the addresses of lines are round
_HISTORY = 16
_WIDEST = 4


class MapScreen(NamedTuple):
    """The page map of a mapping, as a window of some size shows it."""

    row: LiveRow
    figures: Figures
    state: MapState
    width: int
    height: int
    page_map: PageMap
    writers: RowWriters | None = None

    @classmethod
    def of(
        cls,
        row: LiveRow,
        figures: Figures,
        state: MapState,
        size: tuple[int, int],
        writers: RowWriters | None = None,
    ) -> "MapScreen":
        """Divide the mapping for a window.

        Args:
            row: The mapping.
            figures: The facts about its pages.
            state: The part that is shown.
            size: Columns and lines of the window, without head and foot.
            writers: The writers of the last look; None: they have no line.
        """
        page_map = page_map_of(row, figures)
        return cls(row, figures, state, *size, page_map, writers)

    @property
    def columns(self) -> int:
        """Cells per line."""
        return _columns(self.width)

    @property
    def shown(self) -> Shown:
        """The size of the map, for the keys."""
        lines = max(1, self._room)
        return Shown(
            pages=self.page_map.pages,
            columns=self.columns,
            cells=max(1, min(self.columns * lines, self._pages)),
        )

    @property
    def _room(self) -> int:
        """The lines that the cells may take."""
        return self.height - _HEAD - _FOOT - (self.writers is not None)

    @property
    def _first(self) -> int:
        return min(self.state.first, max(0, self.page_map.pages - 1))

    @property
    def _pages(self) -> int:
        """The number of shown pages."""
        left = self.page_map.pages - self._first
        return min(self.state.pages or left, left)

    def lines(self) -> list[Text]:
        """Return the lines of the map."""
        shown = self.shown
        borders = self.page_map.borders(self._first, self._pages, shown.cells)
        cells = self.page_map.cells(self._first, self._pages, shown.cells)
        head = self._head()
        if not cells:
            return [*head, Text("no page of it is populated", style="dim")]
        at = self._cursor(borders)
        lines = _blocks(self.page_map, borders, cells, self.columns, at)
        room = self._room
        lines = lines[:room] + [Text()] * (room - len(lines))
        return [*head, *lines, self._under_cursor(*borders[at])]

    def _cursor(self, borders: list[tuple[int, int]]) -> int:
        """Return the cell under the cursor."""
        for index, (low, high) in enumerate(borders):
            if low <= self.state.cursor < high:
                return index
        return 0

    def _head(self) -> list[Text]:
        row = self.row
        if not row.mappings:
            return [Text("this mapping is gone", style="dim"), Text()]
        mapping = row.mappings[0]
        span = f"{mapping.start:x}-{mapping.end:x} {mapping.perms} "
        part = f"  {self.page_map.pages:,} pages populated"
        if self.state.pages:
            last = self._first + self._pages
            part = f"  pages {self._first:,} to {last:,} of {self.page_map.pages:,}"
        room = max(8, self.width - len(span) - len(part))
        name = elide_middle(escape(row.name), room)
        figures = Text.assemble(
            ("per s ", "dim"),
            (f"{compact(int(row.rate))} ", paint.RATE),
            (bars(self.figures.bars_of(row, _HISTORY), _HISTORY), "yellow"),
            ("  since ", "dim"),
            compact(row.written),
            ("  present ", "dim"),
            compact(row.present) if row.counts else "-",
            ("  growth ", "dim"),
            signed(row.growth) if row.counts else "-",
        )
        title = Text.assemble((span, "dim"), (name, "bold cyan"), (part, "dim"))
        if self.writers is None:
            return [title, figures]
        return [title, figures, Text(self.writers.line(row, self.width), paint.WRITER)]

    def _under_cursor(self, low: int, high: int) -> Text:
        start, end = self.page_map.range_of(low, high)
        count, time = self.page_map.written(low, high)
        text = f"{start:x}-{end:x}: {count} of {plural(high - low, 'page')} written"
        if time is not None:
            ago = self.figures.ages.time - time
            when = "in the last look" if ago <= 0 else f"{format_seconds(ago)} ago"
            text += f", the last {when}"
        return Text.assemble(("▸ ", "bold bright_yellow"), text)


def map_lines(
    row: LiveRow, figures: Figures, width: int, most: int
) -> tuple[list[Text], int, int]:
    """Return the page map of a row in up to `most` lines, without a cursor.

    Returns:
        The lines, the number of populated pages, and the most pages per cell.
    """
    page_map = page_map_of(row, figures)
    columns = _columns(width)
    count = max(1, min(page_map.pages, columns * most))
    borders = page_map.borders(0, page_map.pages, count)
    cells = page_map.cells(0, page_map.pages, count)
    lines = _blocks(page_map, borders, cells, columns)
    return lines, page_map.pages, -(-page_map.pages // count)


def _columns(width: int) -> int:
    """Return the number of cells per line."""
    room = max(1, width - _ADDRESS - 1)
    return room - room % _STEP if room > _STEP else room


def _blocks(
    page_map: PageMap,
    borders: list[tuple[int, int]],
    cells: list[Cell],
    columns: int,
    at: int | None = None,
) -> list[Text]:
    """Return the lines of cells, each with its address; `at`: the one to mark."""
    # A mapping of a few pages still fills some of its line.
    wide = max(1, min(_WIDEST, columns // max(1, len(cells))))
    lines = []
    for first in range(0, len(cells), columns):
        address = page_map.address(borders[first][0])
        line = Text(f"{address:>{_ADDRESS - 1}x} ", style="dim")
        part = cells[first : first + columns]
        blocks = paint.cells_of([cell for cell in part for _ in range(wide)], "·")
        if at is not None and first <= at < first + columns:
            cursor = (at - first) * wide
            blocks.stylize("reverse bold", cursor, cursor + wide)
        line.append_text(blocks)
        lines.append(line)
    return lines
