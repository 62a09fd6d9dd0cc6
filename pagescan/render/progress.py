"""A bar on a terminal's stderr for what takes longer than half a second."""

import sys
import time
from threading import Lock
from typing import TextIO

from pagescan.units import format_size

_PATIENCE = 0.5
_WIDTH = 30


class Bar:
    """What a scan tells how far it is: one line, taken away in the end."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Show nothing yet."""
        self._stream = stream or sys.stderr
        self._lock = Lock()  # the threads of a scan tell it at the same time
        self._begun = time.monotonic()
        self._done = self._total = 0
        self._shown = False

    def begin(self, total: int) -> None:
        """Start anew: so many bytes are to be walked; 0: take the line away."""
        with self._lock:
            self._done, self._total = 0, total
            if not total and self._shown:
                self._stream.write("\r\x1b[K")
                self._stream.flush()
                self._shown = False

    def advance(self, done: int) -> None:
        """So many more bytes were walked."""
        with self._lock:
            self._done += done
            if self._total and time.monotonic() - self._begun >= _PATIENCE:
                self._draw()

    def _draw(self) -> None:
        self._shown = True
        share = min(1.0, self._done / self._total)
        full = round(share * _WIDTH)
        bar = "█" * full + "·" * (_WIDTH - full)
        size = format_size(self._total)
        self._stream.write(f"\r\x1b[Klooking ▕{bar}▏ {share:4.0%} of {size}")
        self._stream.flush()
