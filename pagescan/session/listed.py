"""Lists a target that this process tracks by other means than a session's tracking."""

import contextlib
import os
from collections.abc import Iterator

from pagescan.model.results import TargetFacts
from pagescan.model.units import now
from pagescan.session.locks import Lock
from pagescan.session.record import Session


class Listed:
    """A target whose lock this process holds; `sessions` lists it when it is armed."""

    def __init__(self, lock: Lock, holder: str) -> None:
        """Take over a lock; only `listed` calls this."""
        self._lock, self._holder = lock, holder

    def armed(self, target: TargetFacts, tracked_bytes: int) -> None:
        """Store the facts.

        Raises:
            PagescanError: They are not on disk.
        """
        at, pid = now(), os.getpid()
        facts = Session(target, at, at, self._holder, pid, [], [], tracked_bytes)
        self._lock.write(facts)


@contextlib.contextmanager
def listed(pid: int, holder: str) -> Iterator[Listed]:
    """Hold the lock of a target.

    Args:
        pid: The target.
        holder: The command that tracks it, as `sessions` names it.

    Raises:
        SessionError: It is tracked already; the message names the session.
    """
    with contextlib.ExitStack() as undo:
        yield Listed(Lock.taken(pid, undo), holder)
