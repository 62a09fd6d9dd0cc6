"""Shows the live view on a screen of its own, and restores the terminal in any case."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator

from rich.console import Console, RenderableType
from rich.live import Live

from pagescan.render.live_view.keys import Keyboard, keyboard

_SHOWN = b"\x1b[?1049h\x1b[?25l\x1b[2J"
"""Enters the other screen, hides the cursor, clears; source: xterm."""
_RESTORED = b"\x1b[?1049l\x1b[?25h\x1b[0m"
"""Leaves the other screen, shows the cursor, ends all colours."""


class Screen:
    """The other screen of a terminal, and its keyboard.

    Attributes:
        keyboard: The keyboard; None: no keys are read.
    """

    def __init__(self, live: Live, keyboard: Keyboard | None) -> None:
        """Draw with rich's Live."""
        self.keyboard = keyboard
        self._live = live
        self._drawing = False

    def refresh(self) -> None:
        """Draw, unless a signal has interrupted another drawing."""
        if self._drawing:
            return
        self._drawing = True
        try:
            self._live.refresh()
        finally:
            self._drawing = False

    def leave(self) -> None:
        """Restore the terminal for a while."""
        if self.keyboard:
            self.keyboard.end()
        _write(_RESTORED)

    def enter(self) -> None:
        """Take the terminal again."""
        if self.keyboard:
            self.keyboard.begin()
        _write(_SHOWN)
        self.refresh()


@contextlib.contextmanager
def shown(view: RenderableType, *, color: bool | None) -> Iterator[Screen]:
    """Show a view on a screen of its own; the old one is restored in any case."""
    console = Console(
        highlight=False,
        markup=False,
        no_color=True if color is False else None,
        force_terminal=True,
    )
    live = Live(
        view, console=console, screen=True, auto_refresh=False, redirect_stderr=False
    )
    with keyboard() as keys:
        screen = Screen(live, keys)
        with _on_signals(screen):
            try:
                with live:
                    yield screen
            except BaseException:  # rich itself may have failed to restore the screen
                _write(_RESTORED)
                raise


@contextlib.contextmanager
def _on_signals(screen: Screen) -> Iterator[None]:
    """Redraw after a change of size; restore the terminal while pagescan is stopped."""

    def quit_by(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        with contextlib.suppress(RuntimeError):  # it came in the middle of a write
            screen.leave()
        signal.raise_signal(number)

    def stop(number: int, _: object) -> None:
        screen.leave()
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # it returns after SIGCONT
        signal.signal(number, stop)
        screen.enter()

    handlers: dict[int, Callable[[int, object], None]] = {
        signal.SIGWINCH: lambda *_: screen.refresh(),
        signal.SIGQUIT: quit_by,
        signal.SIGTSTP: stop,
        signal.SIGCONT: lambda *_: screen.enter(),  # after SIGSTOP
    }
    before = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(text: bytes) -> None:
    ready = select.poll()
    ready.register(1, select.POLLOUT)
    with contextlib.suppress(OSError):
        if ready.poll(1000):  # the terminal may stand still
            os.write(1, text)
