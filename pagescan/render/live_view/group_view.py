"""The live view of a group: one row per process; Enter shows its mappings."""

from collections.abc import Callable, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from pagescan.model.groups import GroupTick
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import (
    escape,
    format_seconds,
    format_size,
    format_time,
    plural,
)
from pagescan.render.cells import elide_middle, fit_path, width_of
from pagescan.render.live_view import help_screen, paint
from pagescan.render.live_view.cost_line import cost_line, share_of, warnings
from pagescan.render.live_view.figures import HISTORY
from pagescan.render.live_view.group_figures import GroupFigures, ProcessRow
from pagescan.render.live_view.group_table import GroupLayout
from pagescan.render.live_view.messages import Messages
from pagescan.render.live_view.view import LiveView, counted, first_look
from pagescan.render.live_view.view_state import Shown, ViewState, index_of, press
from pagescan.render.strip import bars, compact, signed, tall_bars

_HEAD = 3
_TALL = 16  # lines of a window that has room for a foot of three
_LEAST, _CHART = 5, 12  # lines of the chart of the selected process
_SCALE = 7
KEYS = (
    ("q", "quit"),
    ("?", "help"),
    ("↑↓⏎", "mappings"),
    ("s", "sort"),
    ("/", "filter"),
    ("h", "hidden"),
    ("p", "pause"),
    ("+-", "interval"),
)
_ORDERS: dict[str, Callable[[ProcessRow], tuple[float, ...]]] = {
    "rate": lambda row: (-row.rate, -row.written, row.pid),
    "since": lambda row: (-row.written, row.pid),
    "growth": lambda row: (-row.growth, row.pid),
    "present": lambda row: (-row.present, row.pid),
    "address": lambda row: (row.pid,),
}


class GroupView:
    """The content of the screen: the table of processes, or the view of one of them.

    Attributes:
        title: The group, for the head line.
        note: A text at the end of the head line; "": none.
        words: The options that select the group, for a command to copy.
        state: The user's choices.
        figures: The figures of the processes.
        inside: The pid of the process whose mappings are shown; None: the table.
        views: The views of the processes that have been entered, by pid.
        has_keys: Whether there is a keyboard.
        budget: The percentage of --budget; None: everything is tracked.
        seconds_left: The seconds to the next look; None: they are not counted.
        messages: The messages about the target since the view has been shown.
    """

    def __init__(self, title: str, interval: float, *, note: str = "") -> None:
        """Show a group; `note` is a text for the head line."""
        self.title = title
        self.note = note
        self.words = ""
        self.state = ViewState(interval=interval)
        self.figures = GroupFigures()
        self.inside: int | None = None
        self.views: dict[int, LiveView] = {}
        self.has_keys = False
        self.budget: float | None = None
        self.seconds_left: int | None = None
        self.messages = Messages()
        self.tick: GroupTick | None = None
        self.open: Callable[[int], LiveView | None] = lambda _: None
        self._top = self._wide = 0
        self._size = (80, 24)
        self._notice = ""  # about the last key

    def update(self, tick: GroupTick) -> None:
        """Update the view from a tick."""
        self.tick, self.seconds_left = tick, None
        self.figures.add(tick)

    def press(self, keys: Sequence[str]) -> None:
        """Change the view according to the keys."""
        for key in keys:
            self._notice = ""
            if self.inside is None:
                self._press_in_table(key)
            else:
                self._press_inside(self.views[self.inside], key)

    def _press_in_table(self, key: str) -> None:
        state, rows = self.state, self._rows()
        plain = not state.typing and not state.help
        if key == "g" and plain:
            return
        if key == "w" and plain:
            who = f"pagescan who {self.words}".rstrip()
            self._notice = f"w: {who} names the writers, after q"
            return
        if key == "enter" and plain:
            if rows:
                self._enter(rows[index_of(state, [row.pid for row in rows])])
            return
        width, height = self._size
        sorts = self._layout(width).sorts
        shown = Shown([row.pid for row in rows], self._room(height), sorts=sorts)
        self.state = press(state, key, shown)

    def _enter(self, row: ProcessRow) -> None:
        self.state = self.state._replace(selected=row.pid)
        if row.pid not in self.views:
            view = None if row.gone else self.open(row.pid)
            if view is None:
                self._notice = "its mappings are gone" if row.gone else ""
                return
            self.views[row.pid] = view
        view = self.views[row.pid]
        view.has_keys, view.messages = self.has_keys, self.messages
        view.state = view.state._replace(
            interval=self.state.interval, paused=self.state.paused
        )
        self.inside = row.pid

    def _press_inside(self, view: LiveView, key: str) -> None:
        state = view.state
        busy = state.typing or state.help or state.map is not None or state.filter
        if key in ("escape", "backspace") and not busy and state.within is None:
            self.inside = None
            return
        view.press([key])
        if view.state.writers:
            view.state = view.state._replace(writers=False)
            who = f"pagescan watch {self.inside}"
            view.writers.note = f"w: {who} names the writers, after q"
        self.state = self.state._replace(
            interval=view.state.interval,
            paused=view.state.paused,
            ended=view.state.ended,
        )

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the view for the present size of the window."""
        width, height = self._size = console.size
        if self.inside is not None:
            view = self.views[self.inside]
            view.seconds_left = self.seconds_left
            yield from view.__rich_console__(console, options)
            return
        lines = [self._title(width)]
        foot = self._foot(width, height)
        if self.state.help:
            lines += [Text(), *help_screen.lines_of_group()]
            foot = foot[-1:]
        else:
            lines += [self._sums(width), self._meaning(width), *self._table(width)]
            if height >= _TALL:
                room = min(height - len(lines) - len(foot) - 1, _CHART)
                foot[1:1] = self._course(width, room)
        lines = lines[: max(0, height - len(foot))]
        lines += [Text()] * (height - len(foot) - len(lines))
        lines += foot
        for line in lines:
            line.truncate(width)
        yield Text("\n").join(lines[:height])

    def _rows(self) -> list[ProcessRow]:
        state = self.state
        rows = [
            row
            for row in self.figures.rows.values()
            if (state.idle or not row.aside) and _matches(row, state.filter.lower())
        ]
        return sorted(rows, key=_ORDERS[state.sort])

    def _room(self, height: int) -> int:
        """Return how many rows the table has room for."""
        return max(1, height - _HEAD - 2 - self._foot_height(height))

    @staticmethod
    def _foot_height(height: int) -> int:
        return 3 if height >= _TALL else 2

    def _title(self, width: int) -> Text:
        state = self.state
        there = sum(not row.gone for row in self.figures.rows.values())
        behind = f" every {state.interval:g} s  {plural(there, 'process')}"
        note = f"  {self.note}" if self.note else ""
        if len(" pagescan  " + self.title + behind + note) > width and note:
            behind = f" every {state.interval:g} s"  # the note is on no other line
        room = max(12, width - len(behind + note) - len(" pagescan  "))
        title = Text.assemble(
            (" pagescan ", "bold white on grey23"),
            (f"{elide_middle(self.title, room)} ", "bold bright_cyan on grey23"),
        )
        if state.paused:
            title.append(" PAUSED ", style="bold black on bright_yellow")
        if state.filter:
            title.append(f" filter: {escape(state.filter)} ", style=paint.KEY)
        title.append(behind + note, style=paint.BAR)
        return paint.bar(title, width)

    def _sums(self, width: int) -> Text:
        figures = self.figures
        rate = f"{format_size(int(figures.rates[-1]))}/s" if figures.rates else "-"
        total = self.tick.totals.bytes if self.tick else 0
        behind = Text.assemble(("  since start ", "dim"), format_size(total))
        if figures.populated is not None:
            present = figures.populated.present * PAGE_SIZE
            behind.append("  present ", style="dim")
            behind.append(format_size(present))
            if growth := present - (figures.first or 0):
                style = "bold magenta" if growth > 0 else "green"
                behind.append(f" {signed(growth)}", style=style)
        front = Text.assemble(("written ", "dim"), (f"{rate} ", "bold yellow"))
        room = max(0, min(HISTORY, width - len(front) - len(behind)))
        return Text.assemble(front, (bars(figures.rates, room), "yellow"), behind)

    def _meaning(self, width: int) -> Text:
        if message := self.messages.newest:
            return Text(escape(message), style=paint.NOTE, overflow="ellipsis")
        tick = self.tick
        if tick is None:
            return first_look(self.state, self.seconds_left)
        parts = [counted(tick.summary.pages, "distinct page") + " in the last look"]
        if self.seconds_left is not None:
            parts.append(f"the next in {self.seconds_left} s")
        if tick.short_lived:
            parts.append(f"{tick.short_lived} lived too short for a look")
        parts.append("in the sums shared memory counts once")
        while len("; ".join(parts)) > width and len(parts) > 1:
            parts.pop()
        return Text("; ".join(parts), style="dim")

    def _table(self, width: int) -> list[Text]:
        rows = self._rows()
        room = self._room(self._size[1])
        at = index_of(self.state, [row.pid for row in rows])
        self._top = max(0, min(self._top, len(rows) - room, at))
        self._top = max(self._top, at - room + 1)
        layout = self._layout(width)
        shown = rows[self._top : self._top + room]
        lines = [layout.header(self.state.sort)]
        lines += [
            layout.line(row, self.figures, selected=index + self._top == at)
            for index, row in enumerate(shown)
        ]
        if rest := self._rest(rows[self._top + room :], width):
            lines.append(Text(rest, style="dim"))
        return lines

    def _layout(self, width: int) -> GroupLayout:
        swaps = any(row.swapped for row in self.figures.rows.values())
        names = (width_of(row.name) for row in self._rows())
        self._wide = max(self._wide, *names, 0)  # never less: else columns would move
        return GroupLayout.fit(width, swaps=swaps, name=self._wide)

    def _rest(self, below: Sequence[ProcessRow], width: int) -> str:
        """Return the words about the processes outside the table; "": all are in it."""
        parts = [f"{self._top} above"] if self._top else []
        if below:
            size = format_size(sum(row.written for row in below))
            parts.append(f"{len(below)} below, written {size}")
        rows = self.figures.rows.values()
        if self.state.filter:
            others = sum(not _matches(row, self.state.filter.lower()) for row in rows)
            parts.append(f"{others} without “{escape(self.state.filter)}”")
        hint = " (h)" if self.has_keys else ""
        if not self.state.idle:
            if self.tick is not None and self.tick.gone:
                size = format_size(self.figures.written_by_gone)
                parts.append(f"{self.tick.gone} gone, these wrote {size}{hint}")
            if refused := sum(bool(row.why) for row in rows):
                parts.append(f"{refused} not tracked{hint}")
        while len(parts) > 1 and width_of("; ".join(parts)) > width - 2:
            parts.pop()
        return f"… {'; '.join(parts)}" if parts else ""

    def _foot(self, width: int, height: int) -> list[Text]:
        foot = [self._cost(width), self._keys(width)]
        return [self._selected(width), *foot] if height >= _TALL else foot

    def _course(self, width: int, height: int) -> list[Text]:
        """Return a chart of the selected process's rate, if there is room for it."""
        rows = self._rows()
        if height < _LEAST or not rows or not self.figures.ticks:
            return []
        row = rows[index_of(self.state, [row.pid for row in rows])]
        rates = self.figures.bars_of(row, HISTORY)
        looks = min(HISTORY, self.figures.ticks)
        rates = [0.0] * (HISTORY - len(rates)) + rates
        top = compact(int(max(rates)))
        cells = (width - _SCALE) // HISTORY * HISTORY or width - _SCALE
        lines = tall_bars(rates, cells, height - 1)
        chart = [Text.assemble((f"{top:>{_SCALE - 1}} ", "dim"), (lines[0], "yellow"))]
        chart += [Text(" " * _SCALE + line, style="yellow") for line in lines[1:]]
        last = "the last look" if looks == 1 else f"the last {looks} looks"
        head = f"  what it wrote per s in {last}, at most {top}"
        return [Text(head, style="dim"), *chart]

    def _selected(self, width: int) -> Text:
        """Return the facts of the selected process that the table has no room for."""
        rows = self._rows()
        if not rows:
            return Text()
        row = rows[index_of(self.state, [row.pid for row in rows])]
        mark = ("▸ ", "bold bright_yellow")
        if row.why:
            return Text.assemble(mark, (f"not tracked: {escape(row.why)}", "red"))
        joined = row.facts.joined_at
        since = f", since {format_time(joined)[11:19]} UTC" if joined else ""
        written = f" wrote {format_size(row.written)}{since}"
        if self._notice:
            return Text.assemble(mark, f"{row.pid} {row.name}: {self._notice}")
        name = escape(row.facts.target.exe or row.facts.target.name)
        head = f"{row.pid} "
        room = max(8, width - len(written) - len(head) - 2)
        return Text.assemble(mark, head, (fit_path(name, room), "bold cyan"), written)

    def _cost(self, width: int) -> Text:
        """Return the costs, as many as fit, the most important first."""
        if self.tick is None:
            return Text()
        cost, seconds = self.tick.cost, self.tick.seconds
        warning = warnings(cost, seconds, "their") if self.budget is None else ()
        parts = [f"longest wait {format_seconds(cost.max_wait_ns / 1e9)}"]
        if cost.target_share is not None and not warning:
            parts.insert(0, share_of(cost, seconds, "their"))
        whole = sum(item.part is None for item in self.tick.untracked)
        if whole:
            parts.append(f"{whole} not tracked")
        looks = sum(look is not None for _, look in self.tick.members)
        parts.append(f"{looks} of {len(self.tick.members)} ran")
        parts.append(f"scan {format_seconds(cost.scan_ns / 1e9)}")
        return cost_line(warning, parts, width)

    def _keys(self, width: int) -> Text:
        if self.state.typing:
            text = f" filter: {escape(self.state.filter)}▏  Enter keeps it, Esc clears"
            return paint.bar(Text(text, style=paint.BAR), width)
        if not self.has_keys:
            return Text("Ctrl-C ends it", style="dim")
        if self.state.help:
            return paint.keys_line([("any key", "back"), ("q", "quit")], width)
        return paint.keys_line(KEYS, width)


def _matches(row: ProcessRow, text: str) -> bool:
    return not text or text in f"{row.pid} {row.facts.target.name} {row.name}".lower()
