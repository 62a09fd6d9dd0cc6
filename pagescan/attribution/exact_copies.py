"""Adds what the write bits of both sides tell to the copies that samples tell.

A sample tells the code of a copy, but writers without a page fault have none, and
samples can be lost. The bits miss neither. They are read at each report: a page that is
written and has no sample gets the code address 0.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import os
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.attribution.fork_events import ForkEvent, ForkEvents
from pagescan.attribution.forks import private_of, samples_of
from pagescan.attribution.samples import clock_ns
from pagescan.model.errors import PagescanError, TargetError
from pagescan.model.memory import Category
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.target.process import Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagescan.attribution.forks import Fork

_WRITTEN = Query(require=Category.WRITTEN, returned=Category.WRITTEN)


class ArmedSide:
    """A process whose writes the kernel notes.

    Attributes:
        number: Its number with the reader.
        inherited: Pages that were written before its begin, or before its last fork:
            their bit is set, and tells nothing. A write to one of them has a sample.
    """

    def __init__(self, number: int, target: Target) -> None:
        """Begin without an inherited page."""
        self.number, self.target = number, target
        self.inherited = native.Columns.empty()

    def before(self, event: ForkEvent) -> native.Columns:
        """Return what it had written before a fork; these bits tell nothing later.

        The reader has taken and cleared the bits, unless it did not know the process.
        """
        noted = self.noted() if event.written is None else event.written
        found = self.own(noted)
        self.inherited = noted if event.written is None else native.Columns.empty()
        return found

    def written(self) -> native.Columns:
        """Return what it has written since its last fork, or since its begin."""
        return self.own(self.noted())

    def noted(self) -> native.Columns:
        """Return the pages whose bit is set."""
        found = Scanner(self.target).scan(private_of(self.target), _WRITTEN)
        self.target.check_alive()
        return found

    def own(self, found: native.Columns) -> native.Columns:
        """Leave out the inherited pages."""
        if not self.inherited.starts:
            return found
        return native.outside(found, self.inherited.starts, self.inherited.ends)


class ExactCopies:
    """The written pages of a target and its children. A context manager.

    Attributes:
        without_event: Children whose begin had no event: vfork(2), posix_spawn(3).
        unread: Processes that live and whose bits could not be read, with the reasons.
    """

    def __init__(self, pid: int) -> None:
        """Arm a target, and read its forks from now on; errors as for ForkEvents."""
        with contextlib.ExitStack() as undo:
            target = undo.enter_context(Target.open(pid))
            self.events = ForkEvents(pid)
            undo.pop_all()
        self._armed = {pid: ArmedSide(0, target)}
        self.without_event: set[int] = set()
        self.unread: dict[int, PagescanError] = {}
        self._forks: list[Fork] = []  # whose engine is "exact"
        self._notes: dict[str, None] = {}

    @property
    def lost(self) -> str | None:
        """Why the bits are not read any more; None: they are."""
        return self.events.lost

    def forked(self, fork: Fork) -> list[native.Faults]:
        """Follow the child of a fork; return the writes that are known by now.

        The fork gets the engine "exact" if its event and the bits were read.
        """
        pids = fork.parent.pid, fork.child.pid
        parent = self._armed.get(fork.parent.pid)
        event = self.events.of(parent.number, fork.at) if parent else None
        if parent is None or event is None:
            if parent is not None and self.lost is None:
                self.without_event.add(fork.child.pid)
            return []
        found: list[native.Faults] = []
        with self._reading(pids[0]):
            before = parent.before(event)  # written for the older children to see
            found.append(samples_of(pids[0], event.begun - 1, before))
            fork.parent.since = min(fork.parent.since, event.begun)
            with self._reading(pids[1]):
                self._armed[pids[1]] = child = self._child(event, pids[1])
                fork.engine = "exact"
                self._forks.append(fork)
                if event.written is not None and _has_threads(pids[0]):
                    late = child.own(event.written)
                    found.append(samples_of(pids[0], fork.at, late))
        if pids[0] in self.unread:  # its bits tell the writes before the fork, too
            self.ended(pids[0])
        if pids[1] in self.unread:
            self.ended(pids[1])
        if fork.engine != "exact":
            self.events.forget(event.child)
        return found

    def _child(self, event: ForkEvent, pid: int) -> ArmedSide:
        with contextlib.ExitStack() as undo:
            child = ArmedSide(event.child, undo.enter_context(Target.open(pid)))
            self.events.name(event.child, pid)
            child.inherited = child.noted()
            undo.pop_all()
        return child

    @contextlib.contextmanager
    def _reading(self, pid: int) -> Iterator[None]:
        """Run a block that reads the bits of a process; its end ends the block, too.

        Any other failure is remembered in `unread`.
        """
        self.unread.pop(pid, None)
        try:
            yield
        except TargetError:
            return
        except PagescanError as error:
            self.unread[pid] = error

    def ended(self, pid: int) -> None:
        """Forget a process that has ended, runs another program, or cannot be read."""
        armed = self._armed.pop(pid, None)
        if armed is not None:
            self.events.forget(armed.number)
            armed.target.close()
        for fork in self._forks:
            if pid in (fork.parent.pid, fork.child.pid):
                fork.engine = self.engine_of(fork)
        self._forks = [fork for fork in self._forks if fork.end is None]
        if pid in self.unread:
            self._notes[self._note(pid)] = None
            del self.unread[pid]

    def engine_of(self, fork: Fork) -> str:
        """Return by what the copies of a fork were counted."""
        sides = fork.parent.pid, fork.child.pid
        if fork.end is None and not self.unread.keys().isdisjoint(sides):
            return "perf"
        return fork.engine

    def _note(self, pid: int) -> str:
        return f"copies of {pid} were counted by samples alone: {self.unread[pid]}"

    @property
    def notes(self) -> list[str]:
        """Notes for the user about processes whose bits were not read."""
        return [*dict.fromkeys([*self._notes, *map(self._note, self.unread)])]

    def look(self) -> list[native.Faults]:
        """Return the writes of all processes, with the time of this look.

        Bits that cannot be read now stay for the next look.
        """
        self.events.drop_old()
        found = []
        for pid, armed in self._armed.items():
            if self.lost is not None:
                break
            with self._reading(pid):
                regions = armed.written()
                found.append(samples_of(pid, clock_ns(), regions))
        return found

    def close(self) -> None:
        """Disarm; a second call has no effect."""
        self.events.close()
        for armed in self._armed.values():
            armed.target.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _has_threads(pid: int) -> bool:
    """Whether another thread may have written after the page tables were copied."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return True
