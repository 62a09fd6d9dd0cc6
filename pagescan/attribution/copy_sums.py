"""Counts each copy of a family once, however many forks share the page.

A write to a page that others share is a copy. If all others have made copies of
theirs, or have ended, the page is the writer's own, and its write copies nothing.

Which processes share a page is told by the forks, and by what was copied between them.
A process of this file has an *epoch* per fork: the pages that it has copied since.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from pagescan.model.memory import PAGE_SIZE

if TYPE_CHECKING:
    from pagescan.attribution.forks import Fork


class _Member:
    """A process: its forks, and what it has copied since each of them."""

    def __init__(self) -> None:
        self.lives = True
        self.forks: list[Fork] = []
        self.epochs: list[tuple[int, set[int]]] = []

    def add_fork(self, fork: Fork) -> None:
        self.forks.append(fork)
        self.epochs.append((fork.at, set()))
        self.epochs.sort(key=lambda epoch: epoch[0])

    def drop_fork(self, fork: Fork) -> None:
        """Forget a fork; the epochs before and after it are one then."""
        self.forks.remove(fork)
        kept: list[tuple[int, set[int]]] = []
        times = {other.at for other in self.forks}
        for begin, pages in self.epochs:
            if begin in times:
                kept.append((begin, pages))
            elif kept:
                kept[-1][1].update(pages)
        self.epochs = kept  # what was copied before the first fork is of no interest

    def store(self, by_fork: list[tuple[Fork, set[int]]]) -> None:
        """Store copies, each in the epoch of the last fork before it."""
        epochs = dict(self.epochs)
        stored: set[int] = set()
        for fork, pages in sorted(by_fork, key=lambda item: -item[0].at):
            if fork.at in epochs:
                epochs[fork.at].update(pages - stored)
            stored |= pages

    def not_copied(self, pages: set[int], since: int, until: int) -> set[int]:
        """Return the pages that it has not copied between two forks."""
        for begin, copied in self.epochs:
            if since <= begin < until and pages:
                pages = pages - copied
        return pages


_FOREVER = (1 << 64) - 1


class CopySums:
    """The copies of a family, each counted once.

    Attributes:
        copied: Pages.
    """

    def __init__(self) -> None:
        """Begin without a fork."""
        self.copied = 0
        self._members: dict[int, _Member] = {}

    def add_fork(self, fork: Fork) -> None:
        """Add a fork, and its child."""
        parent = self._members.get(fork.parent.pid)
        if parent is None or not parent.lives:  # its pid is used again
            parent = self._members[fork.parent.pid] = _Member()
        child = self._members[fork.child.pid] = _Member()
        parent.add_fork(fork)
        child.add_fork(fork)

    def end(self, pid: int) -> None:
        """Note that a process has ended or called exec: it shares nothing."""
        member = self._members.get(pid)
        if member is not None:
            member.lives = False
            self._prune(pid)

    def forget_fork(self, fork: Fork) -> None:
        """Take back a fork."""
        for side in (fork.parent, fork.child):
            member = self._members.get(side.pid)
            if member is not None and fork in member.forks:
                member.drop_fork(fork)
                self._drop_if_alone(side.pid)

    def _prune(self, pid: int) -> None:
        """Forget processes that have ended and connect no others."""
        while (member := self._members.get(pid)) is not None:
            if member.lives or len(member.forks) > 1:
                return
            if not member.forks:
                del self._members[pid]
                return
            fork = member.forks[0]
            other = fork.parent.pid if fork.child.pid == pid else fork.child.pid
            self.forget_fork(fork)
            self._members.pop(pid, None)
            pid = other

    def _drop_if_alone(self, pid: int) -> None:
        if not self._members[pid].forks:
            del self._members[pid]

    def add(self, pid: int, by_fork: list[tuple[Fork, set[int]]]) -> None:
        """Add the first writes of a process to pages that it shared at its forks.

        Args:
            pid: The process.
            by_fork: Per fork, the page numbers of its first writes since that fork.
        """
        member = self._members.get(pid)
        written: set[int] = set().union(*(pages for _, pages in by_fork))
        if member is None:
            return
        alone = written
        for fork, pages in by_fork:
            if fork in member.forks:
                alone = self._without_shared(pid, fork, pages, alone)
        self.copied += len(written) - len(alone)
        member.store(by_fork)

    def _without_shared(
        self, pid: int, fork: Fork, pages: set[int], alone: set[int]
    ) -> set[int]:
        """Leave out the pages that a process shares by way of one of its forks.

        Args:
            pid: The process.
            fork: The fork.
            pages: Pages that it has not copied since.
            alone: Pages that no other process is known to share.
        """
        waiting = [(pid, fork, pages & alone)]
        while waiting and alone:
            here, fork, pages = waiting.pop()
            there = fork.parent.pid if fork.child.pid == here else fork.child.pid
            member = self._members.get(there)
            if member is None or fork not in member.forks or not pages:
                continue
            if member.lives:
                alone = alone - member.not_copied(pages, fork.at, _FOREVER)
            for other in member.forks:
                if other is not fork:
                    since, until = sorted((fork.at, other.at))
                    rest = member.not_copied(pages & alone, since, until)
                    waiting.append((there, other, _shared_at(other, rest)))
        return alone


def _shared_at(fork: Fork, pages: set[int]) -> set[int]:
    """Return the pages that a fork shared; of all but old forks this is known."""
    if fork.copied_before is None:
        return pages
    starts, ends = fork.shared.starts, fork.shared.ends
    found = set()
    for page in pages:
        at = bisect_right(starts, page * PAGE_SIZE) - 1
        if at >= 0 and page * PAGE_SIZE < ends[at]:
            found.add(page)
    return found
