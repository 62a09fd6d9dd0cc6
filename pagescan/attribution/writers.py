"""Finds out who wrote each page first: joins the looks of a tracking with samples."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan.attribution.process_writers import ProcessWriters
from pagescan.attribution.samples import FaultSampler
from pagescan.attribution.writer_report import Sampling, report
from pagescan.model.errors import UsageError
from pagescan.model.memory import DEFAULT_RETURNED, Category
from pagescan.target.find import pid_of
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan import native
    from pagescan.attribution.python_frames import PythonFrames
    from pagescan.attribution.symbols import Symbols
    from pagescan.attribution.thread_names import ThreadNames
    from pagescan.model.looks import Look
    from pagescan.model.writers import WriterReport
    from pagescan.tracking.tracking import Tracking

BY = ("function", "line", "thread", "mapping", "page")
BY_OF_GROUP = (*BY, "process")
_SAMPLE_NS, _CHAIN_NS, _STACK_NS = 500, 1450, 1200
"""The cost of a sample alone, with callers and with a stack, from measurements.

docs/who.md has a later one of the first: 433 ns; callers were not measured again.
"""


class WriterOptions(NamedTuple):
    """The options of `WriterWatch`, which explains them."""

    by: str = "function"
    period: int = 1
    user_only: bool = False
    ask_runtime: bool = False
    callers: bool = False
    python: bool = False


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
        python: bool = False,
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
            python: Name the function of Python in which a write was made, where it is
                known; `check_python` tells whether that can be. Not with `callers`.

        Raises:
            PagescanError: The faults cannot be sampled; `by` line needs an extra.
        """
        self._by, self._period = by, period
        with contextlib.ExitStack() as undo:
            target = undo.enter_context(Target.open(pid_of(pid)))
            self.pid = target.pid
            self._python = python_frames(callers=callers) if python else None
            if self._python is not None:
                undo.enter_context(self._python).add(self.pid)
            self._sampler = FaultSampler(
                [self.pid],
                children=False,
                period=period,
                user_only=user_only,
                callers=callers,
                python=self._python,
            )
            undo.callback(self._sampler.close)
            self._process = ProcessWriters(target.facts, by=by, ask_runtime=ask_runtime)
            undo.callback(self._process.close)
            self._undo = undo.pop_all()
        self.user_only = self._sampler.user_only
        self.sample_ns = sample_ns(callers=callers, python=python)
        self.totals = self._process.totals
        self._lost = 0

    def check_python(self) -> None:
        """Check that the process is a Python whose functions can be named.

        Raises:
            TargetError: It is no CPython, or its version cannot be read.
        """
        if self._python is not None:
            self._python.check(self.pid)

    def expect(self, target: Target) -> None:
        """Do nothing: samples are taken already."""

    def follow(self, tracking: Tracking, *, growth: bool = True) -> None:
        """Observe the looks of a tracking; call it again with the one after an exec.

        Args:
            tracking: The tracking.
            growth: Register memory that grows, so that each write to it has a writer.
                That may leave the target with more mappings.
        """
        self._lost -= self._receive()  # the next look counts them
        self._process.follow(tracking, growth=growth)

    def unfollow(self, tracking: Tracking) -> None:
        """Do nothing: the next `follow` or `close` ends this."""

    def look(self) -> Look:
        """Look at the tracking, rearm it, and add what was written.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        tracking = self._process.tracking
        if tracking is None:
            raise RuntimeError("follow() comes first")
        found = tracking.look(rearm=True, returned=self.returned)
        self.add(found)
        return found

    @property
    def symbols(self) -> Symbols:
        """The names of the code of the present program."""
        return self._process.symbols

    @property
    def threads(self) -> ThreadNames:
        """The names of the threads."""
        return self._process.threads

    def add(self, look: Look) -> None:
        """Find the writers of the pages of a look that rearmed, and add them up."""
        self._process.add(look, self._receive())

    def join(self, look: Look) -> tuple[native.Writers, int]:
        """Return the writers of the pages of a look that rearmed, one run per writer.

        The samples are used up: `add` is for callers that want a report at the end, and
        `join` for those that store each look.

        Returns:
            The writers, and how many samples were lost since the previous look.
        """
        lost = self._receive()
        return self._process.join(look), lost

    def _receive(self) -> int:
        """Hand over all samples that the rings have; return how many were lost."""
        for batch in self._sampler.take():
            self.totals.samples += len(batch)
            tasks = [task for task in batch.tasks() if task.pid == self.pid]
            self._process.receive(batch, tasks)
        lost, self._lost = self._sampler.lost - self._lost, self._sampler.lost
        return lost

    def report(self) -> WriterReport:
        """Return the writers so far, with the pages that each wrote first."""
        self._process.name_all(self._sampler.chains)
        sampling = Sampling(
            self._by, self._period, self.user_only, self._sampler.ring_bytes
        )
        return report([self._process], sampling, self.totals, self._python)

    def close(self) -> None:
        """End the sampling; nothing is left in the target. A second call is allowed."""
        self._process.stop()
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def python_frames(*, callers: bool) -> PythonFrames:
    """Return a finder of Python functions; its modules are loaded here.

    Raises:
        UsageError: Callers are wanted, too: a sample has one origin only.
    """
    if callers:
        raise UsageError("callers and Python functions exclude each other")
    from pagescan.attribution.python_frames import PythonFrames

    return PythonFrames()


def sample_ns(*, callers: bool, python: bool) -> int:
    """Return the estimated cost of a sample to its process, in nanoseconds."""
    if python:
        return _STACK_NS
    return _CHAIN_NS if callers else _SAMPLE_NS
