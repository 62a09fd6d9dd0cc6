"""Follows the processes of a group and their children, and counts what they copy.

The kernel tells of each fork of a member, so its child is followed from its first
instruction. Other processes that come are found once per report.
"""

from __future__ import annotations

import contextlib
import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.families import Program, lives
from pagescan.attribution.samples import FaultSampler, clock_ns
from pagescan.model.errors import NoSuchTargetError, PagescanError
from pagescan.model.groups import GroupFacts
from pagescan.native.perf import FORK, Task
from pagescan.target.census import Census
from pagescan.target.forked_memory import sharing_parent

if TYPE_CHECKING:
    from pagescan.model.copies import CopyReport
    from pagescan.target.group import Member, Selector


class GroupCopyWatch(CopyCounter):
    """The copies of a group's processes and their children. A context manager.

    Children of a member are followed, also if the group does not take them.

    Attributes:
        selector: The group.

    Examples:
        >>> import pagescan
        >>> with pagescan.GroupCopyWatch(pagescan.Tree.of(4242)) as watch:
        ...     report = watch.report()
        >>> report.target, report.group.kind, report.summary.copied
        (None, 'tree', 0)
    """

    def __init__(self, selector: Selector, *, existing: bool = True) -> None:
        """Begin to follow the present processes.

        Args:
            selector: The group.
            existing: Compare the children that exist with their parents.

        Raises:
            NoSuchTargetError: There is no process in the group.
            PagescanError: None of them can be followed; the message has a reason.
        """
        self.selector = selector
        first = selector.require()
        with contextlib.ExitStack() as undo:
            sampler = undo.enter_context(FaultSampler([], children=True))
            super().__init__(sampler)
            self.group = GroupFacts(selector.kind, selector.name)
            self._census = Census(selector, first)
            self._origins: dict[int, int] = {}
            self._guests: set[int] = set()
            self._take_in(first, existing=existing)
            if not self.processes:
                raise self._nothing()
            self.copied_before = self.count_before()
            self._undo = undo.pop_all()

    def _nothing(self) -> PagescanError:
        """Return the error that tells why no process can be followed."""
        error = self._unfollowed.first
        if error is not None:
            return PagescanError(
                f"no process in {self.selector} can be followed: {error}",
                hint="pagescan cow PID gives the details for one process",
                pid=error.pid,
                call=error.call,
                errno=error.errno,
            )
        return NoSuchTargetError(f"all processes in {self.selector} have ended")

    def _take_in(self, present: tuple[Member, ...], *, existing: bool = True) -> None:
        """Follow the processes that have come.

        Args:
            present: The present members.
            existing: Compare those that a member has forked with their parent.
        """
        waiting: dict[int, Member] = {}
        parents: dict[int, int | None] = {}
        for member in present:
            pid, process = member.pid, self.processes.get(member.pid)
            if process is not None and process.lives:
                process.label = member.label
                process.shown, process.name = True, member.name
            elif pid not in self._guests and not self._unfollowed.has(*member.key):
                with self._trying(member, "perf_event_open"):
                    self._sample(pid)
                    parents[pid] = sharing_parent(pid) if existing else None
                    waiting[pid] = member
        while waiting:
            roots = [pid for pid in waiting if parents[pid] not in waiting]
            for pid in roots or [*waiting]:
                self._add_member(waiting.pop(pid), parents[pid])

    def _trying(self, member: Member, call: str) -> AbstractContextManager[None]:
        return self._unfollowed.trying(
            member.pid, member.name, call, start_time=member.start_time
        )

    def _sample(self, pid: int) -> None:
        """Begin to sample a process, unless its parent's events do that."""
        if pid not in self._origins:
            self._sampler.add(pid)
            self._origins[pid] = pid

    def _add_member(self, member: Member, parent: int | None) -> None:
        pid, name = member.pid, member.name
        with self._trying(member, "open"):
            if parent in self.processes and self.add_existing(parent, pid, name):
                self._guests.add(pid)
            process = self.processes.get(pid)
            if process is None or not process.lives:
                if pid in self._guests or pid in self._unfollowed:
                    return
                process = self.add_process(pid, name, Program(pid))
            process.label = member.label

    def _take_task(self, task: Task) -> None:
        if task.kind == FORK and task.pid != task.parent:
            origin = self._origins.get(task.parent)
            if origin is not None:
                self._origins[task.pid] = origin
        super()._take_task(task)

    def _add_vfork(self, task: Task) -> None:
        self._guests.add(task.pid)
        super()._add_vfork(task)

    def _run_program(self, pid: int, name: str) -> None:
        """Follow the new program of a process; the next report shows it."""
        self._guests.discard(pid)
        with self._unfollowed.trying(pid, name, "open"):
            self.add_process(pid, name, Program(pid)).shown = False

    def report(self, by: str = "process", end: str | None = None) -> CopyReport:
        """Take in the processes that have come, and return the copies so far.

        Args:
            by: What `sides[].by` lists: function, mapping or time; process: function.
            end: Why this is the last report; None: it is not.
        """
        self.pump()
        present = self._census.read()
        self._let_go({member.pid for member in present})
        self._take_in(present)
        return super().report(by, end)

    def _let_go(self, present: set[int]) -> None:
        """Follow those no more that have left the group, or ended without a record."""
        for pid, process in [*self.processes.items()]:
            if not process.lives or pid in present:
                continue
            if not lives(pid):
                self._finish(pid, clock_ns(), "exited")
            elif process.made is None and process.shown:
                self._finish(pid, clock_ns(), "left")
        for pid in [*self._origins]:
            if not os.path.exists(f"/proc/{pid}"):
                del self._origins[pid]
                self._guests.discard(pid)
        for origin in self._sampler.pids - {*self._origins.values()}:
            self._sampler.remove(origin)
        self._unfollowed.forget_ended()

    @property
    def inputs(self) -> list[int]:
        """No descriptor tells of the end of a group."""
        return []

    def is_over(self, ready: list[int]) -> bool:  # noqa: ARG002 - there are no inputs
        """Whether all processes of a tree have ended; other groups may get new ones."""
        if self.selector.kind != "tree":
            return False
        if any(process.lives for process in self.processes.values()):
            return False
        return not self._census.read(full=True)
