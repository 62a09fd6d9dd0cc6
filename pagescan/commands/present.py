"""Counts the present memory of a watched target now and then, for JSON.

The count walks every page, so it takes no more than a small share of the time: between
two counts the earlier figures hold.
"""

import contextlib
import time

from pagescan.model.errors import PagescanError
from pagescan.model.results import Cost, PresentMemory
from pagescan.scanner.counts import count_by_mapping
from pagescan.scanner.scanner import Scanner
from pagescan.session.watched import Watched
from pagescan.target import maps

_SHARE = 0.02  # of the time
_OFTEN = 0.9  # seconds


class PresentCounter:
    """The present memory of the selection, and its growth since the first count.

    Attributes:
        memory: The figures of the last count; None: none was possible yet.
    """

    def __init__(self) -> None:
        """Begin without a count."""
        self.memory: PresentMemory | None = None
        self._first: int | None = None
        self._due = 0.0

    def count(self, watched: Watched) -> Cost:
        """Count if it is time; return the cost to the target."""
        if (begun := time.monotonic()) < self._due:
            return Cost()
        scanner = Scanner(watched.target, watched.terms.pace)
        with contextlib.suppress(PagescanError):  # the target has ended
            selected = watched.terms.selection.select(maps.read(watched.target))
            rows = count_by_mapping(scanner, selected)
            pages = sum(row.counts["present"] or 0 for row in rows)
            size = pages * watched.target.facts.page_size
            self._first = size if self._first is None else self._first
            self.memory = PresentMemory(size, size - self._first)
        took = time.monotonic() - begun
        self._due = begun + max(_OFTEN, took / _SHARE)
        return scanner.take_cost()
