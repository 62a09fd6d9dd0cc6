"""The root of a watched tree that pagescan has started: CMD, which has a tracer."""

import contextlib
import os
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from pagescan.model.groups import GroupTick
from pagescan.model.units import format_seconds, now
from pagescan.session.member import WatchedMember
from pagescan.session.watched import TRACER_LOST, Terms
from pagescan.target.causes import rights_lost
from pagescan.target.launch import Launched, reap

if TYPE_CHECKING:
    from pagescan.tracking.sample import Budget


class LaunchedRoot:
    """CMD as the root of a tree: it is followed over an exec, and seen to its end.

    Attributes:
        launched: CMD and its tracer.
    """

    def __init__(self, launched: Launched, terms: Terms) -> None:
        """Take over a standing CMD; only `standing` calls this."""
        self.launched = launched
        self._terms = terms  # a live view takes over its messages
        self._told = False

    @classmethod
    @contextlib.contextmanager
    def standing(cls, launched: Launched | None, terms: Terms) -> Iterator[Self | None]:
        """Yield the root; at the end CMD is reaped if it has ended. None: no CMD."""
        if launched is None:
            yield None
            return
        try:
            yield cls(launched, terms)
        finally:
            reap(launched.pid)

    def begin(self) -> None:
        """Let CMD begin, or go on after it has stood."""
        self.launched.go_on()

    def follow_exec(self, item: WatchedMember, budget: "Budget | None") -> None:
        """Attach again to CMD, which stands before its new program; let it go on.

        Args:
            item: The member that CMD is.
            budget: Bounds what tracking may cost it; None: no bound.
        """
        tracking = item.tracking
        since = None if tracking is None else tracking.since
        item.look(last=True)  # finds that the memory has gone
        if item.due and item.attach(budget) and since is not None:
            unseen = max(0.0, (now() - since).total_seconds())
            self._terms.say(
                f"{item.facts.pid} ({item.facts.name}) was exec'd: attached again;"
                f" writes in the last {format_seconds(unseen)} before it were not seen"
            )
            if note := rights_lost(item.facts.exe or ""):
                self._terms.say(note)
        self.launched.go_on()

    def let_end(self, stop: int) -> None:
        """Let CMD go on; if it stood at its end, wait until it has ended.

        Args:
            stop: A descriptor that ends the wait when it becomes readable.
        """
        self.launched.go_on()
        if not self.launched.tracee.ends:
            return
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(self.launched.pid)
            try:
                ready = select.poll()
                ready.register(pidfd, select.POLLIN)
                ready.register(stop, select.POLLIN)
                ready.poll()
            finally:
                os.close(pidfd)

    def check_tracer(self, *, lives: bool) -> None:
        """Say once that the tracer was killed while CMD lives."""
        if self.launched.tracee.lost and lives and not self._told:
            self._told = True
            self._terms.say(TRACER_LOST)

    def exit_code(self, last: GroupTick | None, stop: int) -> int:
        """Return CMD's exit status, 128 + N after signal N; 0 if CMD may run on."""
        if last is None or last.end != "exited":
            return 0
        return self.launched.exit_code(stop)
