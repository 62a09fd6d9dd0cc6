"""Finds the pages that a block of code in this process writes; needs no privileges.

    with pagescan.written_pages() as written:
        work()
    print(written.pages)

Both ends of the block are scans prepared in advance, so that few of pagescan's own
stores fall into it. Protecting is the last step before the block; recording the
unprotected pages is the first step behind it. All other work comes later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan import native
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import DEFAULT_RETURNED, Category, Kind, Mapping, Untracked
from pagescan.model.results import Cost
from pagescan.native import Columns, Masks, Pace, PreparedScan, Rule, Spans
from pagescan.scanner.rules import protection_scan, unregistered_rule
from pagescan.scanner.spans import as_spans
from pagescan.scanner.stages import look_stages
from pagescan.target import maps as mappings
from pagescan.target.kernel import user_space_end
from pagescan.target.process import Target
from pagescan.target.selection import Selection, cut
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from types import TracebackType

    from pagescan.model.batch import Batch
    from pagescan.model.memory import Region
    from pagescan.model.results import MappingCounts


# Only this process waits for its mmap lock: no pauses are needed.
_UNPACED = Pace(max_stall_ns=1 << 40, pause_ns=0)
# Initial capacity in regions, enough for most blocks: it grows only after the block.
_ROOM = 4096
_STACK_GROWTH = 1 << 30


class _Prepared(NamedTuple):
    """The scans of one block.

    Attributes:
        protect: Protects the populated private pages written since they were armed.
        unprotected: Lists the written pages of registered memory.
        outside: Lists the populated pages of unregistered memory, new memory included.
        exact: The rules that the tags of `unprotected` refer to.
    """

    protect: PreparedScan
    unprotected: PreparedScan
    outside: PreparedScan
    exact: Sequence[Rule]

    @property
    def buffers(self) -> tuple[Columns, ...]:
        """The arrays to which the scans of this block write their results."""
        return (*self.protect.rows, *self.unprotected.rows, *self.outside.rows)


class _BlockTracking(Tracking):
    """Tracks this process; its looks are prepared scans."""

    leaves_growth_out = False  # a block has one look: little can stay behind

    warm = False
    """Whether the scans have run in this process: the first run writes more pages."""

    def prepare(self) -> _Prepared:
        """Prepare the scans of a block; the first block of a process runs them once."""
        prepared = self._prepare()
        if not _BlockTracking.warm:
            _BlockTracking.warm = True
            prepared.protect.run()
            prepared.unprotected.run()
            prepared.outside.run()
            prepared = self._prepare()
        return prepared

    def _prepare(self) -> _Prepared:
        chosen = MappingSet(_with_room_to_grow(self._judged()))
        spans, stages = look_stages(chosen, rearm=False, returned=DEFAULT_RETURNED)
        exact = stages.exact
        candidates = list(stages.candidates)
        for index, rule in enumerate(candidates):
            if rule.whole_range:  # files: ask for pages written now, not for candidates
                wanted = Masks(mask=Category.WRITTEN)
                candidates[index] = _labelled(exact[index], wanted, index)
        end = user_space_end()  # beyond the last mapping: a new one may lie above it
        everywhere = Spans(array("Q", [0]), array("Q", [end]), array("Q", [0]))
        outside = unregistered_rule(align=end)  # one call
        return _Prepared(
            self._scan(*protection_scan(chosen)),
            self._scan(spans, candidates),
            self._scan(everywhere, [outside]),
            exact,
        )

    def _scan(self, spans: Spans, rules: list[Rule]) -> PreparedScan:
        prepared = PreparedScan(self.target.pagemap, [spans], rules, room=_ROOM)
        prepared.begin(_UNPACED)
        return prepared

    def result_of(self, scan: PreparedScan) -> Columns:
        """Return the regions that a scan found when it ran."""
        return scan.finish(_UNPACED, self.scanner.meter)

    def take_stock(self, prepared: _Prepared) -> tuple[Columns, Columns]:
        """Return the written pages, and the pages of new mappings, from both scans."""
        written = self.result_of(prepared.unprotected)
        outside = self.result_of(prepared.outside)
        chosen = self._judged()
        exact = self.scanner.scan_ranges(as_spans(written), prepared.exact)
        fresh = native.inside(self._armer.populated_outside(chosen), *outside[:2])
        buffers = prepared.buffers
        return self._without_own(exact, *buffers), self._without_own(fresh, *buffers)

    def batch(self, written: Columns, fresh: Columns, selection: Selection) -> Batch:
        """Join both lists into one batch, restricted to a block's selection."""
        chosen = self._judged()
        new = frozenset(native.shares(fresh, *chosen.bounds).ranges)
        found = native.overlay(written, fresh, outside=True)
        # Pages that an inner block found may have been unmapped since.
        found = native.inside(found, *selection.select(chosen).bounds)
        return self._joined(found, chosen, new, DEFAULT_RETURNED)

    def bank(self) -> Columns:
        """Look and rearm as an inner block begins; the outer blocks get the result."""
        batch = self.look(rearm=True).batch
        return Columns(batch.starts, batch.ends, batch.categories)


class _GoingOn:
    """The open blocks of this process, in the order in which they began.

    Blocks of several threads may end in any order. They share one userfaultfd, so
    pages that one block collects and re-protects are credited to all open blocks.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset to no blocks; also in a forked child, whose memory is not tracked."""
        self.lock = threading.Lock()
        self.blocks: list[WrittenPages] = []


_going_on = _GoingOn()
os.register_at_fork(after_in_child=_going_on.forget)


class WrittenPages:
    """The pages that a block of code wrote; a context manager, for one block.

    The answer is available after the block, also if an exception ended it. Blocks
    nest: an outer block also lists the pages of its inner blocks. Stores of all threads
    count. A child forked in the block has no answer, and does not change its parent's.

    Examples:
        >>> import pagescan
        >>> buffer = bytearray(1 << 20)
        >>> with pagescan.written_pages() as written:
        ...     buffer[5000] = 1
        >>> written.pages >= 1
        True
    """

    def __init__(self, ranges: Iterable[str] | None = None) -> None:
        """Take RANGE words, as the commands take them; None: everything."""
        self._selection = Selection.parse(ranges or ())
        self._tracking: _BlockTracking | None = None
        self._prepared: _Prepared | None = None
        self._batch: Batch | None = None
        self._pid = 0
        self._earlier: list[Columns] = []
        self._why = "the block has not begun"
        self._cost = Cost()

    def __enter__(self) -> Self:
        if self._pid:
            raise UsageError("this written_pages() was already used for a block")
        with _going_on.lock:
            around = tuple(_going_on.blocks)
            tracking = self._within(around) if around else self._armed()
            try:
                self._prepared = prepared = tracking.prepare()
            except BaseException:
                if not around:
                    _end(tracking)
                raise
            self._pid = os.getpid()
            self._tracking = tracking
            self._why = "the block is not over yet"
            _going_on.blocks.append(self)
            prepared.protect.run()
            if around:
                _keep(around, tracking.result_of(prepared.protect))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tracking, prepared = self._tracking, self._prepared
        if tracking is None or prepared is None:
            return
        if self._pid != os.getpid():
            self._why = "this process was forked in the block: it is not tracked"
            _end(tracking)
            return
        with _going_on.lock:
            prepared.unprotected.run()
            prepared.outside.run()
            # If the block raised, its exception takes precedence over ours.
            quiet = contextlib.suppress(*([PagescanError] if error else []))
            try:
                with quiet:
                    self._finish(tracking, prepared)
            finally:
                _going_on.blocks.remove(self)
                if not _going_on.blocks:
                    _end(tracking)
                self._tracking = self._prepared = None

    @property
    def batch(self) -> Batch:
        """The written pages as columns: see `Batch`.

        Raises:
            PagescanError: The block is not over, or this is a child forked in it.
        """
        if self._batch is None:
            raise PagescanError(f"there is no answer: {self._why}")
        return self._batch

    @property
    def pages(self) -> int:
        """How many pages were written."""
        return self.batch.summary().pages

    @property
    def bytes(self) -> int:
        """The written pages in bytes: whole pages count."""
        return self.batch.summary().bytes

    @property
    def untracked(self) -> tuple[Untracked, ...]:
        """The parts of the selection that were not tracked, and why.

        Raises:
            PagescanError: As for `batch`.
        """
        _ = self.batch
        return self._untracked

    @property
    def cost(self) -> Cost:
        """The cost of arming and scanning; no thread was stopped."""
        return self._cost

    def regions(self) -> Iterator[Region]:
        """Yield the written regions, ascending."""
        return self.batch.regions()

    def by_mapping(self) -> list[MappingCounts]:
        """Return the mappings that were written to, with their page counts."""
        return self.batch.by_mapping()

    _untracked: tuple[Untracked, ...] = ()

    def _armed(self) -> _BlockTracking:
        target = Target.open(os.getpid())
        try:
            if not self._selection.everything:
                self._selection.check(mappings.read(target))
            return _BlockTracking.start(target, self._selection, pace=_UNPACED)
        except BaseException:
            target.close()
            raise

    def _within(self, around: tuple[WrittenPages, ...]) -> _BlockTracking:
        """Share the userfaultfd of the outer blocks: memory can have only one."""
        tracking = around[-1]._tracking  # noqa: SLF001 - of this class
        if tracking is None:
            raise AssertionError
        asked, there = self._selection, tracking.armed.selection
        if not there.everything and there != asked:
            raise UsageError(
                "an inner written_pages() cannot have other ranges than the outer one",
                hint="give the outer one no ranges, or give both the same ranges",
            )
        if not asked.everything:
            asked.check(mappings.read(tracking.target))
        _keep(around, tracking.bank())
        return tracking

    def _finish(self, tracking: _BlockTracking, prepared: _Prepared) -> None:
        found, fresh = tracking.take_stock(prepared)
        for columns in self._earlier:
            found = native.overlay(columns, found, outside=True)
        self._batch = tracking.batch(found, fresh, self._selection)
        self._untracked = tuple(tracking.armed.untracked)
        self._cost = tracking.cost + tracking.scanner.take_cost()


def written_pages(ranges: Iterable[str] | None = None) -> WrittenPages:
    """Return a context manager that finds the pages its block of code writes.

    Args:
        ranges: RANGE words, as the commands take them; None: everything.

    Raises:
        PagescanError: When the block begins, for the reasons of `track`.

    Examples:
        >>> import pagescan
        >>> with pagescan.written_pages() as written:
        ...     data = bytearray(b"x") * (1 << 20)
        >>> written.bytes >= 1 << 20
        True
    """
    return WrittenPages(ranges)


def _with_room_to_grow(chosen: Iterable[Mapping]) -> Iterator[Mapping]:
    """Extend the stack downwards: pages that it grows into are registered with it."""
    end = 0
    for mapping in chosen:
        start = mapping.start
        if mapping.name == "[stack]" and mapping.kind is Kind.ANON:
            start = max(end, start - _STACK_GROWTH)
        yield cut(mapping, start, mapping.end)
        end = mapping.end


def _labelled(rule: Rule, wanted: Masks, label: int) -> Rule:
    return rule._replace(result_masks=wanted, label=label)


def _keep(blocks: Iterable[WrittenPages], columns: Columns) -> None:
    """Credit pages that were collected and re-protected to all open blocks."""
    for block in blocks:
        block._earlier.append(columns)  # noqa: SLF001 - of this file


def _end(tracking: _BlockTracking) -> None:
    tracking.close()
    tracking.target.close()
