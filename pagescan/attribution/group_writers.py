"""Finds out who wrote each page first, in all processes of a group together."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from pagescan.attribution.group_samples import GroupSamples, Key
from pagescan.attribution.writer_report import Sampling, report
from pagescan.attribution.writer_totals import WriterTotals
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts

if TYPE_CHECKING:
    from pagescan.attribution.process_writers import ProcessWriters
    from pagescan.model.groups import GroupTick, ProcessFacts
    from pagescan.model.looks import Look
    from pagescan.model.writers import WriterReport
    from pagescan.target.group import Selector

MOST_GONE = 1000
"""The number of ended processes whose writers are remembered."""


class GroupWriterWatch(GroupSamples):
    """Who writes the memory of each process of a group. A context manager.

    Hand it to `track_group`: then the faults of each process are sampled from its
    arming on. Add each look.

    Attributes:
        totals: Pages of all looks at all members.
        left_out: Processes that have gone, and whose writers were dropped: the oldest.

    Examples:
        >>> import pagescan
        >>> tree = pagescan.Tree.of(4242)
        >>> with (
        ...     pagescan.GroupWriterWatch() as writers,
        ...     pagescan.track_group(tree, writers=writers) as tracking,
        ... ):
        ...     writers.add(tracking.look())
        ...     answer = writers.report(tree)
        >>> answer.written >= answer.attributed
        True
    """

    def __init__(
        self,
        *,
        by: str = "function",
        period: int = 1,
        user_only: bool = False,
        ask_runtime: bool = False,
        callers: bool = False,
        python: bool = False,
    ) -> None:
        """Begin without a process.

        Args:
            by: As for `WriterWatch`, or process.
            period: As for `WriterWatch`, as the next three.
            user_only: Leave out writes of the kernel for the processes.
            ask_runtime: Let Java machines write the names of their compiled methods.
            callers: Tell call paths apart, as far as frame pointers show them.
            python: Name functions of Python, as for `WriterWatch`.

        Raises:
            PagescanError: The faults cannot be sampled; `by` line without
                `pagescan[lines]`.
        """
        super().__init__(
            by=by,
            period=period,
            user_only=user_only,
            ask_runtime=ask_runtime,
            callers=callers,
            python=python,
        )
        self.totals = WriterTotals()
        self.left_out = 0
        self._asked = by, period
        self._gone: list[ProcessWriters] = []
        self._facts: dict[Key, ProcessFacts] = {}
        self._last: GroupTick | None = None

    def add(self, tick: GroupTick) -> None:
        """Find the writers of the pages of all looks of a tick."""
        self.totals.ticks += 1
        self._last = tick
        for facts, _ in tick.members:
            self._facts[facts.target.pid, facts.target.start_time] = facts
        self.share_out(tick, _add, self._let_go)

    def _let_go(self, process: ProcessWriters) -> None:
        """Keep the writers of a process that has gone."""
        process.finish(self.chains)
        self._gone.append(process)
        if len(self._gone) > MOST_GONE:
            oldest = self._gone.pop(0)
            self.totals += oldest.totals
            self.left_out += 1
            facts = oldest.facts
            self._facts.pop((facts.pid, facts.start_time), None)

    def report(self, group: GroupFacts | Selector) -> WriterReport:
        """Return the writers so far, with the pages that each wrote first.

        Args:
            group: The group, as the report names it.
        """
        last = self._last
        if last is None:
            raise RuntimeError("add() comes first")
        parts = [*self._gone, *self.members.values()]
        totals = WriterTotals()
        totals.ticks, totals.samples = self.totals.ticks, self.samples
        totals += self.totals
        for part in parts:
            with contextlib.suppress(PagescanError):  # it has ended
                part.name_all(self.chains)
            totals += part.totals
        by, period = self._asked
        sampling = Sampling(by, period, self.user_only, self.ring_bytes)
        return replace(
            report(parts, sampling, totals, self.python),
            target=None,
            group=GroupFacts(group.kind, group.name),
            processes=tuple(
                replace(facts, summary=facts.totals or facts.summary)
                for facts in self._facts.values()
            ),
            gone=last.gone,
            short_lived=last.short_lived,
        )

    def close(self) -> None:
        """End the sampling; nothing is left in the targets, a second call is safe."""
        super().close()
        for process in self._gone:
            process.close()


def _add(process: ProcessWriters, look: Look, lost: int) -> int:
    return process.add(look, lost)
