"""Puts back the huge pages of sessions that their keeper has ended by itself.

`disarm` does that in its own process. A keeper that gets SIGTERM has no command that
could do it. It loads this file only then, so that it stays small before.
"""

import contextlib
from collections.abc import Iterable

from pagescan.model.errors import PagescanError
from pagescan.native import Columns
from pagescan.scanner.scanner import Scanner
from pagescan.target.maps import read
from pagescan.target.process import Target
from pagescan.tracking.huge_pages import HugePages


def put_back(split: Iterable[tuple[int, int, Columns]]) -> None:
    """Put back huge pages that tracking has split, while nothing is registered.

    Args:
        split: The pid of each target, its start time, and the memory that was in huge
            pages when it was protected.
    """
    for pid, start_time, units in split:
        with (
            contextlib.suppress(PagescanError),  # the target has ended
            Target.open(pid, start_time=start_time) as target,
        ):
            HugePages(units).restore(Scanner(target), read(target))
