"""The processes that cannot be followed, each with the reason."""

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from pagescan.model.errors import BY_ERRNO, PagescanError
from pagescan.model.groups import MemberUntracked
from pagescan.target.proc_files import if_it_lives


class _Failure(NamedTuple):
    name: str
    what: str
    error: PagescanError
    start_time: int | None


class Unfollowed:
    """Processes that exist and cannot be followed."""

    def __init__(self) -> None:
        """Begin without a process."""
        self._failures: dict[int, _Failure] = {}

    @contextlib.contextmanager
    def trying(
        self,
        pid: int,
        name: str,
        call: str,
        *,
        what: str = "",
        start_time: int | None = None,
    ) -> Iterator[None]:
        """Run a block that begins to follow a process; a failure of it is remembered.

        The end of the process is no failure. Both end the block early.

        Args:
            pid: The process.
            name: Its name.
            call: The system call of the block whose failure has no text yet.
            what: What is not known if the block fails; empty: all of the process.
            start_time: When the process began, if that is known.
        """
        self._failures.pop(pid, None)
        try:
            with if_it_lives(pid, doing=f"follow {pid}", call=call):
                yield
        except PagescanError as error:
            self._failures[pid] = _Failure(name or str(pid), what, error, start_time)

    def __contains__(self, pid: int) -> bool:
        return pid in self._failures

    def has(self, pid: int, start_time: int | None = None) -> bool:
        """Whether a process cannot be followed, and that will stay so.

        If this process had no descriptor or no memory left, it may have some now.
        """
        failure = self._failures.get(pid)
        if failure is None or failure.error.errno in BY_ERRNO:
            return False
        return None in (start_time, failure.start_time) or (
            start_time == failure.start_time
        )

    def forget_ended(self) -> None:
        """Forget the processes that do not exist any more."""
        for pid in [*self._failures]:
            if not os.path.exists(f"/proc/{pid}"):
                del self._failures[pid]

    @property
    def first(self) -> PagescanError | None:
        """The reason of the first process; None: all processes are followed."""
        return next((one.error for one in self._failures.values()), None)

    def members(self) -> tuple[MemberUntracked, ...]:
        """Return the processes and the reasons."""
        return tuple(
            MemberUntracked(pid, one.name, None, f"{one.what}{one.error}")
            for pid, one in self._failures.items()
        )
