"""Counts the bytes that groups of processes write, at a tick of its own.

Each process is tracked as by `watch`; a look protects its pages again. Processes that
come are attached at the next tick, those that go stay in the totals of their group.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

from pagescan.exporter.collector import Counted
from pagescan.exporter.groups import Group, Grouped, Grouping
from pagescan.exporter.metrics import kind_of
from pagescan.exporter.readings import devices
from pagescan.model.errors import (
    AccessDeniedError,
    KernelUnsupportedError,
    NoSuchTargetError,
    PagescanError,
    SessionError,
    TargetError,
)
from pagescan.model.looks import Look
from pagescan.model.memory import PAGE_SIZE, Untracked
from pagescan.session.watched import Terms, Watched
from pagescan.target.group import Member

_PATIENCE = 60.0  # seconds without a tick after which the looks count as stopped
_MOST = 1000  # processes that are tracked: a fork bomb must not become ours
_AGAIN = 32  # ticks after which a refused process is tried again, at the latest


class _TooManyError(PagescanError):
    """As many processes are tracked as may be."""


_REASONS: tuple[tuple[type[PagescanError], str], ...] = (
    (_TooManyError, "too many processes"),
    (AccessDeniedError, "access denied"),
    (KernelUnsupportedError, "not supported by this kernel"),
    (SessionError, "tracked already"),
    (TargetError, "a process that cannot be attached to"),
)
"""Short names for errors: those of the errors have pids, which are no labels."""

Say = Callable[[str], None]


@dataclass(slots=True)
class _Tracked:
    """A process that is tracked; closing the stack disarms it.

    Attributes:
        watched: The tracked process.
        stack: What disarms it.
        group: Its group at the last look.
        untracked: The parts of its memory that are not tracked.
    """

    watched: Watched
    stack: contextlib.ExitStack
    group: Group
    untracked: tuple[Untracked, ...] = ()


@dataclass(slots=True)
class _Refused:
    """A process that cannot be tracked.

    Attributes:
        reason: Why, as a label.
        again: The tick at which it is tried again.
        pause: The ticks between this trial and that.
    """

    reason: str
    again: int
    pause: int


@dataclass(slots=True)
class _State:
    """What is known of the processes, by pid and start time."""

    tracked: dict[tuple[int, int], _Tracked] = field(default_factory=dict)
    refused: dict[tuple[int, int], _Refused] = field(default_factory=dict)


class WrittenCounter:
    """The written bytes of groups; a context manager that disarms at the end.

    Args:
        grouping: Which processes, in which groups.
        terms: The terms on which each process is tracked.
        say: Called with each message for the user.
        end_early: Whether the end leaves split huge pages as they are; asked often.

    Attributes:
        most: The most processes that are tracked at a time.
    """

    def __init__(
        self,
        grouping: Grouping,
        terms: Terms,
        say: Say,
        end_early: Callable[[], bool],
    ) -> None:
        """Begin without tracked processes: the first tick attaches."""
        self._grouping = grouping
        self._terms = terms
        self._say = say
        self._end_early = end_early
        self._state = _State()
        self._lock = threading.Lock()
        self._counted = Counted(tick=terms.interval, note=_note(terms))
        self.most = _MOST
        self._hold = 0.0
        self._last = time.monotonic()
        self._patience = max(3 * terms.interval, _PATIENCE)

    def counted(self) -> Counted:
        """Return what was counted so far."""
        with self._lock:
            return replace(
                self._counted,
                alive=time.monotonic() - self._last < self._patience,
                written={
                    group: dict(kinds) for group, kinds in self._counted.written.items()
                },
            )

    def take_hold(self) -> float:
        """Return the longest hold of a process's mmap lock since the last call."""
        with self._lock:
            hold, self._hold = self._hold, 0.0
        return hold

    def tick(self) -> None:
        """Look at every process; attach to those that came, leave those that went."""
        grouped = self._grouping.now()
        members = grouped.members
        state = self._state
        for key in state.tracked.keys() - members.keys():
            with contextlib.suppress(PagescanError):  # it has left, or has ended
                self._count(state.tracked[key])
            self._leave(key)
        for key in state.refused.keys() - members.keys():
            del state.refused[key]
        untracked: dict[Group, dict[str, int]] = {}
        for group, many in grouped.groups.items():
            reasons = untracked.setdefault(group, {})
            for member in many:
                if self._end_early():
                    return
                self._look(member, group)
                for reason, size in self._untracked(member):
                    reasons[reason] = reasons.get(reason, 0) + size
        self._finish(grouped, untracked)

    def _finish(self, grouped: Grouped, untracked: dict[Group, dict[str, int]]) -> None:
        """Make the result of a tick visible; groups that have gone vanish."""
        with self._lock:
            counted = self._counted
            for group in counted.written.keys() - grouped.groups.keys():
                del counted.written[group]
            counted.untracked = untracked
            counted.ticks += 1
            self._last = time.monotonic()

    def _look(self, member: Member, group: Group) -> None:
        """Look at one process; attach to it if it came, or has called exec."""
        state = self._state
        tracked = state.tracked.get(member.key)
        if tracked is not None:
            try:
                tracked.group = group
                self._count(tracked)
            except NoSuchTargetError:
                self._leave(member.key)
            except TargetError:  # an exec: the new program is tracked
                self._leave(member.key)
                self._attach(member, group)
            except PagescanError as error:
                self._leave(member.key)
                self._refuse(member, error)
            return
        refused = state.refused.get(member.key)
        if refused is None or self._counted.ticks >= refused.again:
            if len(state.tracked) < self.most:
                self._attach(member, group)
            else:
                self._refuse(member, _TooManyError(f"{self.most} are tracked already"))

    def _attach(self, member: Member, group: Group) -> None:
        """Attach to a process and arm it, or note why that is not possible."""
        try:
            with contextlib.ExitStack() as stack:
                watched = stack.enter_context(
                    Watched.armed(member.pid, self._terms_of_one())
                )
                if watched.target.facts.start_time != member.start_time:
                    return  # a later process of the same pid: the next tick knows it
                tracking = watched.tracking
                tracking.end_early = self._end_early
                self._hold = max(self._hold, tracking.cost.max_wait_ns / 1e9)
                untracked = tuple(tracking.armed.untracked)
                self._state.tracked[member.key] = _Tracked(
                    watched, stack.pop_all(), group, untracked
                )
        except NoSuchTargetError:
            return
        except PagescanError as error:
            self._refuse(member, error)
        else:
            self._state.refused.pop(member.key, None)

    def _terms_of_one(self) -> Terms:
        """Return terms with a pace of their own: it adapts to each process."""
        pace = replace(self._terms.pace, progress=None)
        return replace(self._terms, pace=pace, say=self._terms.detail)

    def _refuse(self, member: Member, error: PagescanError) -> None:
        """Note that a process cannot be tracked; say it once, the second time.

        The first time it may just have called exec.
        """
        before = self._state.refused.get(member.key)
        if before is not None and before.pause == 1:
            self._say(f"not tracked: {member.name} ({member.pid}): {error}")
        pause = min(before.pause * 2, _AGAIN) if before else 1
        again = self._counted.ticks + pause
        self._state.refused[member.key] = _Refused(_short(error), again, pause)

    def _count(self, tracked: _Tracked) -> None:
        """Look at one process, and add what it has written."""
        look = tracked.watched.tracking.look(rearm=True)
        tracked.untracked = look.untracked
        written = _by_kind(look)
        with self._lock:
            total = self._counted.written.setdefault(tracked.group, {})
            for kind, size in written.items():
                total[kind] = total.get(kind, 0) + size
            self._hold = max(self._hold, look.cost.max_wait_ns / 1e9)

    def _untracked(self, member: Member) -> list[tuple[str, int]]:
        """Return the reasons and sizes of what is not tracked of a process."""
        tracked = self._state.tracked.get(member.key)
        if tracked is not None:
            return [
                (item.why, item.end - item.start)
                for item in tracked.untracked
                if not item.never_written
            ]
        refused = self._state.refused.get(member.key)
        return [(refused.reason, _resident(member.pid))] if refused else []

    def _leave(self, key: tuple[int, int]) -> None:
        """Disarm a process, if it lives, and forget it."""
        with contextlib.suppress(PagescanError):
            self._state.tracked.pop(key).stack.close()

    def close(self) -> None:
        """Disarm all processes."""
        for key in list(self._state.tracked):
            self._leave(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _short(error: PagescanError) -> str:
    for kind, text in _REASONS:
        if isinstance(error, kind):
            return text
    return "see the log of the exporter"


def _note(terms: Terms) -> str:
    if terms.percent is None:
        return ""
    return (
        f"Estimated: tracking may cost each process {terms.percent:g} % of its"
        " processor time."
    )


def _by_kind(look: Look) -> dict[str, int]:
    """Return the written bytes of a look by kind; estimated ones in proportion."""
    memory = devices()
    found: dict[str, int] = {}
    for row in look.batch.by_mapping():
        # Memory that was unmapped since has no kind; nothing of it is in the rows.
        if kind := kind_of(row.mapping, memory):
            found[kind] = found.get(kind, 0) + row.bytes
    seen = sum(found.values())
    if look.estimate is None or not seen:
        return found
    factor = look.estimate.pages * look.batch.page_size / seen
    return {kind: round(size * factor) for kind, size in found.items()}


def _resident(pid: int) -> int:
    """Return the resident memory of a process; source: proc_pid_statm(5)."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 256).split()[1]) * PAGE_SIZE
        finally:
            os.close(fd)
    return 0
