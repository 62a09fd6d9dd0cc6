"""Which rows the table shows, and in which order; pure, no I/O."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from pagescan.render.live_view.figures import Figures, LiveRow, group, group_of
from pagescan.render.live_view.view_state import ViewState

_ORDERS: dict[str, Callable[[LiveRow], tuple[float, ...]]] = {
    "rate": lambda row: (-row.rate, -row.written, -row.present),
    "since": lambda row: (-row.written, -row.rate, -row.present),
    "growth": lambda row: (-row.growth, -row.written, -row.present),
    "present": lambda row: (-row.present, -row.written),
    "address": lambda row: (min(mapping.start for mapping in row.mappings),),
}


class Hidden(NamedTuple):
    """The numbers of mappings that are not among the rows, by reason.

    Attributes:
        idle: Mappings that were never written.
        unknown: With a budget: mappings with pages that no look has seen yet.
        gone: Mappings that were unmapped.
        gone_written: The bytes that were written to the latter.
        filtered: Mappings that the filter leaves out.
    """

    idle: int = 0
    unknown: int = 0
    gone: int = 0
    gone_written: int = 0
    filtered: int = 0


class OrderedRows:
    """The rows as the table shows them, kept until a figure or the choice changes."""

    def __init__(self, figures: Figures) -> None:
        """Remember the figures."""
        self._figures = figures
        self._made_for: object = None
        self._rows: list[LiveRow] = []
        self._hidden = Hidden()

    def of(self, state: ViewState) -> list[LiveRow]:
        """Return the rows in order."""
        wanted = (
            self._figures.version,
            state.sort,
            state.filter,
            state.idle,
            state.group,
            state.within,
        )
        if wanted != self._made_for:
            self._rows, self._hidden = self._make(state)
            self._made_for = wanted
        return self._rows

    def hidden(self, state: ViewState) -> Hidden:
        """Return the numbers of mappings that the rows leave out."""
        self.of(state)
        return self._hidden

    def has(self, name: str) -> bool:
        """Whether a count is above zero in any of the rows."""
        return any(row.counts and row.counts.get(name) for row in self._rows)

    def _make(self, state: ViewState) -> tuple[list[LiveRow], Hidden]:
        figures = self._figures
        rows: Iterable[LiveRow] = figures.rows.values()
        hidden = Hidden()
        if not state.idle:
            gone = [row for row in figures.written.values() if row.gone]
            unknown = figures.unknown()
            hidden = Hidden(
                idle=len(figures.rows) - len(figures.written) - unknown,
                unknown=unknown,
                gone=len(gone),
                gone_written=sum(row.written for row in gone),
            )
            rows = (row for row in figures.written.values() if not row.gone)
            if not figures.looks:
                rows = [row for row in figures.rows.values() if row.present]
                hidden = Hidden()
        if state.within is not None:
            rows = [row for row in rows if group_of(row, state.group) == state.within]
            hidden = Hidden()
        if state.filter:
            known = list(rows)
            rows = [row for row in known if _matches(row, state.filter.lower())]
            hidden = hidden._replace(filtered=len(known) - len(rows))
        if state.group and state.within is None:
            rows = group(rows, state.group)
        return sorted(rows, key=_ORDERS[state.sort]), hidden


def _matches(row: LiveRow, text: str) -> bool:
    mapping = row.mappings[0]
    return text in row.name.lower() or text in f"{mapping.start:x}-{mapping.end:x}"
