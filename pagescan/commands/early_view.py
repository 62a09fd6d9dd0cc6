"""Shows the live view of one target, before the arming already if that takes long."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pagescan.console.context import Context
from pagescan.console.garbage import without_searches
from pagescan.model.errors import PagescanError
from pagescan.model.looks import WatchedFacts
from pagescan.model.units import format_size
from pagescan.scanner.counts import largest_mappings
from pagescan.scanner.scanner import Scanner
from pagescan.session.watched import Terms
from pagescan.target import maps
from pagescan.target.process import Target, read_status

if TYPE_CHECKING:
    from pagescan.render.live_view.screen import Screen
    from pagescan.render.live_view.view import LiveView

MANY = 5000
"""Mappings, from which on the arming may take 0.1 s."""
_MUCH = 16 << 30
"""Bytes in memory, from which on it may, too."""
_LINES = 100
"""Rows that are shown before all mappings have been counted."""


class EarlyView:
    """The live view of one target: a context manager that restores the terminal."""

    def __init__(
        self, terms: Terms, interval: float, context: Context, *, note: str = ""
    ) -> None:
        """Show nothing yet.

        Args:
            terms: Their messages stand in the view while it is shown.
            interval: Seconds between looks.
            context: The options of every command.
            note: A text for the head line.
        """
        self._terms = terms
        self._interval = interval
        self._context = context
        self._note = note
        self._shown: tuple[LiveView, Screen] | None = None
        self._undo = contextlib.ExitStack()

    def expect(self, target: Target) -> bool:
        """Show the view if it will take long to arm a target; return whether it does.

        It says how many mappings there are, and has rows of the largest ones.
        """
        with contextlib.suppress(PagescanError):  # the arming will find out why
            mappings, present = maps.count(target), _resident(target)
            if mappings >= MANY or present >= _MUCH:
                watched = WatchedFacts.unarmed(target.facts, self._terms.percent)
                size = format_size(present)
                text = (
                    f"arming {mappings:,} mappings, {size} in memory:"
                    " until then, the largest"
                )
                view, screen = self.show(watched, text)
                with without_searches():
                    self._show_largest(view, target)
                screen.refresh()
                return True
        return False

    def _show_largest(self, view: "LiveView", target: Target) -> None:
        """Show as many mappings as a screen may have lines, those with most memory."""
        scanner = Scanner(target, self._terms.pace)
        found = largest_mappings(scanner, self._terms.selection, _LINES)
        view.figures.set_largest(found)

    def show(
        self, watched: WatchedFacts, before: str = ""
    ) -> "tuple[LiveView, Screen]":
        """Show the view, if it is not shown yet; return it and the screen.

        Args:
            watched: The facts of the target.
            before: What has to be done before the first look.
        """
        if self._shown is None:
            from pagescan.commands.live_parts import said_in
            from pagescan.render.live_view.screen import shown
            from pagescan.render.live_view.view import LiveView

            view = LiveView(watched, self._interval, note=self._note)
            view.before = before
            self._undo.enter_context(said_in(view, self._terms, self._context))
            screen = self._undo.enter_context(shown(view, color=self._context.color))
            self._shown = view, screen
        view, screen = self._shown
        view.watched, view.before = watched, before
        return view, screen

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Restore the terminal, and print what was said; again: no effect."""
        self._undo.__exit__(kind, error, where)


def _resident(target: Target) -> int:
    """Return how many bytes of a target are in memory; 0: it has ended."""
    try:
        return int(read_status(target.pid)["VmRSS"].split()[0]) << 10
    except (OSError, LookupError):
        return 0
