"""Draws the table of a group in the live view: one row per process."""

from dataclasses import dataclass

from rich.text import Text

from pagescan.render.cells import elide_middle, pad
from pagescan.render.live_view import paint
from pagescan.render.live_view.group_figures import GroupFigures, ProcessRow
from pagescan.render.strip import bars, compact, signed

_NARROW, _WIDE = 70, 100
_MARK, _PID, _RATE, _PRESENT, _GROWTH, _SWAPPED, _SINCE = 1, 8, 8, 9, 8, 9, 8


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """The widths of the parts of a row, for a width of the window; 0: left out."""

    name: int
    history: int
    since: int
    memory: bool
    """Whether there is room for present, growth and swapped."""

    @classmethod
    def fit(cls, width: int) -> "GroupLayout":
        """Divide the width that the numbers leave between name and history."""
        left = width - _MARK - _PID - _RATE - 2
        memory = width >= _NARROW
        if memory:
            left -= _PRESENT + _GROWTH + _SWAPPED
        since = _SINCE if width >= _WIDE else 0
        left -= since
        history = max(6, min(30, left // 3))
        return cls(max(8, left - history), history, since, memory)

    def header(self, sort: str) -> Text:
        """Return the line of column names, with a mark at the column that sorts."""
        line = Text(" " * _MARK, style="bold")

        def add(name: str, width: int, key: str, *, left: bool = False) -> None:
            marked = f"{name}▾" if key == sort else name
            text = pad(marked, width) if left else pad(marked, width, right=True)
            line.append(text, style=paint.RATE if key == sort else "bold")

        add("process", self.name, "", left=True)
        add("pid", _PID, "address")
        add("per s", _RATE, "rate")
        line.append("  " + pad("history", self.history), style="bold")
        if self.since:
            add("since", self.since, "since")
        if self.memory:
            add("present", _PRESENT, "present")
            add("growth", _GROWTH, "growth")
            add("swapped", _SWAPPED, "")
        return line

    def line(self, row: ProcessRow, figures: GroupFigures, *, selected: bool) -> Text:
        """Return the line of a process."""
        quiet = "" if row.rate > 0 else "dim"
        line = Text(style=paint.SELECTED if selected else "")
        line.append("▸" if selected else " ", style="bold bright_yellow")
        name = pad(elide_middle(row.name, self.name - 1), self.name)
        line.append(name, style="bold" if selected else quiet)
        line.append(f"{row.pid:>{_PID}}", style="dim")
        if row.why:
            line.append(f"{'-':>{_RATE}}  {'not tracked':<{self.history}}", style="red")
            return line
        line.append(f"{compact(int(row.rate)):>{_RATE}}", style=quiet or paint.RATE)
        history = bars(figures.bars_of(row, self.history), self.history)
        line.append(f"  {history}", style="yellow")
        if self.since:
            line.append(f"{compact(row.written):>{self.since}}", style=quiet)
        if self.memory:
            self._append_memory(line, row)
        return line

    @staticmethod
    def _append_memory(line: Text, row: ProcessRow) -> None:
        if row.gone:
            line.append(f"{row.facts.end or '':>{_PRESENT}}", style="dim")
            return
        if row.populated is None:
            line.append("".join(f"{'-':>{n}}" for n in (_PRESENT, _GROWTH, _SWAPPED)))
            return
        line.append(f"{compact(row.present):>{_PRESENT}}")
        growth = row.growth
        style = "bold magenta" if growth > 0 else "green" if growth < 0 else "dim"
        line.append(f"{signed(growth):>{_GROWTH}}", style=style)
        style = "" if row.swapped else "dim"
        line.append(f"{compact(row.swapped):>{_SWAPPED}}", style=style)
