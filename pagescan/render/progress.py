"""Progress bars on a terminal's stderr, for work longer than half a second."""

import sys
import time
from typing import TextIO

from pagescan.model.units import format_size

_PATIENCE = 0.5
_WIDTH = 30


class Bar:
    """The progress of a scan: one line on stderr, erased at the end."""

    doing = "looking"

    def __init__(self, stream: TextIO | None = None) -> None:
        """Start the clock; nothing is shown yet."""
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._done = self._total = 0
        self._shown = False

    def begin(self, total: int) -> None:
        """Restart at zero of `total` bytes to walk; 0: erase the line."""
        self._done, self._total = 0, total
        if not total and self._shown:
            self._put("")
            self._shown = False

    def advance(self, done: int) -> None:
        """Add `done` bytes that were walked."""
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
    """The progress of writing rows; the half second begins with each result."""

    doing = "writing"

    def __init__(self, rows: str, stream: TextIO | None = None) -> None:
        """Show nothing yet.

        Args:
            rows: The name of the rows, in the plural: "regions".
            stream: Where to show the bar; None: on stderr.
        """
        super().__init__(stream)
        self._rows = rows

    def begin(self, total: int) -> None:
        """Restart at zero of `total` rows to write; 0: erase the line."""
        if total:
            self._begun = time.monotonic()
        super().begin(total)

    def _size(self) -> str:
        return f"{self._total:,} {self._rows}"

    def _put(self, text: str) -> None:
        if not _has_a_pager(self._stream):
            super()._put(text)


def _has_a_pager(terminal: TextIO) -> bool:
    """Whether a program reads this terminal key by key: it then owns the screen."""
    import termios

    try:
        return not termios.tcgetattr(terminal.fileno())[3] & termios.ICANON
    except (OSError, termios.error):
        return False
