"""Finds out who wrote each page first: joins the looks of a tracking with samples.

A page-fault sample tells the code and the thread of a first write. The kernel takes it
before it handles the fault. So the samples are read after a look, and each written page
takes its last sample from before the call that protected it: see shim_writers.c.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
from array import array
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.attribution.callers import named_chains
from pagescan.attribution.jit_maps import ask_java
from pagescan.attribution.samples import FaultSampler, clock_ns
from pagescan.attribution.symbols import Symbols
from pagescan.attribution.thread_names import ThreadNames
from pagescan.attribution.writer_report import Era, WriterTotals, report
from pagescan.model.errors import PagescanError
from pagescan.model.memory import DEFAULT_RETURNED, HUGE_PAGE, PAGE_SIZE, Category
from pagescan.native.perf import EXEC
from pagescan.native.types import Windows
from pagescan.target.find import pid_of
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan.model.batch import Batch
    from pagescan.model.looks import Look
    from pagescan.model.writers import WriterReport
    from pagescan.tracking.tracking import Tracking

BY = ("function", "line", "thread", "mapping", "page")
_SAMPLE_NS, _CHAIN_NS = 500, 1450
"""The cost of a sample without and with callers, from an earlier measurement.

docs/who.md has a later one: 433 ns without callers; callers were not measured again.
"""
_GRACE_NS = 100_000_000
"""How long a page fault may take: its thread may lose the processor during it."""


class WriterWatch:
    """Who writes the memory of one process. A context manager.

    Make it before the process is tracked: from then on every fault is sampled, and the
    first look knows its writers, too.

    Attributes:
        returned: The categories that a look must return for `add`.
        user_only: Writes of the kernel, as in read(2), have no sample.
        sample_ns: The cost of a sample to the target, as an estimate.

    Examples:
        >>> import pagescan
        >>> with (
        ...     pagescan.WriterWatch(4242) as writers,
        ...     pagescan.track(4242) as tracking,
        ... ):
        ...     writers.follow(tracking)
        ...     _ = writers.look()
        ...     answer = writers.report()
        >>> answer.written >= answer.attributed
        True
    """

    returned = DEFAULT_RETURNED | Category.HUGE

    def __init__(
        self,
        pid: int | str,
        *,
        by: str = "function",
        period: int = 1,
        user_only: bool = False,
        ask_runtime: bool = False,
        callers: bool = False,
    ) -> None:
        """Begin to take samples.

        Args:
            pid: The process, by its pid or its name.
            by: What the report's rows stand for: function, line, thread, mapping, page.
            period: Faults per sample; above 1 only shares can be told.
            user_only: Leave out writes of the kernel for the process, as in read(2).
            ask_runtime: Let a Java machine write the names of its compiled methods to
                /tmp/perf-PID.map, by jcmd.
            callers: Tell call paths apart, as far as frame pointers show them.

        Raises:
            PagescanError: The faults cannot be sampled; `by` line without
                `pagescan[lines]`.
        """
        self._by, self._period, self._ask_runtime = by, period, ask_runtime
        with contextlib.ExitStack() as undo:
            target = undo.enter_context(Target.open(pid_of(pid)))
            self.pid, self._facts = target.pid, target.facts
            self._sampler = FaultSampler(
                [self.pid],
                children=False,
                period=period,
                user_only=user_only,
                callers=callers,
            )
            undo.callback(self._sampler.close)
            self._threads = ThreadNames(self.pid)
            self._eras = [Era(self._symbols())]
            undo.callback(self._close_eras)
            self._undo = undo.pop_all()
        self.user_only = self._sampler.user_only
        self.sample_ns = _CHAIN_NS if callers else _SAMPLE_NS
        self.totals = WriterTotals()
        self._rest, self._windows = native.Faults(0), Windows.empty()
        self._began, self._lost = clock_ns(), 0
        self._tracking: Tracking | None = None

    def _symbols(self) -> Symbols:
        lines = self._by == "line"
        return Symbols(self.pid, lines=lines, ask_runtime=self._ask_runtime)

    def follow(self, tracking: Tracking) -> None:
        """Observe the looks of a tracking; call it again with the one after an exec."""
        before, self._tracking = self._tracking, tracking
        self._facts = tracking.target.facts
        if before is not None and before.target is not tracking.target:
            self._begin_era()
        tracking.tell(self)

    def _begin_era(self) -> None:
        """Begin again with another program: the target has called exec."""
        samples, executed = self._take()
        samples.drop_before(executed)
        self._rest = samples
        self._eras.append(Era(self._symbols()))

    def look_begins(self) -> None:
        """Forget the calls of an earlier look; the tracking calls this."""
        self._windows = Windows.empty()
        self._began = clock_ns()

    def protected(self, windows: Windows) -> None:
        """Remember the ioctl calls that protected pages; the tracking calls this."""
        self._windows.extend(windows)

    def look(self) -> Look:
        """Look at the tracking, rearm it, and add what was written.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        if self._tracking is None:
            raise RuntimeError("follow() comes first")
        found = self._tracking.look(rearm=True, returned=self.returned)
        self.add(found)
        return found

    def add(self, look: Look) -> None:
        """Find the writers of the pages of a look that rearmed."""
        samples, _ = self._take()
        batch = look.batch
        joined = native.join_writers(
            batch.columns(),
            _units(batch),
            self._windows,
            (self._began, clock_ns()),
            samples,
            _GRACE_NS,
        )
        self._rest = samples
        lost, self._lost = self._sampler.lost - self._lost, self._sampler.lost
        era = self._eras[-1]
        self.totals.add(batch, joined, lost)
        era.add(batch, joined, runs=self._by == "page")
        self._threads.learn(era.fresh_threads)
        era.fresh_threads.clear()
        with contextlib.suppress(PagescanError):  # it has ended
            era.symbols.refresh()

    def _take(self) -> tuple[native.Faults, int]:
        """Return all samples that no look has used, and the time of the last exec."""
        samples, executed = self._rest, 0
        for batch in self._sampler.take():
            self.totals.samples += len(batch)
            samples.extend(batch)
            for task in batch.tasks():
                self._threads.take(task)
                if task.kind == EXEC and task.pid == self.pid:
                    executed = max(executed, task.time)
        return samples, executed

    def report(self) -> WriterReport:
        """Return the writers so far, with the pages that each wrote first."""
        era = self._eras[-1]
        if self._ask_runtime and ask_java(self.pid):
            era.symbols.refresh()
        if self._sampler.chains:
            era.callers.update(
                named_chains(self.pid, era.symbols, self._sampler.chains)
            )
        return report(
            self._eras,
            self.totals,
            self._threads,
            by=self._by,
            facts=self._facts,
            period=self._period,
            user_only=self.user_only,
            ring_bytes=self._sampler.ring_bytes,
        )

    def _close_eras(self) -> None:
        for era in self._eras:
            era.symbols.close()

    def close(self) -> None:
        """End the sampling; nothing is left in the target. A second call is allowed."""
        if self._tracking is not None:
            self._tracking.scanner.observer = None
            self._tracking = None
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _units(batch: Batch) -> array[int]:
    """Return the bytes that one fault populates or unprotects, per region."""
    huge = int(Category.HUGE)
    unit = {bits: HUGE_PAGE if bits & huge else PAGE_SIZE for bits in set(batch.bits)}
    units = array("Q", map(unit.__getitem__, batch.bits))
    sizes = [mapping.page_size for mapping in batch.mappings]
    if any(sizes):
        for index, owner in enumerate(batch.owners):
            if owner >= 0 and sizes[owner]:
                units[index] = sizes[owner]
    return units
