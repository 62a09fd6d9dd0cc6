"""A line on stderr that is written again and again while a command works."""

from __future__ import annotations

import math
import os
import sys
import time
from typing import TYPE_CHECKING

from pagescan.model.units import format_size

if TYPE_CHECKING:
    from pagescan.console.context import Context
    from pagescan.model.groups import GroupTick
    from pagescan.model.looks import Tick
    from pagescan.tracking.ticks import Limits


class ProgressLine:
    """The line; it is written on a terminal only.

    Attributes:
        context: The options of every command.
    """

    def __init__(self, context: Context) -> None:
        """Begin without a line."""
        self.context = context
        self._text = ""

    def say(self, message: str) -> None:
        """Print a message in place of the line."""
        self.clear()
        self.context.say(message)

    def write(self, text: str) -> None:
        """Write the line, unless it says this already."""
        if not self.context.shows_progress or text == self._text:
            return
        self._text = text
        room = max(10, os.get_terminal_size(2).columns - 1)
        sys.stderr.write(f"\r{text[:room]}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._text:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._text = ""


class TimeLeft:
    """Counts down on a progress line until a command's result comes."""

    def __init__(self, line: ProgressLine, limits: Limits) -> None:
        """Begin to count, if the line is shown at all."""
        self._line, self._limits = line, limits
        duration = limits.duration
        self._end = time.monotonic() + duration if duration else None
        self._written: int | None = None
        if line.context.shows_progress:
            limits.waiting = self._wait

    def add(self, tick: Tick | GroupTick) -> None:
        """Take a tick: the line says how much was written so far."""
        self._written = tick.totals.bytes
        if tick.end:
            self._line.clear()

    def _wait(self, left: float) -> float:
        """Write the line; return after how many seconds it is out of date."""
        if self._end is not None:
            left, what = self._end - time.monotonic(), "{} s left"
        else:
            what = "next look in {} s"
        seconds = max(1, math.ceil(left)) if left != math.inf else 1
        text = what.format(seconds)
        if self._written is not None:
            text += f"; {format_size(self._written)} written so far"
        self._line.write(text)
        return max(0.01, left - seconds + 1) if left != math.inf else left
