"""Helpers of the commands that watch a TARGET or a CMD for some time."""

import contextlib
import threading
from collections.abc import Iterator

from pagescan.console.context import Context

PATIENCE = 0.7
"""Seconds without output after which a message names the step that takes long."""


@contextlib.contextmanager
def said_if_long(context: Context, message: str) -> Iterator[None]:
    """Print a message if the block takes longer than a moment."""
    timer = threading.Timer(PATIENCE, context.say, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def is_command(argv: list[str], words: tuple[str, ...]) -> bool:
    """Whether the words stood behind `--`, which click removes."""
    return "--" in argv and tuple(argv[argv.index("--") + 1 :]) == words
