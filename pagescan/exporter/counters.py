"""Counts the bytes that groups of processes write, at a tick of its own.

Each process is tracked as by `watch`; each look protects its pages again. New processes
are attached at the next tick; the writes of processes that have gone stay in the totals
of their group.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pagescan.exporter.collector import Counted
from pagescan.exporter.groups import Group, Grouped, Grouping
from pagescan.exporter.metrics import kind_of
from pagescan.exporter.readings import devices
from pagescan.model.errors import (
    AccessDeniedError,
    KernelUnsupportedError,
    PagescanError,
    SessionError,
    TargetError,
)
from pagescan.model.looks import Look
from pagescan.model.memory import PAGE_SIZE
from pagescan.native import Pace
from pagescan.session.group_limit import MOST
from pagescan.session.member import WatchedMember
from pagescan.session.watched import Terms
from pagescan.target.group import Member
from pagescan.tracking.target_cost import TargetCost

if TYPE_CHECKING:
    from pagescan.tracking.sample import Budget

_PATIENCE = 60.0  # seconds without a tick after which the looks count as stopped
_TOO_MANY = "too many processes"
_REASONS: tuple[tuple[type[PagescanError], str], ...] = (
    (AccessDeniedError, "access denied"),
    (KernelUnsupportedError, "not supported by this kernel"),
    (SessionError, "tracked already"),
    (TargetError, "a process that cannot be attached to"),
)
"""Short reasons for errors, as labels: the messages of errors contain pids."""

Say = Callable[[str], None]
Key = tuple[int, int]


class WrittenCounter:
    """The written bytes of groups; a context manager that disarms at the end.

    Args:
        grouping: Selects the processes and sorts them into groups.
        terms: The terms on which each process is tracked.
        say: Called with each message for the user.
        end_early: Tells whether the end shall leave split huge pages as they are; it is
            called often.

    Attributes:
        most: The largest number of processes that are tracked at a time.
    """

    def __init__(
        self,
        grouping: Grouping,
        terms: Terms,
        say: Say,
        end_early: Callable[[], bool],
    ) -> None:
        """Begin without tracked processes: the first tick attaches."""
        self.most = MOST
        self._grouping = grouping
        self._terms = terms
        self._say = say
        self._end_early = end_early
        self._budget = _budget(terms)
        self._members: dict[Key, WatchedMember] = {}
        self._groups: dict[Key, Group] = {}
        self._said: set[object] = set()
        self._lock = threading.Lock()
        self._counted = Counted(tick=terms.interval, note=_note(terms))
        self._hold = 0.0
        self._last = time.monotonic()
        self._patience = max(3 * terms.interval, _PATIENCE)

    def counted(self) -> Counted:
        """Return the counters as they are now."""
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
        """Look at every process; attach to new ones, and leave those that have gone."""
        grouped = self._grouping.now()
        for key in self._members.keys() - grouped.members.keys():
            self._leave(key)
        untracked: dict[Group, dict[str, int]] = {}
        for group, many in grouped.groups.items():
            reasons = untracked.setdefault(group, {})
            for member in many:
                if self._end_early():
                    return
                for reason, size in self._look(member, group):
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

    def _look(self, member: Member, group: Group) -> list[tuple[str, int]]:
        """Look at one process; attach to it if it is new or has called exec.

        Returns:
            The reason and the size of each part of it that is not tracked.
        """
        one = self._members.get(member.key)
        if one is None:
            one = WatchedMember(member, self._terms_of_one())
            one.toll = TargetCost(self._terms.fault)
            self._members[member.key] = one
        self._groups[member.key] = group
        look = one.look()
        if look is not None:
            self._count(member.key, look)
        if one.due:
            if sum(map(_is_tracked, self._members.values())) >= self.most:
                self._say_once(_TOO_MANY, f"{self.most} processes are tracked: no more")
                return [(_TOO_MANY, _resident(member.pid))]
            self._attach(one)
        if one.tracking is None:
            return [(_short(one.refusal), _resident(member.pid))] if one.why else []
        return [
            (item.why, item.part.end - item.part.start)
            for item in one.untracked(look)
            if item.part is not None
        ]

    def _attach(self, one: WatchedMember) -> None:
        """Attach to a process and arm it, or say once why that is not possible."""
        if one.attach(self._budget) and one.tracking is not None:
            one.tracking.end_early = self._end_early
            with self._lock:  # from now on nothing written is known, not a guess
                self._counted.written.setdefault(self._groups[one.member.key], {})
            self._note_hold(one.tracking.cost.max_wait_ns)
        elif one.why:
            pid, name = one.member.pid, one.member.name
            self._say_once(one.member.key, f"not tracked: {name} ({pid}): {one.why}")

    def _say_once(self, about: object, text: str) -> None:
        if about not in self._said:
            self._said.add(about)
            self._say(text)

    def _terms_of_one(self) -> Terms:
        """Return the terms for one process: with its own pace, which adapts to it."""
        given = self._terms.pace
        pace = Pace(given.max_stall_ns, given.pause_ns)
        return replace(self._terms, pace=pace, say=self._terms.detail)

    def _count(self, key: Key, look: Look) -> None:
        """Add the written bytes of a process to its group."""
        written = _by_kind(look)
        with self._lock:
            total = self._counted.written.setdefault(self._groups[key], {})
            for kind, size in written.items():
                total[kind] = total.get(kind, 0) + size
        self._note_hold(look.cost.max_wait_ns)

    def _note_hold(self, nanoseconds: int) -> None:
        with self._lock:
            self._hold = max(self._hold, nanoseconds / 1e9)

    def _leave(self, key: Key) -> None:
        """Look at a process a last time, if it lives, and disarm it."""
        one = self._members.pop(key)
        with contextlib.suppress(PagescanError):
            if (look := one.look(last=True)) is not None:
                self._count(key, look)
            one.close()
        self._said.discard(key)
        del self._groups[key]

    def close(self) -> None:
        """Disarm all processes."""
        for key in list(self._members):
            with contextlib.suppress(PagescanError):
                self._members.pop(key).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_tracked(one: WatchedMember) -> bool:
    return one.tracking is not None


def _budget(terms: Terms) -> "Budget | None":
    """Return what tracking may cost one process; None: no bound."""
    if terms.percent is None:
        return None
    from pagescan.tracking.fault_cost import USUAL
    from pagescan.tracking.sample import Budget

    cost = terms.fault.seconds if terms.fault else USUAL
    return Budget.of(terms.percent, terms.interval, cost)


def _short(error: Exception | None) -> str:
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
        # Mappings that have gone since have no kind; the rows do not contain them.
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
