"""The live view of `watch` and `demo`: its content, for the present size of the window.

It is redrawn at each look, at each key and at each change of the window's size.
"""

import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from pagescan.model.batch import Batch
from pagescan.model.looks import Tick, WatchedFacts
from pagescan.model.results import MappingCounts
from pagescan.model.units import (
    escape,
    format_size,
    plural,
)
from pagescan.render.cells import elide_middle, fit_path, width_of
from pagescan.render.live_view import help_screen, paint, table
from pagescan.render.live_view.cost_line import cost_of_target
from pagescan.render.live_view.figures import HISTORY, Figures, LiveRow
from pagescan.render.live_view.map_screen import MapScreen, map_lines
from pagescan.render.live_view.messages import Messages
from pagescan.render.live_view.ordered_rows import OrderedRows
from pagescan.render.live_view.row_writers import RowWriters
from pagescan.render.live_view.view_state import Shown, ViewState, index_of, press
from pagescan.render.strip import bars, signed

_HEAD = 3
_TALL = 16  # lines of a window that has room for a foot of four
_ROOM = 6  # lines that the table leaves, from which on the page map takes them
_PREVIEW = 16
TABLE_KEYS = (
    ("q", "quit"),
    ("?", "help"),
    ("↑↓⏎", "map"),
    ("s", "sort"),
    ("/", "filter"),
    ("h", "idle"),
    ("g", "group"),
    ("w", "who"),
    ("p", "pause"),
    ("+-", "interval"),
)
_MAP_KEYS = (
    ("Esc", "back"),
    ("←↑↓→", "move"),
    ("⏎", "zoom in"),
    ("⌫", "out"),
    ("w", "who"),
    ("p", "pause"),
    ("+-", "interval"),
    ("?", "help"),
    ("q", "quit"),
)


class LiveView:
    """The content of the screen; call `update` after each look, then redraw.

    Attributes:
        watched: The facts of the target.
        state: The user's choices.
        has_keys: Whether there is a keyboard.
        begun: The moment from which the sums count.
        writers: The writers of the last look, shown while the state says so.
        seconds_left: The seconds to the next look; None: they are not counted.
        messages: The messages about the target since the view has been shown.
        before: What has to be done before the first look; "": nothing.
    """

    def __init__(
        self, watched: WatchedFacts, interval: float, *, note: str = ""
    ) -> None:
        """Show one target; `note` is shown in the head line."""
        self.watched = watched
        self.note = note
        self.state = ViewState(interval=interval)
        self.figures = Figures(watched.target.page_size)
        self.tick: Tick | None = None
        self.has_keys = False
        self.begun = "start"
        self.writers = RowWriters()
        self.seconds_left: int | None = None
        self.messages = Messages()
        self.before = ""
        self._ordered = OrderedRows(self.figures)
        self._top = self._wide = 0
        self._size = (80, 24)

    def set_counts(
        self,
        counts: Sequence[MappingCounts],
        found: Batch,
        labels: dict[int, str] | None = None,
    ) -> None:
        """Update what is present: each mapping's counts, regions and label."""
        if self.before:  # its rows are those of the largest mappings
            self.figures = Figures(self.watched.target.page_size)
            self._ordered = OrderedRows(self.figures)
        self.figures.set_counts(counts, found, labels)

    def update(self, tick: Tick) -> None:
        """Update the view from the look of a tick."""
        self.tick, self.seconds_left = tick, None
        self.figures.add(tick, time.monotonic())

    def press(self, keys: Sequence[str]) -> None:
        """Change the view according to the keys."""
        self.writers.note = ""
        for key in keys:
            self.state = press(self.state, key, self._shown())

    def _shown(self) -> Shown:
        width, height = self._size
        if (map_screen := self._map_screen(width, height)) is not None:
            return map_screen.shown
        rows = self._ordered.of(self.state)
        sorts = table.Layout.fit(width).sorts
        return Shown([row.key for row in rows], self._room(height), sorts=sorts)

    @staticmethod
    def _foot_height(height: int) -> int:
        return 4 if height >= _TALL else 2

    def _room(self, height: int) -> int:
        """Return how many rows the table has room for."""
        return max(1, height - _HEAD - 2 - self._foot_height(height))

    def _map_screen(self, width: int, height: int) -> MapScreen | None:
        if self.state.map is None:
            return None
        room = height - _HEAD - self._foot_height(height) // 2
        row = self.figures.rows.get(self.state.map.start)
        if row is None:  # the mapping is gone, and was never written
            row = LiveRow(self.state.map.start, [], gone=True)
        writers = self.writers if self.state.writers else None
        size = (width, room)
        return MapScreen.of(row, self.figures, self.state.map, size, writers)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the view for the present size of the window."""
        width, height = self._size = console.size
        lines = self._head(width)
        foot = self._foot(width, height)
        if self.state.help:
            lines = [lines[0], Text(), *help_screen.lines()]
            foot = foot[-1:]
        elif (map_screen := self._map_screen(width, height)) is not None:
            lines += map_screen.lines()
        else:
            lines += self._table(width, height)
            room = height - len(lines) - len(foot) - 1
            foot = self._selected_row(width, height, room) + foot
        lines = lines[: max(0, height - len(foot))]
        lines += [Text()] * (height - len(foot) - len(lines))
        lines += foot
        for line in lines:
            line.truncate(width)
        yield Text("\n").join(lines[:height])

    def _head(self, width: int) -> list[Text]:
        return [self._title(width), self._sums(width), self._meaning(width)]

    def _title(self, width: int) -> Text:
        watched, state = self.watched, self.state
        target = f"{watched.target.pid} {escape(watched.target.name)}"
        title = Text.assemble(
            (" pagescan ", "bold white on grey23"),
            (f"{target} ", "bold bright_cyan on grey23"),
        )
        if state.paused:
            title.append(" PAUSED ", style="bold black on bright_yellow")
        if state.within is not None:
            title.append(f" in {escape(state.within)} ", style=paint.KEY)
        if state.filter:
            title.append(f" filter: {escape(state.filter)} ", style=paint.KEY)
        interval = f" every {state.interval:g} s"
        tracked = f"  tracking {format_size(watched.tracked_bytes)}"
        note = f"  {self.note}" if self.note else ""
        fits = title.cell_len + len(interval + tracked + note) <= width
        if not (watched.is_armed and fits):
            tracked = ""  # the note is on no other line
        title.append(interval + tracked + note, style=paint.BAR)
        return paint.bar(title, width)

    def _sums(self, width: int) -> Text:
        figures = self.figures
        rate = f"{format_size(int(figures.rates[-1]))}/s" if figures.rates else "-"
        total = self.tick.totals.bytes if self.tick else 0
        rows = figures.rows.values()
        behind = Text.assemble((f"  since {self.begun} ", "dim"), format_size(total))
        if figures.populated is not None:
            behind.append("  present ", style="dim")
            behind.append(format_size(sum(row.present for row in rows)))
            if growth := sum(row.growth for row in rows):
                style = "bold magenta" if growth > 0 else "green"
                behind.append(f" {signed(growth)}", style=style)
        front = Text.assemble(("written ", "dim"), (f"{rate} ", "bold yellow"))
        room = max(0, min(HISTORY, width - len(front) - len(behind)))
        return Text.assemble(front, (bars(figures.rates, room), "yellow"), behind)

    def _meaning(self, width: int) -> Text:
        """Return the meaning of the rate: distinct pages, once per look each.

        A note about the writers takes its place, until the next key, or a message.
        """
        if self.before:
            return Text(self.before, style=paint.NOTE, overflow="ellipsis")
        if note := self.writers.note or escape(self.messages.newest):
            return Text(note, style=paint.NOTE, overflow="ellipsis")
        if self.tick is None:
            return first_look(self.state, self.seconds_left)
        pages = f"{counted(self.figures.pages, 'distinct page')} in the last look"
        if sureness := self._sureness():
            pages = f"distinct pages per look, {sureness}"
        parts = [pages, "a longer interval gives a lower rate"]
        if self.seconds_left is not None:
            parts.insert(1, f"the next in {self.seconds_left} s")
        while len("; ".join(parts)) > width and len(parts) > 1:
            parts.pop()
        return Text("; ".join(parts), style="dim")

    def _sureness(self) -> str:
        estimate = self.tick.look.estimate if self.tick and self.tick.look else None
        if estimate is None:
            return ""
        part = f"from {estimate.share:.0%} of memory"
        margin = (estimate.high - estimate.low) / 2
        if margin <= estimate.pages:
            return f"estimated ±{margin / max(1, estimate.pages):.0%} {part}"
        most = estimate.high * self.watched.target.page_size
        return f"estimated {part}, at most {format_size(most)}"

    def _table(self, width: int, height: int) -> list[Text]:
        rows = self._ordered.of(self.state)
        room = self._room(height)
        at = index_of(self.state, [row.key for row in rows])
        self._top = max(0, min(self._top, len(rows) - room, at))
        self._top = max(self._top, at - room + 1)
        others = [name for name in ("swapped", "file") if self._ordered.has(name)]
        shown = rows[self._top : self._top + room]
        wide = max(self._wide, table.longest(shown))
        self._wide = wide  # never less: else the columns would move from look to look
        layout = table.Layout.fit(width, others, writers=self.state.writers, name=wide)
        lines = [layout.header(self.state.sort)]
        lines += [
            table.line_of(
                row,
                layout,
                self.figures,
                self.writers,
                selected=index + self._top == at,
            )
            for index, row in enumerate(shown)
        ]
        if rest := self._rest(rows[self._top + room :], width):
            lines.append(rest)
        return lines

    def _rest(self, below: Sequence[LiveRow], width: int) -> Text | None:
        """Return a line about the mappings outside the table: whole facts, as fit."""
        if self.before:  # most mappings have not been counted
            return None
        parts = []
        if self._top:
            parts.append(f"{self._top} above")
        if below:
            size = format_size(sum(row.written for row in below))
            written = f", written {size}" if self.tick else ""
            parts.append(f"{len(below)} below{written}")
        hidden = self._ordered.hidden(self.state)
        hint = " (h)" if self.has_keys else ""
        if hidden.filtered:
            parts.append(f"{hidden.filtered} without “{escape(self.state.filter)}”")
        if hidden.idle:
            parts.append(f"{hidden.idle} never written{hint}")
        if hidden.unknown:
            parts.append(f"{hidden.unknown} not looked at yet")
        if hidden.gone:
            size = format_size(hidden.gone_written)
            parts += [f"{hidden.gone} unmapped{hint}", f"{size} written to these"]
        if not parts:
            return None
        while len(parts) > 1 and width_of("; ".join(parts)) > width - 2:
            parts.pop()
        return Text(f"… {'; '.join(parts)}", style="dim")

    def _selected_row(self, width: int, height: int, room: int) -> list[Text]:
        """Return the facts of the selected row, and its page map if there is room."""
        line = self._selected_line(width, height)
        rows = self._ordered.of(self.state)
        if room < _ROOM or not rows:
            return line
        row = rows[index_of(self.state, [row.key for row in rows])]
        page_map, pages, per_cell = map_lines(
            row, self.figures, width, min(room - 1, _PREVIEW)
        )
        if page_map:
            count, part = counted(pages, "page"), f"up to {per_cell} per cell"
            texts = (f"{count} populated, {part}", f"{count}, {part}", count, "")
            left = width - line[0].cell_len - 2
            text = next(text for text in texts if len(text) <= max(0, left))
            line[0].append(f"  {text}", style="dim")
        return [*line, *page_map]

    def _selected_line(self, width: int, height: int) -> list[Text]:
        """Return the facts of the selected row that do not fit into the table."""
        if height < _TALL:
            return []
        rows = self._ordered.of(self.state)
        if not rows:
            return [Text()]
        row = rows[index_of(self.state, [row.key for row in rows])]
        mark = ("▸ ", "bold bright_yellow")
        if isinstance(row.key, str):
            size = format_size(sum(mapping.length for mapping in row.mappings))
            count = plural(len(row.mappings), "mapping")
            return [Text.assemble(mark, f"{escape(row.key)}: {count}, {size}")]
        mapping = row.mappings[0]
        span = f"{mapping.start:x}-{mapping.end:x} {mapping.perms} "
        span += f"{format_size(mapping.length)} "
        room = width - len(span) - 2
        if self.state.writers and (text := self.writers.sentence(row, room)):
            return [Text.assemble(mark, span, (text, paint.WRITER))]
        name = elide_middle(escape(row.name), max(8, room))
        return [Text.assemble(mark, span, (name, "bold cyan"))]

    def _foot(self, width: int, height: int) -> list[Text]:
        sampled = self.state.writers
        cost = Text()
        if self.watched.is_armed:
            cost = cost_of_target(self.watched, self.tick, width, sampled=sampled)
        keys = self._keys(width)
        if height < _TALL:
            return [cost, keys] if self.state.map is None else [keys]
        if self.state.map is not None:
            return [paint.legend(width), keys]
        return [paint.legend(width), cost, keys]

    def _keys(self, width: int) -> Text:
        if self.state.typing:
            text = f" filter: {escape(self.state.filter)}▏  Enter keeps it, Esc clears"
            return paint.bar(Text(text, style=paint.BAR), width)
        if not self.has_keys:
            return Text("Ctrl-C ends it", style="dim")
        if self.state.help:
            return paint.keys_line([("any key", "back"), ("q", "quit")], width)
        keys = TABLE_KEYS if self.state.map is None else _MAP_KEYS
        return paint.keys_line(keys, width)


def first_look(state: ViewState, seconds_left: int | None) -> Text:
    """Return the line that says that no look has been taken, and when one comes."""
    if state.paused:
        return Text("no look yet: p goes on", style=paint.NOTE)
    seconds = f"{state.interval:g}" if seconds_left is None else str(seconds_left)
    text = f"first look in {seconds} s"
    if seconds_left is not None:
        text += ": until then, what is present"
    return Text(text, style=paint.NOTE)


def counted(count: int, noun: str) -> str:
    """Return a count with its noun; thousands have separators."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def summary_lines(view: LiveView, width: int, *, most: int = 8) -> list[str]:
    """Return lines to print after the view: the mappings that were written most.

    Args:
        view: The view.
        width: The width of the window.
        most: The number of mappings.
    """
    rows = sorted(view.figures.written.values(), key=lambda row: -row.written)[:most]
    rows = [row for row in rows if row.written]
    if not rows:
        return []
    written = "estimated" if view.figures.estimated else "written"
    lines = [f"{written:>10}  {'present':>9}  {'growth':>9}  mapping"]
    for row in rows:
        known = row.counts is not None
        present = "gone" if row.gone else format_size(row.present) if known else "-"
        growth = signed(row.growth) if known else "-"
        figures = f"{format_size(row.written):>10}  {present:>9}  {growth:>9}  "
        span = f"{row.mappings[0].start:x}-{row.mappings[0].end:x}"
        room = width - len(figures) - len(span) - 2
        name = fit_path(escape(row.name), max(12, room))
        lines.append(f"{figures}{name}  {span}")
    return lines
