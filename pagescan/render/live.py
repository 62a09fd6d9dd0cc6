"""The live view of `watch`: one row per mapping, the most written first.

It is redrawn at each tick and at each change of the window's size, and fits into it.
"""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from pagescan.model.batch import Batch
from pagescan.model.looks import Tick, WatchedFacts
from pagescan.model.memory import Mapping
from pagescan.model.results import MappingCounts
from pagescan.model.units import (
    escape,
    format_seconds,
    format_share,
    format_size,
    plural,
)
from pagescan.render.cells import elide_middle, pad, width_of
from pagescan.render.strip import Heat, bars, compact

_HISTORY = 60
_HEAD, _FOOT = 3, 2
_NARROW = 70


@dataclass(slots=True)
class _Row:
    """The figures of one mapping since the start."""

    mapping: Mapping
    rate: float = 0.0
    written: int = 0
    history: deque[float] = field(default_factory=lambda: deque(maxlen=_HISTORY))
    heat: Heat = field(default_factory=Heat)
    counts: dict[str, int | None] = field(default_factory=dict)


class LiveView:
    """The content of the screen; call `update` after each look, then redraw."""

    def __init__(
        self, watched: WatchedFacts, interval: float, *, note: str = ""
    ) -> None:
        """Show one target; `note` is shown in the head line."""
        self.watched = watched
        self.interval = interval
        self.note = note
        self.rows: dict[int, _Row] = {}
        self.tick: Tick | None = None
        self.rates: deque[float] = deque(maxlen=_HISTORY)
        self.warning: str | None = None
        """A message to print after the screen is restored."""

    def set_counts(self, counts: Sequence[MappingCounts]) -> None:
        """Update the present, swapped and file counts of each mapping."""
        by_start = {row.mapping.start: row for row in counts}
        for start, row in by_start.items():
            self.rows.setdefault(start, _Row(row.mapping)).mapping = row.mapping
            self.rows[start].counts = dict(row.counts)
        for start in self.rows.keys() - by_start.keys():
            if not self.rows[start].written:
                del self.rows[start]

    def update(self, tick: Tick) -> None:
        """Update the view from the look of a tick."""
        self.tick = tick
        if tick.look is None:
            return
        batch = tick.look.batch
        size = batch.page_size
        pages = {row.mapping.start: row for row in batch.by_mapping()}
        for start, found in pages.items():
            row = self.rows.setdefault(start, _Row(found.mapping))
            row.mapping = found.mapping
        estimate = tick.look.estimate
        # Assume that untracked memory was written at the same rate.
        weight = size / estimate.share if estimate else size
        seconds = max(tick.seconds, 1e-6)
        for start, row in self.rows.items():
            written = int(pages[start].pages * weight) if start in pages else 0
            row.rate = written / seconds
            row.written += written
            row.history.append(row.rate)
        self.rates.append(sum(row.rate for row in self.rows.values()))
        self._warm(batch)

    def _warm(self, batch: Batch) -> None:
        """Add the written places of each mapping to its strip; older ones fade."""
        for row in self.rows.values():
            row.heat.fade()
        # At most about 50,000 regions: a strip has few cells.
        step = max(1, len(batch) // 50_000)
        for start, end, owner in zip(
            batch.starts[::step], batch.ends[::step], batch.owners[::step], strict=True
        ):
            if owner >= 0:
                mapping = batch.mappings[owner]
                self.rows[mapping.start].heat.add(mapping, start, end)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Draw the view for the present size of the window."""
        width, height = console.size
        lines = [*self._head(width), *self._table(width, height - _HEAD - _FOOT)]
        lines += [Text()] * (height - _FOOT - len(lines))
        lines += self._foot(width)
        for line in lines[:height]:
            line.truncate(width)
        yield Text("\n").join(lines[:height])

    def _head(self, width: int) -> list[Text]:
        watched = self.watched
        target = f"{watched.target.pid} {escape(watched.target.name)}"
        rate = self.rates[-1] if self.rates else 0.0
        head = Text.assemble(
            ("pagescan ", "bold"),
            (target, "bold cyan"),
            f"  every {self.interval:g} s"
            f"  tracking {format_size(watched.tracked_bytes)}",
            f"  {self.note}" if self.note else "",
        )
        total = self.tick.totals.bytes if self.tick else 0
        sums = Text.assemble(
            ("written ", "dim"),
            (f"{format_size(int(rate))}/s ", "bold yellow"),
            (bars(self.rates, min(30, width // 3)), "yellow"),
            ("  since start ", "dim"),
            format_size(total),
            (f"  {self._sureness()}", "dim"),
        )
        return [head, sums, Text()]

    def _sureness(self) -> str:
        estimate = self.tick.look.estimate if self.tick and self.tick.look else None
        if estimate is None:
            return ""
        margin = (estimate.high - estimate.low) / 2 / max(1, estimate.pages)
        return f"estimated ±{margin:.0%} from {estimate.share:.0%} of the memory"

    def _table(self, width: int, height: int) -> list[Text]:
        layout = _Layout.fit(width)
        shown = sorted(
            self.rows.values(),
            key=lambda row: (row.rate, row.written, row.counts.get("present") or 0),
            reverse=True,
        )
        room = max(1, height - 1)
        more = shown[room - 1 :] if len(shown) > room else []
        lines = [layout.header()]
        lines += [self._line(row, layout) for row in shown[: len(shown) - len(more)]]
        if more:
            rest = sum(row.written for row in more)
            count = plural(len(more), "more mapping")
            text = f"… and {count}, written {format_size(rest)}"
            lines.append(Text(text, style="dim"))
        return lines

    def _line(self, row: _Row, layout: "_Layout") -> Text:
        size = self.watched.target.page_size
        counts = [
            compact((row.counts.get(name) or 0) * size)
            for name in ("present", "swapped", "file")
        ]
        quiet = "" if row.rate > 0 else "dim"
        line = Text(layout.name(row.mapping), style=quiet)
        line.append(f" {compact(int(row.rate)):>6}", style=quiet or "bold yellow")
        if layout.wide:
            line.append(f" {bars(row.history, layout.history)}", style="yellow")
        line.append(f" {compact(row.written):>6}")
        for text in counts if layout.wide else ():
            line.append(f" {text:>7}", style="dim" if text == "0" else "")
        line.append(f" {row.heat.draw(layout.where)}", style="red")
        return line

    def _foot(self, width: int) -> list[Text]:
        """Return the last lines; of the costs, as many as fit, the weightiest first."""
        watched = self.watched
        parts = [f"stopped once {format_seconds(watched.stopped_ns / 1e9)}"]
        cost = self.tick.look.cost if self.tick and self.tick.look else None
        if cost is not None:
            if cost.target_share is not None:
                share = format_share(cost.target_share)
                parts.insert(0, f"{share} of its processor time")
            parts.append(f"longest wait {format_seconds(cost.max_wait_ns / 1e9)}")
        if watched.untracked:
            parts.append(f"{watched.untracked} not tracked")
        if cost is not None:
            calls = plural(cost.ioctls, "call")
            parts.append(f"scan {format_seconds(cost.scan_ns / 1e9)}, {calls}")
        while len(line := "cost: " + "; ".join(parts)) > width and len(parts) > 1:
            parts.pop()
        return [Text(line, style="dim"), Text("Ctrl-C ends it", style="dim")]


@dataclass(frozen=True, slots=True)
class _Layout:
    """The widths of the parts of a row, for a width of the window."""

    label: int
    history: int
    where: int
    wide: bool = True
    """Whether there is room for the history and the counts."""

    @classmethod
    def fit(cls, width: int) -> "_Layout":
        """Divide the width that the numbers leave between the other parts."""
        if width < _NARROW:
            label = max(10, width // 3)
            return cls(label, 0, max(6, width - label - 2 * 7 - 1), wide=False)
        left = width - 2 * 7 - 3 * 8 - 2
        history = max(6, min(20, left // 6))
        label = max(10, min(48, left // 3))
        return cls(label, history, max(6, left - history - label - 1))

    def header(self) -> Text:
        """Return the line of column names."""
        if not self.wide:
            text = f"{'mapping':<{self.label}} {'per s':>6} {'since':>6} where it wrote"
            return Text(text, style="bold")
        text = (
            f"{'mapping':<{self.label}} {'per s':>6} {'history':<{self.history}}"
            f" {'since':>6} {'present':>7} {'swapped':>7} {'file':>7} where it wrote"
        )
        return Text(text, style="bold")

    def name(self, mapping: Mapping) -> str:
        """Return the mapping's name, shortened to fit; without a name, its address."""
        name = escape(mapping.name)
        if not name:
            name = f"[anon] {mapping.start:x}"
            if len(name) > self.label:
                name = f"{mapping.start:x}"
        elif width_of(name) > self.label and name.startswith("/"):
            name = name.rpartition("/")[2] or name
        return pad(elide_middle(name, self.label), self.label)


_RESTORED = b"\x1b[?1049l\x1b[?25h\x1b[0m"
"""Leaves the other screen, shows the cursor, ends all colours; source: xterm."""


@contextlib.contextmanager
def live(view: LiveView, *, color: bool | None) -> Iterator[Live]:
    """Show the view on a screen of its own; the old one is restored in any case."""
    console = Console(
        highlight=False,
        markup=False,
        no_color=True if color is False else None,
        force_terminal=True,
    )
    screen = Live(
        view, console=console, screen=True, auto_refresh=False, redirect_stderr=False
    )
    before = signal.signal(signal.SIGQUIT, _restore_and_quit)
    try:
        with screen:
            yield screen
    except BaseException:  # rich itself may have failed to restore the screen
        _restore()
        raise
    finally:
        signal.signal(signal.SIGQUIT, before)


def _restore() -> None:
    with contextlib.suppress(OSError):
        os.write(1, _RESTORED)


def _restore_and_quit(number: int, _: object) -> None:
    """Restore the screen, then end by the signal's default action."""
    _restore()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def summary_lines(view: LiveView, *, most: int = 8) -> list[str]:
    """Return lines to print after the view: the mappings that were written most."""
    rows = sorted(view.rows.values(), key=lambda row: -row.written)[:most]
    return [
        f"{format_size(row.written):>10}  {escape(row.mapping.label)}"
        f"  {row.mapping.start:#x}-{row.mapping.end:#x}"
        for row in rows
        if row.written
    ]
