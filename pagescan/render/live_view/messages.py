"""The messages of a live view: the newest one stands in it, all are printed later."""

import time
from collections import deque

_FRESH = 10.0
"""Seconds for which a message is shown."""
_KEPT = 20


class Messages:
    """The messages of a live view: the next drawing would hide them on stderr.

    Attributes:
        kept: The newest of them, for the end of the view.
        dropped: How many older ones are not kept.
    """

    def __init__(self) -> None:
        """Begin without a message."""
        self.kept: deque[str] = deque()
        self.dropped = 0
        self._until = 0.0

    def say(self, text: str) -> None:
        """Show a message for some seconds, and keep it."""
        self.kept.append(text)
        if len(self.kept) > _KEPT:
            self.kept.popleft()
            self.dropped += 1
        self._until = time.monotonic() + _FRESH

    @property
    def newest(self) -> str:
        """The message to show now; "": none."""
        return self.kept[-1] if time.monotonic() < self._until else ""
