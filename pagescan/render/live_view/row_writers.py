"""The function that wrote most of each row in the last look: the key w; no I/O."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from pagescan.model.units import escape
from pagescan.render.cells import elide_middle, width_of
from pagescan.render.live_view.figures import LiveRow

NO_NAME = "(no name)"
_UNKNOWN, _NOT_YET = "-", "…"


class RowWriters:
    """The writers of the last look, by mapping.

    Attributes:
        note: What the user should know about them, in one line; "": nothing.
        whole: Whether samples were taken during all of the last look's interval.
    """

    def __init__(self) -> None:
        """Begin without a look."""
        self.note = ""
        self.whole = False
        self._starts: list[int] = []
        self._pages: list[Counter[str]] = []

    def clear(self) -> None:
        """Forget the last look: the next one is not wholly sampled."""
        self.whole, self._starts, self._pages = False, [], []

    def set_look(
        self, rows: Iterable[tuple[int, str | None, int]], *, whole: bool
    ) -> None:
        """Take the writers of a look: start of the mapping, function, pages."""
        self.whole = whole
        pages: dict[int, Counter[str]] = {}
        for start, function, count in rows:
            pages.setdefault(start, Counter())[function or NO_NAME] += count
        self._starts = sorted(pages)
        self._pages = [pages[start] for start in self._starts]

    def of(self, row: LiveRow) -> Counter[str]:
        """Return the pages of the last look by function, of all mappings of a row."""
        found: Counter[str] = Counter()
        for mapping in row.mappings:
            first = bisect_left(self._starts, mapping.start)
            for pages in self._pages[first : bisect_left(self._starts, mapping.end)]:
                found += pages
        return found

    def cell(self, row: LiveRow, width: int) -> str:
        """Return the text beside a row: the first writer of most pages, +N others."""
        found = self.of(row)
        if not found:
            unknown = _UNKNOWN if self.whole else _NOT_YET
            return unknown if row.rate > 0 else ""
        more = f" +{len(found) - 1}" if len(found) > 1 else ""
        name = max(found, key=lambda function: found[function])
        return elide_middle(escape(name), max(1, width - len(more))) + more

    def sentence(self, row: LiveRow, width: int) -> str:
        """Return the same with the share, for a line; "" without a writer."""
        found = self.of(row)
        if not found:
            return ""
        name, pages = found.most_common(1)[0]
        share = f" {pages / found.total():.0%}"
        return elide_middle(escape(name), max(1, width - len(share))) + share

    def line(self, row: LiveRow, width: int) -> str:
        """Return the writers of one mapping in the last look, as many as fit."""
        found = self.of(row)
        if not found and not self.whole:
            return "writers: the next look names them"
        if not found:
            return (
                "writers: none is known"
                if row.rate > 0
                else "not written in the last look"
            )
        text, total = "first writers: ", found.total()
        ranked = found.most_common()
        for at, (name, pages) in enumerate(ranked):
            more = f", {len(ranked) - at} more"
            one = f"{', ' if at else ''}{escape(name)} {pages / total:.0%}"
            last = at == len(ranked) - 1
            if at and width_of(text + one) + (0 if last else len(more)) > width:
                return text + more
            text += one
        return elide_middle(text, width)
