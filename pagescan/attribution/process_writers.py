"""Finds the writers of one process's pages, in samples that somebody else takes.

A page-fault sample tells the code and the thread of a first write. The kernel takes it
before it handles the fault. So the samples are read after a look, and each written page
takes its last sample from before the call that protected it: see shim_writers.c.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.attribution.callers import named_chains
from pagescan.attribution.samples import clock_ns
from pagescan.attribution.symbols import Symbols
from pagescan.attribution.thread_names import ThreadNames
from pagescan.attribution.writer_totals import Era, WriterTotals
from pagescan.model.errors import PagescanError
from pagescan.model.memory import HUGE_PAGE, PAGE_SIZE, Category
from pagescan.native.perf import EXEC, Task
from pagescan.native.types import Windows
from pagescan.target.labels import Labels

if TYPE_CHECKING:
    from pagescan.model.batch import Batch
    from pagescan.model.looks import Look
    from pagescan.model.results import TargetFacts
    from pagescan.target.process import Target
    from pagescan.tracking.tracking import Tracking

_GRACE_NS = 100_000_000
"""How long a page fault may take: its thread may lose the processor during it."""


class ProcessWriters:
    """The writers of one process. It observes the looks of a tracking.

    Attributes:
        facts: The process; after an exec the later program.
        threads: The names of its threads.
        eras: Its programs: an exec begins the next one.
        totals: Pages of all its looks.
    """

    def __init__(self, facts: TargetFacts, *, by: str, ask_runtime: bool) -> None:
        """Begin before the process is armed.

        Args:
            facts: The process.
            by: What the report's rows stand for: line needs line numbers, page a
                memory of each page.
            ask_runtime: Let a Java machine write the names of its compiled methods.

        Raises:
            PagescanError: It cannot be looked at; `by` line without `pagescan[lines]`.
        """
        self.facts = facts
        self._by, self._ask_runtime = by, ask_runtime
        self.threads = ThreadNames(facts.pid)
        self.eras = [Era(self._symbols())]
        self.totals = WriterTotals()
        self._samples, self._executed = native.Faults(0), 0
        self._received = 0
        self._windows = Windows.empty()
        self._began = self._ended = clock_ns()
        self._labels: Labels | None = None
        self._tracking: Tracking | None = None
        self._target: Target | None = None

    def _symbols(self) -> Symbols:
        lines = self._by == "line"
        return Symbols(self.facts.pid, lines=lines, ask_runtime=self._ask_runtime)

    def receive(self, samples: native.Faults, tasks: Iterable[Task]) -> None:
        """Take samples of this process, and records of its threads."""
        self._samples.extend(samples)
        self._received += len(samples)
        for task in tasks:
            self.threads.take(task)
            if task.kind == EXEC:
                self._executed = max(self._executed, task.time)

    def follow(self, tracking: Tracking, *, growth: bool = True) -> None:
        """Observe the looks of a tracking; after an exec, those of the next one.

        All samples of before the exec have to be received already; `growth`: see
        `WriterWatch.follow`.
        """
        before, self._target = self._target, tracking.target
        if before is not tracking.target:
            self._labels = Labels(tracking.target)
        self._tracking, self.facts = tracking, tracking.target.facts
        if before is not None and before is not tracking.target:
            self._samples.drop_before(self._executed)
            self.eras.append(Era(self._symbols()))
        if growth:
            tracking.tell(self)
        else:
            tracking.scanner.observer = self

    @property
    def tracking(self) -> Tracking | None:
        """The tracking whose looks it observes."""
        return self._tracking

    @property
    def was_tracked(self) -> bool:
        """Whether it has observed any tracking."""
        return self._target is not None

    @property
    def symbols(self) -> Symbols:
        """The names of the code of the present program."""
        return self.eras[-1].symbols

    def take_count(self) -> int:
        """Return how many samples were received since the last call."""
        count, self._received = self._received, 0
        return count

    def drop_samples(self) -> None:
        """Forget the samples that no look has used."""
        self._samples = native.Faults(0)

    def look_begins(self) -> None:
        """Forget the calls of an earlier look; the tracking calls this."""
        self._windows = Windows.empty()
        self._began = clock_ns()

    def protected(self, windows: Windows) -> None:
        """Remember the ioctl calls that protected pages; the tracking calls this."""
        self._windows.extend(windows)

    def look_ends(self) -> None:
        """Remember when the look ended; the tracking calls this."""
        self._ended = clock_ns()

    def add(self, look: Look, lost: int) -> int:
        """Find the writers of the pages of a look that rearmed.

        Args:
            look: The look; the samples up to its end have been received.
            lost: Samples of this time that the rings had no room for.

        Returns:
            How many of them may be samples of its pages.
        """
        joined = self.join(look)
        if self._labels is not None:
            self._labels.label(look.batch)
        missing = self.totals.add(look.batch, joined, lost)
        era = self.eras[-1]
        era.add(look.batch, joined, runs=self._by == "page")
        self.threads.learn(era.fresh_threads)
        era.fresh_threads.clear()
        with contextlib.suppress(PagescanError):  # it has ended
            era.symbols.refresh()
        return missing

    def join(self, look: Look) -> native.Writers:
        """Return the writers of the pages of a look; their samples are used up."""
        batch = look.batch
        return native.join_writers(
            batch.columns(),
            _units(batch),
            self._windows,
            (self._began, self._ended),
            self._samples,
            _GRACE_NS,
        )

    def name_all(self, chains: dict[bytes, int]) -> None:
        """Ask the runtime for names, and name the callers: before a report."""
        era = self.eras[-1]
        if era.is_named:
            return
        if self._ask_runtime and era.symbols.ask_runtime():
            era.symbols.refresh()
        own = {origin for *_, origin in era.pages}
        own_chains = {
            chain: number for chain, number in chains.items() if number in own
        }
        if own_chains:
            era.callers.update(named_chains(self.facts.pid, era.symbols, own_chains))

    def finish(self, chains: dict[bytes, int]) -> None:
        """Name the code for good, and close the files: the process has gone."""
        self.name_all(chains)
        for era in self.eras:
            era.finish()
        self.drop_samples()
        self.stop()

    def stop(self) -> None:
        """Observe no more looks."""
        if self._tracking is not None:
            self._tracking.scanner.observer = None
            self._tracking = None

    def close(self) -> None:
        """Close the files of the process; a second call has no effect."""
        self.stop()
        for era in self.eras:
            era.symbols.close()


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
