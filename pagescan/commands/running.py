"""Helpers of the commands that watch a TARGET or a CMD for some time."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pagescan.console.context import Context
from pagescan.console.streams import nothing_is_held
from pagescan.model.results import Cost

if TYPE_CHECKING:
    from pagescan.session.watched import Watched
    from pagescan.session.watched_group import WatchedGroup

PATIENCE = 0.7
"""Seconds without output after which a message names the step that takes long."""


@contextlib.contextmanager
def said_if_long(context: Context, message: str) -> Iterator[Callable[[], None]]:
    """Print a message if the block takes longer than a moment.

    Yields:
        What drops the message: the block itself has said what takes long.
    """
    timer = threading.Timer(PATIENCE, context.say, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield timer.cancel
    finally:
        timer.cancel()


def end(watched: "Watched | WatchedGroup", stop: int) -> Cost:
    """Disarm, and return the cost; from now on output may wait for a slow reader.

    Its perf events are the caller's: they have to be closed before.
    """
    cost = watched.end(stop)
    nothing_is_held()
    return cost


def is_command(argv: list[str], words: tuple[str, ...]) -> bool:
    """Whether the words stood behind `--`, which click removes."""
    return "--" in argv and tuple(argv[argv.index("--") + 1 :]) == words


def open_kept(path: str) -> tuple[int, bool]:
    """Open a file that the user has named, before it is known that it will be written.

    Its content stays.

    Returns:
        The descriptor, and whether the file is new.

    Raises:
        OSError: It cannot be opened.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
    with contextlib.suppress(FileExistsError):
        return os.open(path, flags | os.O_EXCL, 0o666), True
    return os.open(path, flags, 0o666), False
