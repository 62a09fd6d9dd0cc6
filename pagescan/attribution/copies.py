"""Follows a process and its forked children, and counts the shared pages they copy.

Nothing is armed and nothing is stopped: each copy is a page fault, and is sampled.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from itertools import compress
from typing import Self

from pagescan import native
from pagescan.attribution.copy_report import Reporter
from pagescan.attribution.forks import FOREVER, Fork, Side, either, populated
from pagescan.attribution.samples import FaultSampler, clock_ns
from pagescan.attribution.symbols import Symbols
from pagescan.model.copies import CopyReport
from pagescan.model.errors import PagescanError, TargetError, from_oserror
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Kind
from pagescan.native.perf import EXEC, EXIT, FORK, Task
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps
from pagescan.target.find import pid_of
from pagescan.target.group import Tree
from pagescan.target.process import Target, read_stat

_TICKS = os.sysconf("SC_CLK_TCK")
_ENDED_FORKS = 1000
_STALE_NS = 1_000_000_000
_PUMPS_UNTIL_SURE = 2


class FamilyProcess:
    """A process of the family, with its copies for all forks that it is a side of."""

    def __init__(self, pid: int, name: str) -> None:
        self.pid, self.name = pid, name
        self.copied = self.seen = 0
        self.by_code: Counter[int] = Counter()
        self.tids = 1
        self.lives = True
        self.made: Fork | None = None


class CopyWatch:
    """The copies of a process and its children. A context manager.

    Call `pump` often, about fifty times per second: it looks at new forks.
    Call `report` once per interval.

    Attributes:
        target: The oldest process of the family.
        forks: All forks that were seen, the latest last.
        vforks: Children that had no memory of their own.
        user_only: Copies made by the kernel, as in read(2), are not seen.

    Examples:
        >>> import pagescan
        >>> with pagescan.CopyWatch(4242) as watch:
        ...     report = watch.report()
        >>> report.processes[0].role, report.lost
        ('parent', 0)
    """

    def __init__(self, pid: int | str, *, existing: bool = True) -> None:
        """Begin to follow a process.

        Args:
            pid: The process, by its pid or its name.
            existing: Include the children that it has now.

        Raises:
            PagescanError: It cannot be looked at, or its faults cannot be sampled.
        """
        with contextlib.ExitStack() as undo:
            self.target = undo.enter_context(Target.open(pid_of(pid)))
            root = self.target.pid
            family = _family(root) if existing else []
            pids = [root, *(child for _, child in family)]
            self._sampler = FaultSampler(pids, children=True)
            undo.callback(self._sampler.close)
            self.symbols = undo.enter_context(Symbols(root))
            self._undo = undo.pop_all()
        self.user_only = self._sampler.user_only
        self.forks: list[Fork] = []
        self.vforks = self.samples = self._number = 0
        self.processes = {root: FamilyProcess(root, self.target.facts.name)}
        self._held: list[native.Faults] = []
        self._doubtful: dict[int, int] = {}
        self._leaving: dict[int, int] = {}
        self._stale: tuple[int, native.Columns] | None = None
        self._began = clock_ns()
        self._reporter = Reporter(self)
        try:
            for parent, child in family:
                self._add_existing(parent, child)
        except BaseException:
            self.close()
            raise

    def _add_existing(self, parent: int, child: int) -> None:
        """Compare a child that was forked before with its parent, page by page."""
        with contextlib.suppress(TargetError, OSError):
            if native.same_memory(parent, child):
                self.vforks += 1
                return
            stat = read_stat(child)
            with Target.open(parent) as one, Target.open(child) as other:
                both = _both(one, other)
                try:
                    found = native.compare_copies(one.pagemap, other.pagemap, both)
                except OSError as error:
                    raise from_oserror(
                        error,
                        doing=f"compare {one} and {other}",
                        pid=child,
                        call="read",
                    ) from error
            since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            age = since_boot - stat.start_time * 1_000_000_000 // _TICKS
            self._add_fork(
                clock_ns() - age,
                parent,
                child,
                stat.name,
                found.regions,
                since=self._began,
                copied_before=found.copied,
            )

    def _add_fork(
        self,
        at: int,
        parent: int,
        child: int,
        name: str,
        shared: native.Columns,
        *,
        since: int | None = None,
        copied_before: int | None = None,
    ) -> Fork:
        self._number += 1
        fork = Fork(
            self._number,
            at,
            parent,
            child,
            shared,
            since=since,
            copied_before=copied_before,
        )
        fork.lost_before = self._sampler.lost
        self.forks.append(fork)
        self.processes[child] = process = FamilyProcess(child, name)
        process.made = fork
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
            self._count(batch)
        self._held = late
        self._settle()
        for fork in self.living:
            fork.lost = self._sampler.lost - fork.lost_before

    def _take_task(self, task: Task) -> None:
        process = self.processes.get(task.pid)
        if task.kind == FORK and task.pid != task.parent:
            self._new_child(task)
        elif process is None or not process.lives:
            if task.tid == task.pid and task.kind != FORK:
                self._end_vfork(task)
        elif task.kind == FORK:
            process.tids += 1
        elif task.kind == EXIT:
            process.tids -= 1
            if process.tids <= 0 or (task.tid == task.pid and not _lives(task.pid)):
                self._finish(task.pid, task.time, "exited")
        elif task.kind == EXEC:
            self._finish(task.pid, task.time, "exec")

    def _new_child(self, task: Task) -> None:
        known = self.processes.get(task.pid)
        if task.parent not in self.processes or (known is not None and known.lives):
            return  # it is no child of the family, or was there at the start
        with contextlib.suppress(TargetError, OSError):
            if native.same_memory(task.parent, task.pid):
                self._add_vfork(task)
                return
        try:
            with Target.open(task.parent) as one, Target.open(task.pid) as other:
                shared = _both(one, other)
                self._stale = None
        except PagescanError:  # it has ended, or runs another program by now
            shared = self._as_of_late(task.parent)
        name = self.processes[task.parent].name
        self._add_fork(task.time, task.parent, task.pid, name, shared)

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
                self._leaving[task.pid] = _PUMPS_UNTIL_SURE

    def _as_of_late(self, pid: int) -> native.Columns:
        """Return a parent's memory, up to 1 s old: many short children cost little."""
        if self._stale is None or clock_ns() - self._stale[0] > _STALE_NS:
            shared = native.Columns.empty()
            with contextlib.suppress(PagescanError), Target.open(pid) as target:
                shared = populated(Scanner(target), _private(target))
            self._stale = (clock_ns(), shared)
        return self._stale[1]

    def _finish(self, pid: int, at: int, how: str) -> None:
        process = self.processes[pid]
        process.lives = False
        if process.made is not None:
            process.made.finish(at, how)
            if how == "exec" and not process.made.child.copied:
                self._was_vfork(process)
        for fork in self.living:
            if fork.parent.pid == pid:
                fork.parent.until = min(fork.parent.until, at)
        ended = [fork for fork in self.forks if fork.end is not None]
        for fork in ended[:-_ENDED_FORKS]:
            self.forks.remove(fork)

    def _was_vfork(self, process: FamilyProcess) -> None:
        """Take back a fork whose child wrote to no shared page before its exec.

        After fork(2), the first return of the child writes to the stack, which is a
        copy. A child without a copy had its parent's memory: vfork(2), posix_spawn(3).
        """
        # Its samples may not have been counted yet: a later `pump` decides.
        self._doubtful[process.pid] = _PUMPS_UNTIL_SURE

    def _settle(self) -> None:
        """Decide whether children that called exec some calls ago were vforked."""
        for pid, pumps in [*self._leaving.items()]:
            self._leaving[pid] -= 1
            if not pumps:
                del self._leaving[pid]
                for side in self._sides():
                    side.guests.pop(pid, None)
        for pid, pumps in [*self._doubtful.items()]:
            self._doubtful[pid] -= 1
            if pumps:
                continue
            del self._doubtful[pid]
            fork = self.processes[pid].made
            if fork is not None and not fork.child.copied:
                self.forks.remove(fork)
                del self.processes[pid]
                self.vforks += 1

    @property
    def sure_forks(self) -> list[Fork]:
        """The forks that were certainly not made by vfork(2)."""
        return [fork for fork in self.forks if fork.child.pid not in self._doubtful]

    def _sides(self) -> Iterator[Side]:
        for fork in self.forks:
            yield fork.parent
            yield fork.child

    def _count(self, batch: native.Faults) -> None:
        self.samples += len(batch)
        masks: dict[int, bytes] = {}
        earliest = min(batch.times[: len(batch)], default=0)
        for fork in self.forks:
            for side in (fork.parent, fork.child):
                if side.until < earliest:
                    continue
                mask = side.count(fork.shared, fork.first_pages, batch)
                before = masks.get(side.pid)
                masks[side.pid] = mask if before is None else either(before, mask)
        for pid, mask in masks.items():
            process = self.processes.get(pid)
            if process is not None and 1 in mask:
                process.copied += mask.count(1)
                process.by_code.update(compress(batch.ips, mask))

    def report(self, by: str = "process", end: str | None = None) -> CopyReport:
        """Return the copies so far.

        Args:
            by: What `sides[].by` lists: function, mapping or time; process: function.
            end: Why this is the last report; None: it is not.
        """
        for _ in range(1 if end is None else 1 + _PUMPS_UNTIL_SURE):
            self.pump()
        return self._reporter.report(by, end)

    def close(self) -> None:
        """End the sampling; nothing is left in the target. A second call is allowed."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lives(pid: int) -> bool:
    """Whether a process has a thread that has not ended."""
    try:
        return (
            read_stat(pid).state not in "ZXx"
            or len(os.listdir(f"/proc/{pid}/task")) > 1
        )
    except OSError:
        return False


def _family(root: int) -> list[tuple[int, int]]:
    """Return (parent, child) of the living descendants, the oldest first."""
    pairs = []
    for member in Tree.of(root).members():
        if member.pid != root:
            with contextlib.suppress(OSError):
                pairs.append((read_stat(member.pid).parent, member.pid))
    return pairs


def _private(target: Target) -> MappingSet:
    """Return the memory that a fork shares copy-on-write."""
    kinds = (Kind.ANON, Kind.PRIVATE_FILE)
    rows = maps.read(target)
    return MappingSet([row for row in rows if row.kind in kinds], rows)


def _both(one: Target, other: Target) -> native.Columns:
    """Return the regions where both processes have private pages."""
    ours = populated(Scanner(one), _private(one))
    theirs = populated(Scanner(other), _private(other))
    other.check_alive()  # a process that ends loses its memory first
    return native.inside(theirs, ours.starts, ours.ends)
