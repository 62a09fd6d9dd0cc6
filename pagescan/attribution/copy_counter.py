"""Follows processes and their forked children, and counts the shared pages they copy.

Nothing is armed and nothing is stopped: each copy is a page fault, and is sampled.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from itertools import compress
from typing import TYPE_CHECKING, Self

from pagescan.attribution.copy_report import Reporter
from pagescan.attribution.copy_sums import CopySums
from pagescan.attribution.delays import PUMPS_UNTIL_SURE, Delay
from pagescan.attribution.drops import Drops
from pagescan.attribution.families import (
    FamilyProcess,
    Program,
    families_of,
    is_one_memory,
    lives,
    threads_of,
)
from pagescan.attribution.forks import (
    FOREVER,
    Fork,
    LateMemory,
    Side,
    begun_ns,
    compared,
    copies_within,
    either,
)
from pagescan.attribution.samples import FaultSampler, clock_ns
from pagescan.attribution.unfollowed import Unfollowed
from pagescan.model.memory import PAGE_SIZE
from pagescan.native.perf import EXEC, EXIT, FORK, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagescan import native
    from pagescan.attribution.exact_copies import ExactCopies
    from pagescan.model.copies import CopyReport
    from pagescan.model.groups import GroupFacts, MemberUntracked
    from pagescan.model.results import TargetFacts

ENDED_FORKS = 1000
_RECENT = 100  # batches: at least 0.2 s, which is longer than a fork waits


class CopyCounter(ABC):
    """The copies of some processes and of their children. A context manager.

    `CopyWatch` follows one process, `GroupCopyWatch` a group.
    Call `pump` often, about fifty times per second: it looks at new forks.
    Call `report` once per interval.

    Attributes:
        forks: The forks that were seen, the latest last; of those that have ended, the
            last thousand.
        processes: The processes of these forks, by pid.
        former: Processes of before, whose pid has another program or process now.
        vforks: Children that had no memory of their own.
        exact: The armed memory; None: it was not asked for.
        sums: The copies of all processes, each counted once.
        fork_count: How many forks were seen.
        copied_before: Pages that were copied before the forks were followed.
        target_facts: The oldest process; None: this is of a group.
        group: The group; None: this is of one process.
    """

    target_facts: TargetFacts | None = None
    group: GroupFacts | None = None

    def __init__(
        self,
        sampler: FaultSampler,
        exact: ExactCopies | None = None,
    ) -> None:
        """Begin without a process."""
        self._sampler, self.exact = sampler, exact
        self._undo = contextlib.ExitStack()
        self.forks: list[Fork] = []
        self.vforks = self.samples = self._number = 0
        self.fork_count = self.copied_before = 0
        self.processes: dict[int, FamilyProcess] = {}
        self.former: list[FamilyProcess] = []
        self.sums = CopySums()
        self._held: list[native.Faults] = []
        self._recent: list[native.Faults] = []
        self._doubtful, self._leaving, self._ending = Delay(), Delay(), Delay()
        self._late, self._drops = LateMemory(), Drops()
        self._unfollowed = Unfollowed()
        self.reporter = Reporter(self)

    @property
    def user_only(self) -> bool:
        """Whether copies made by the kernel, as in read(2), are not seen."""
        return self._sampler.user_only

    def add_process(
        self, pid: int, name: str, program: Program, threads: int | None = None
    ) -> FamilyProcess:
        """Follow one more process; `threads` None: count them."""
        threads = threads_of(pid) if threads is None else threads
        if pid in self.processes:
            self.former = [*self.former, self.processes[pid]][-ENDED_FORKS:]
        process = self.processes[pid] = FamilyProcess(pid, name, program)
        process.tids = threads
        return process

    def add_existing(self, parent: int, child: int, name: str) -> bool:
        """Compare a child of before with its parent; return whether it was vforked."""
        with self._unfollowed.trying(child, name, "kcmp"):
            if is_one_memory(parent, child):
                self.vforks += 1
                return True
            stat, found = compared(parent, child)
            threads = threads_of(child)
            self.copied_before += found.copied
            before = {"since": clock_ns(), "copied_before": found.copied}
            at = begun_ns(stat)
            self._add_fork(at, parent, child, stat.name, found.regions, **before)
            self.processes[child].tids = threads
        return False

    def count_before(self) -> int:
        """Count what was copied before, each copy once; files are left out."""
        return sum(copies_within(one, self._opening) for one in families_of(self.forks))

    def _opening(self, pid: int) -> contextlib.AbstractContextManager[None]:
        name, what = self.processes[pid].name, "its copies until now are not known: "
        return self._unfollowed.trying(pid, name, "open", what=what)

    def _add_fork(
        self,
        at: int,
        parent: int,
        child: int,
        name: str,
        shared: native.Columns,
        **before: int,
    ) -> Fork:
        self._number += 1
        fork = Fork(self._number, at, parent, child, shared, **before)
        fork.lost_before = self._sampler.lost
        self.forks.append(fork)
        self.fork_count += 1
        maker = self.processes[parent]
        process = self.add_process(child, name, maker.program, 1)
        process.made = fork
        fork.parent.process, fork.child.process = maker, process
        for pid in (parent, child):
            if self._ending.cancel(pid):
                self.sums.end(pid)
        self.sums.add_fork(fork)
        return fork

    @property
    def living(self) -> list[Fork]:
        """The forks whose child lives and still shares memory."""
        return [fork for fork in self.forks if fork.end is None]

    @property
    def lost(self) -> int:
        """Samples that the rings had no room for."""
        return self._sampler.lost

    @property
    def ring_bytes(self) -> int:
        """Bytes of a ring; there is one per processor."""
        return self._sampler.ring_bytes

    def pump(self) -> None:
        """Count the samples that have come; look at new children.

        A fork must be known before the samples of its two sides are counted. Its record
        is in the same batch as these samples or in an earlier one, unless the batches
        were taken at the same time. So the next call counts the last batches.
        """
        early, late = self._sampler.take(), self._sampler.take()
        batches = [*self._held, *early]
        for batch in early + late:
            for task in sorted(batch.tasks(), key=lambda task: task.time):
                self._take_task(task)
        for batch in batches:
            self.samples += len(batch)
            self._count(batch)
        if self.exact is not None:
            self._recent = [*self._recent, *batches][-_RECENT:]
        self._held = late
        self._settle()
        self._drops.look(self.living)
        for fork in self.living:
            fork.lost = self._sampler.lost - fork.lost_before

    def _take_task(self, task: Task) -> None:
        process = self.processes.get(task.pid)
        if task.kind == FORK and task.pid != task.parent:
            self._new_child(task)
        elif process is None or not process.lives:
            if task.tid == task.pid and task.kind in (EXIT, EXEC):
                self._end_vfork(task)
        elif task.kind == FORK:
            process.tids += 1
        elif task.kind == EXIT:
            process.tids -= 1
            if process.tids <= 0 or (task.tid == task.pid and not lives(task.pid)):
                self._finish(task.pid, task.time, "exited")
        elif task.kind == EXEC:
            self._finish(task.pid, task.time, "exec")
        if task.kind == EXEC:
            self._run_program(task.pid, task.name)

    def _run_program(self, pid: int, name: str) -> None:
        """Note that a process runs another program now: so do the children it forks."""
        if pid in self.processes:
            with self._unfollowed.trying(pid, name, "open"):
                self.add_process(pid, name, Program(pid)).shown = False

    def _new_child(self, task: Task) -> None:
        known = self.processes.get(task.pid)
        if task.parent not in self.processes or (known is not None and known.lives):
            return  # it is no child of the family, or was there at the start
        maker = self.processes[task.parent]
        with self._unfollowed.trying(task.pid, maker.name, "kcmp"):
            if is_one_memory(maker.pid, task.pid):
                self._add_vfork(task)
                return
            shared, late = self._late.shared(maker.pid, task.pid, maker.made)
            fork = self._add_fork(task.time, maker.pid, task.pid, maker.name, shared)
            fork.late = late
            self._read_bits(fork)

    def _read_bits(self, fork: Fork) -> None:
        """Count what the write bits tell about a new fork."""
        for writes in self.exact.forked(fork) if self.exact is not None else ():
            self._count(writes)
        for batch in self._recent:  # other threads wrote while the fork waited
            self._count(batch, [fork])

    def _add_vfork(self, task: Task) -> None:
        """Count what a vforked child writes as its parent's: it has no other memory."""
        self.vforks += 1
        for side in self._sides():
            if task.parent == side.pid or task.parent in side.guests:
                side.guests[task.pid] = FOREVER

    def _end_vfork(self, task: Task) -> None:
        """End to count what a child without memory of its own writes: it has some."""
        for side in self._sides():
            if task.pid in side.guests:
                side.guests[task.pid] = min(side.guests[task.pid], task.time)
                # Samples of before may come still.
                self._leaving.begin(task.pid)

    def _finish(self, pid: int, at: int, how: str) -> None:
        process = self.processes[pid]
        process.lives, process.end = False, how
        if self.exact is not None:
            self.exact.ended(pid)
        fork = process.made
        if fork is not None:
            fork.finish(at, how)
            if how != "left" and self._may_share(fork):  # its samples may come still
                self._doubtful.begin(fork.number)
        for other in self.living:
            if other.parent.pid == pid:
                other.parent.until = min(other.parent.until, at)
        self._ending.begin(pid)
        if fork is None and all(
            old.parent.process is not process for old in self.forks
        ):
            del self.processes[pid]
            if process.shown:
                self.former = [*self.former, process][-ENDED_FORKS:]
        ended = [fork for fork in self.forks if fork.end is not None]
        for old in ended[:-ENDED_FORKS]:
            self._forget(old)

    def _forget(self, fork: Fork) -> None:
        """Drop a fork and its child, so that a long run needs no more memory."""
        if fork in self.forks:
            self.forks.remove(fork)
            self.sums.forget_fork(fork)
        process = self.processes.get(fork.child.pid)
        if process is not None and process.made is fork:
            del self.processes[fork.child.pid]
        self.former = [one for one in self.former if one.made is not fork]

    def _may_share(self, fork: Fork) -> bool:
        """Whether a child may have had no memory of its own."""
        silent = () if self.exact is None else self.exact.without_event
        return fork.child.pid in silent or fork.may_be_vfork

    def _settle(self) -> None:
        """Do what waited until all samples of a moment were counted."""
        for pid in self._leaving.due():
            for side in self._sides():
                side.guests.pop(pid, None)
        for pid in self._ending.due():
            self.sums.end(pid)
        due = self._doubtful.due()
        for fork in [fork for fork in self.forks if fork.number in due]:
            if self._may_share(fork):  # its child was vforked
                self._forget(fork)
                self.vforks += 1
                self.fork_count -= 1

    @property
    def sure_forks(self) -> list[Fork]:
        """The forks that were certainly not made by vfork(2)."""
        return [fork for fork in self.forks if fork.number not in self._doubtful]

    def _sides(self) -> Iterator[Side]:
        for fork in self.forks:
            yield fork.parent
            yield fork.child

    def _count(self, batch: native.Faults, forks: list[Fork] | None = None) -> None:
        """Count the copies among samples; `forks` None: of all forks."""
        masks: dict[FamilyProcess, bytes] = {}
        first: dict[FamilyProcess, list[tuple[Fork, set[int]]]] = {}
        earliest = min(batch.times[: len(batch)], default=0)
        for fork in self.forks if forks is None else forks:
            if fork.late and fork.number in self._doubtful:
                fork.after.count(fork.shared, fork.first_pages, batch)
            for side in (fork.parent, fork.child):
                process = side.process
                if side.until < earliest or process is None:
                    continue
                mask = side.count(fork.shared, fork.first_pages, batch)
                if 1 not in mask:
                    continue
                before = masks.get(process)
                masks[process] = mask if before is None else either(before, mask)
                pages = {at // PAGE_SIZE for at in compress(batch.addresses, mask)}
                first.setdefault(process, []).append((fork, pages))
        for process, mask in masks.items():
            self.sums.add(process.pid, first[process])
            process.copied += mask.count(1)
            process.by_code.update(compress(batch.ips, mask))
            process.program.look()

    @property
    def untracked(self) -> tuple[MemberUntracked, ...]:
        """The processes that cannot be followed."""
        return self._unfollowed.members()

    @property
    def all_processes(self) -> list[FamilyProcess]:
        """The processes, and those of before."""
        return [*self.former, *self.processes.values()]

    @property
    def notes(self) -> list[str]:
        """Notes for the user about the names of functions."""
        programs = dict.fromkeys(process.program for process in self.all_processes)
        notes = [note for one in programs for note in one.notes] + [*self._drops.notes]
        return [*dict.fromkeys(notes + (self.exact.notes if self.exact else []))]

    @property
    @abstractmethod
    def inputs(self) -> list[int]:
        """Descriptors that become readable when it may be over."""

    @abstractmethod
    def is_over(self, ready: list[int]) -> bool:
        """Whether there is nothing more to follow; `ready`: the readable `inputs`."""

    def report(self, by: str = "process", end: str | None = None) -> CopyReport:
        """Return the copies so far.

        Args:
            by: What `sides[].by` lists: function, mapping or time; process: function.
            end: Why this is the last report; None: it is not.
        """
        writes = self.exact.look() if self.exact is not None else []
        # Each write that a look finds has its sample now, if there is one.
        self.pump()
        for _ in range(PUMPS_UNTIL_SURE if end or writes or self._doubtful else 0):
            self.pump()
        for found in writes:
            self._count(found)
        return self.reporter.report(by, end)

    def close(self) -> None:
        """End the sampling; nothing is left in the target. A second call is allowed."""
        self._drops.close()
        for process in self.all_processes:
            process.program.close()
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
