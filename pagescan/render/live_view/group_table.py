"""Draws the table of a group in the live view: one row per process."""

from dataclasses import dataclass

from rich.text import Text

from pagescan.render.cells import elide_middle, pad
from pagescan.render.live_view import paint
from pagescan.render.live_view.figures import HISTORY
from pagescan.render.live_view.group_figures import GroupFigures, ProcessRow
from pagescan.render.live_view.view_state import SORTS
from pagescan.render.strip import bars, compact, signed

_NARROW, _WIDE = 70, 90
_SHORTEST = 8
_MARK, _PID, _RATE, _PRESENT, _GROWTH, _SWAPPED, _SINCE = 1, 8, 8, 9, 8, 9, 8


@dataclass(frozen=True, slots=True)
class GroupLayout:
    """The widths of the parts of a row, for a width of the window; 0: left out."""

    name: int
    history: int
    swapped: int
    memory: bool
    """Whether there is room for since, present and growth."""

    @classmethod
    def fit(cls, width: int, *, swaps: bool = False, name: int = 0) -> "GroupLayout":
        """Divide the width that the numbers leave between name and history.

        Args:
            width: The width of the window.
            swaps: Whether any process has swapped pages.
            name: The width of the longest name; 0: unknown.
        """
        left = width - _MARK - _PID - _RATE - 2
        memory = width >= _NARROW
        if memory:
            left -= _SINCE + _PRESENT + _GROWTH
        swapped = _SWAPPED if swaps and width >= _WIDE else 0
        left -= swapped
        wanted = max(_SHORTEST, name + 1) if name else left * 2 // 3
        history = max(_SHORTEST, min(HISTORY, left - wanted))
        label = min(wanted, left - history)
        return cls(max(_SHORTEST, label), history, swapped, memory)

    @property
    def sorts(self) -> tuple[str, ...]:
        """The columns of the window that can sort the rows."""
        return SORTS if self.memory else ("rate", "address")

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
        if self.memory:
            add("since", _SINCE, "since")
            add("present", _PRESENT, "present")
            add("growth", _GROWTH, "growth")
        if self.swapped:
            add("swapped", self.swapped, "")
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
        rate = compact(int(row.rate)) if figures.ticks else "-"
        line.append(f"{rate:>{_RATE}}", style=quiet or paint.RATE)
        history = bars(figures.bars_of(row, self.history), self.history)
        line.append(f"  {history}", style="yellow")
        if self.memory:
            written = compact(row.written) if figures.ticks else "-"
            line.append(f"{written:>{_SINCE}}", style=quiet)
            self._append_memory(line, row)
        return line

    def _append_memory(self, line: Text, row: ProcessRow) -> None:
        if row.gone:
            line.append(f"{row.facts.end or '':>{_PRESENT}}", style="dim")
            return
        if row.populated is None:
            line.append("".join(f"{'-':>{n}}" for n in (_PRESENT, _GROWTH)))
            return
        line.append(f"{compact(row.present):>{_PRESENT}}")
        growth = row.growth
        style = "bold magenta" if growth > 0 else "green" if growth < 0 else "dim"
        line.append(f"{signed(growth):>{_GROWTH}}", style=style)
        if self.swapped:
            style = "" if row.swapped else "dim"
            line.append(f"{compact(row.swapped):>{self.swapped}}", style=style)
