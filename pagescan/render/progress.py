"""Bars on a terminal's stderr for what takes longer than half a second."""

import sys
import time
from typing import TextIO

from pagescan.units import format_size

_PATIENCE = 0.5
_WIDTH = 30


class Bar:
    """What a scan tells how far it is: one line, taken away in the end."""

    doing = "looking"

    def __init__(self, stream: TextIO | None = None) -> None:
        """Show nothing yet."""
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._done = self._total = 0
        self._shown = False

    def begin(self, total: int) -> None:
        """Start anew: so many bytes are to be walked; 0: take the line away."""
        self._done, self._total = 0, total
        if not total and self._shown:
            self._put("")
            self._shown = False

    def advance(self, done: int) -> None:
        """So many more bytes were walked."""
        self._done += done
        if self._total and time.monotonic() - self._begun >= _PATIENCE:
            self._draw()

    def _draw(self) -> None:
        self._shown = True
        share = min(1.0, self._done / self._total)
        full = round(share * _WIDTH)
        bar = "█" * full + "·" * (_WIDTH - full)
        self._put(f"{self.doing} ▕{bar}▏ {share:4.0%} of {self._size()}")

    def _size(self) -> str:
        return format_size(self._total)

    def _put(self, text: str) -> None:
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()


class WritingBar(Bar):
    """What the renderers tell how many rows are written; each result is timed anew."""

    doing = "writing"

    def __init__(self, rows: str, stream: TextIO | None = None) -> None:
        """Show nothing yet.

        Args:
            rows: What a row is, in the plural.
            stream: Where to show it, if not on stderr.
        """
        super().__init__(stream)
        self._rows = rows

    def begin(self, total: int) -> None:
        """Start anew: so many rows are to be written; 0: take the line away."""
        if total:
            self._begun = time.monotonic()
        super().begin(total)

    def _size(self) -> str:
        return f"{self._total:,} {self._rows}"

    def _put(self, text: str) -> None:
        if not _has_a_pager(self._stream):
            super()._put(text)


def _has_a_pager(terminal: TextIO) -> bool:
    """Whether a program reads its keys one by one: then the whole screen is its own."""
    import termios

    try:
        return not termios.tcgetattr(terminal.fileno())[3] & termios.ICANON
    except (OSError, termios.error):
        return False
