"""The look: follows new mappings, gets written pages, rearms, and joins the result."""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import (
    Covers,
    MappingSet,
    reservations_beside,
)
from pagescan.model.memory import (
    DEFAULT_RETURNED,
    Category,
    Kind,
    Mapping,
    Region,
    Untracked,
)
from pagescan.model.ranges import Interval, ranges_of, whole_pages
from pagescan.model.results import Cost
from pagescan.model.units import now
from pagescan.native import Columns, Pace, Rule
from pagescan.scanner.protect import protect_regions
from pagescan.scanner.query import Query
from pagescan.scanner.rules import POPULATED
from pagescan.scanner.scanner import JOIN_GAP, Scanner
from pagescan.scanner.spans import as_spans
from pagescan.target.kernel import known_categories
from pagescan.target.maps import Reader
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.arm import MAX_TABLES, Armed, Armer
from pagescan.tracking.growing_ends import NOTHING, GrowingEnds, Moves
from pagescan.tracking.huge_pages import Restored, never
from pagescan.tracking.mapping_count import count_alike

if TYPE_CHECKING:
    from pagescan.tracking.target_cost import TargetCost
from pagescan.model.looks import Look


class Tracking:
    """Looks at the writes of one target, through its userfaultfd.

    Attributes:
        target: The process.
        uffd: Its userfaultfd; the creator of this object closes it.
        armed: The tracked state; a look that rearms changes it.
        armed_at: When it was armed, in UTC.
        since: The end of the last look that rearmed.
        cost: The cost of arming to the target.
        end_cost: The cost of disarming.
        restore_huge: Whether the end puts back split huge pages.
        end_early: Called every 50 ms at the end: True leaves the rest of them split.
        restored: The result of putting them back.
        attached: How its userfaultfd was taken, in words; "" if another object took it.
        toll: The cost of rearming looks to the target; None: not counted.
    """

    leaves_growth_out = True
    """Whether growing ends are compared, so that no mapping stays."""

    def __init__(
        self,
        target: Target,
        uffd: int,
        armed: Armed,
        *,
        armed_at: datetime,
        since: datetime | None,
        pace: Pace | None = None,
    ) -> None:
        """Continue with armed memory; `start` arms."""
        self.target = target
        self.uffd = uffd
        self.armed = armed
        self.armed_at = armed_at
        self.since = since
        self.scanner = Scanner(target, pace)
        self._reader = Reader(target)
        self._known: tuple[list[Mapping], list[Untracked]] = ([], [])
        self._counted: tuple[list[Mapping], int] = ([], 0)
        self._has_registered = False  # since the last count of the mappings
        self._chosen = MappingSet()
        self._armer = Armer(self.scanner, uffd, armed)
        self._ends = GrowingEnds(target, armed.ends, wanted=self.leaves_growth_out)
        self.cost = Cost()
        self.end_cost = Cost()
        self.restore_huge = True
        self.end_early: Callable[[], bool] = never
        self.restored = Restored()
        self._restored_bytes = 0  # of huge pages, in this look
        self.attached = ""
        self.toll: TargetCost | None = None
        self._pid = os.getpid()
        _alive.add(self)

    @classmethod
    def start(
        cls,
        target: Target,
        selection: Selection | None = None,
        *,
        max_tables: int = MAX_TABLES,
        pace: Pace | None = None,
    ) -> Self:
        """Attach to a target and arm the selection.

        Raises:
            PagescanError: Nothing of the selection could be armed.
        """
        return cls.attached_by(
            lambda uffd, armed: cls(
                target, uffd, armed, armed_at=now(), since=None, pace=pace
            ),
            target,
            selection,
            max_tables,
        )

    @classmethod
    def attached_by(
        cls,
        make: Callable[[int, Armed], Self],
        target: Target,
        selection: Selection | None,
        max_tables: int,
    ) -> Self:
        """Take a userfaultfd, make a tracking with it, and arm; on errors, undo."""
        from pagescan.tracking import attach

        taken = attach.take(target)
        armed = Armed(selection or Selection(), tables_left=max_tables)
        tracking = make(taken.uffd, armed)
        try:
            tracking.arm()
        except BaseException:
            Tracking.close(tracking)  # the caller closes the parts of a subclass
            raise
        cost = tracking.scanner.take_cost(taken.stopped_ns)
        tracking.cost = replace(cost, mappings_added=tracking.mappings_added())
        tracking.attached = str(taken)
        return tracking

    def arm(self) -> None:
        """Register and protect the whole selection."""
        there = self._reader.read()
        self.armed.alike = count_alike(there)
        self._has_registered = self._armer.arm(there)
        self.check_armed(self._has_registered)
        self.armed_at = self.since = now()

    def check_armed(self, anything: object) -> None:
        """Raise if the target is gone, or if nothing could be registered."""
        if not self.target.has_address_space():
            raise self.target.gone()
        if not anything:
            reasons = {item.why for item in self.armed.untracked}
            raise PagescanError(
                f"nothing of the selection could be armed in {self.target}:"
                f" {'; '.join(sorted(reasons)) or 'nothing there is populated'}"
            )

    def look(
        self, *, rearm: bool = False, returned: Category = DEFAULT_RETURNED
    ) -> Look:
        """Find the pages written since arming, or since the last rearming look.

        Args:
            rearm: Protect the found pages in the same step, and take in new mappings.
            returned: The categories to report; neighbours that agree on them are
                joined.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        chosen, populated, new = self._unregistered()
        known = self._ends.pieces
        if not rearm:
            left = self._written_of(populated)
            written = self._written(chosen, rearm=False, returned=returned)
            found = native.overlay(written, self._without_own(left, left), outside=True)
        elif new or known:
            found = self._take_in(chosen, new, populated, returned)
        else:
            found = self._written(chosen, rearm=True, returned=returned)
        batch = self._joined(found, chosen, new, returned)
        if not self.target.has_address_space():
            raise self.target.gone()
        moment = now()
        if rearm:
            self.since = moment
            self.armed.epoch += 1
        share = None
        if rearm and self.toll is not None:
            share = self.toll.look(*_pages_of(batch))
        cost = self._take_cost(rearm=rearm, share=share)
        return Look(batch, self._untracked(), moment, cost)

    def written_outside(self) -> Columns:
        """Return the written pages of memory that is tracked and not registered.

        They are populated, and came since the last look that rearmed, or are pages of
        the growing ends that have changed; tagged as written.
        """
        return self._written_of(self._unregistered()[1])

    def ends_that_are_read(self) -> list[Interval]:
        """Return the growing ends; none, if this process may not read the memory."""
        return self._ends.pieces if self._ends.digests.can_read() else []

    def mappings_added(self) -> int:
        """Return how many mappings the target has only because it is tracked.

        Neighbours that look alike are counted, less those from before arming.
        """
        there = self._known[0]
        if self._has_registered:
            self._has_registered = False
            there = self._reader.read()
        if there is not self._counted[0]:
            self._counted = there, max(0, count_alike(there) - self.armed.alike)
        return self._counted[1]

    def _take_cost(self, *, rearm: bool, share: float | None = None) -> Cost:
        """Return the cost counted since the last call, and add it to the sum."""
        cost = self.scanner.take_cost()
        if rearm:
            cost = replace(
                cost,
                mappings_added=self.mappings_added(),
                target_share=share,
                huge_restored=self._restored_bytes,
                huge_lost=0,
            )
            self._restored_bytes = 0
        self.cost += cost
        return cost

    def written(self, *, rearm: bool = True) -> Iterator[Region]:
        """Yield the pages written since arming, or the last call that rearmed.

        Args:
            rearm: Protect the found pages in the same step: the next call starts there.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        return self.look(rearm=rearm).batch.regions()

    def close(self) -> None:
        """Disarm: unregister all, close the userfaultfd; a second call has no effect.

        Then split huge pages are put back. `end_cost` is the cost of all that. A child
        that was forked in the meantime only closes its duplicates.

        Raises:
            KeyboardInterrupt: It came while huge pages were put back; everything is
                closed.
        """
        if self.uffd < 0:
            return
        try:
            if self.is_ours():
                with contextlib.suppress(PagescanError):
                    self._armer.disarm(self._reader.read())
        finally:
            os.close(self.uffd)
            self.uffd = -1
        if self.is_ours():
            self._put_back()

    def _put_back(self) -> None:
        """Make split huge pages huge again; after Ctrl-C the rest stays split."""
        added = None
        with contextlib.suppress(PagescanError):
            there = self._reader.read()
            added = max(0, count_alike(there) - self.armed.alike)
            self.restored = self.armed.huge.restore(
                self.scanner,
                there,
                only_count=not self.restore_huge,
                interrupted=self.end_early,
            )
        cost = self.scanner.take_cost() + self.restored.cost
        self.end_cost = replace(cost, mappings_added=added)
        if self.restored.caught:
            raise KeyboardInterrupt

    def is_ours(self) -> bool:
        """Whether this process made the object, and not a parent before a fork."""
        return self._pid == os.getpid()

    def hand_over(self) -> None:
        """Close the userfaultfd without disarming, because a keeper has a duplicate."""
        os.close(self.uffd)
        self.uffd = -1

    def _judged(self) -> MappingSet:
        """Return the trackable selected mappings; the same object while unchanged."""
        there = self._reader.read()
        self._armer.mappings = len(there)
        if there is not self._known[0]:
            self._armer.forget_unmapped(there)
        known = (there, list(self.armed.untracked))
        if known[0] is not self._known[0] or known[1] != self._known[1]:
            untracked = Covers(known[1])
            self._chosen = MappingSet(
                (
                    mapping
                    for mapping in self.armed.selection.select(there)
                    if mapping.kind is not Kind.SPECIAL and mapping not in untracked
                ),
                there,
            )
            self._known = known
        return self._chosen

    def _unregistered(
        self, *, again: bool = True
    ) -> tuple[MappingSet, Columns, frozenset[int]]:
        """Return the mappings, their unregistered populated pages, and new indices.

        The indices are of mappings with more such pages than the growing ends.
        """
        chosen = self._judged()
        populated = self._armer.populated_outside(chosen)
        known = self._ends.pieces
        fresh = native.outside(populated, *ranges_of(known)) if known else populated
        new = frozenset(native.shares(fresh, *chosen.bounds).ranges)
        if again and any(chosen[index].reserved for index in new):
            # A part of a reservation was used after the mappings were read.
            return self._unregistered(again=False)
        return chosen, populated, new

    def _take_in(
        self,
        chosen: MappingSet,
        new: frozenset[int],
        populated: Columns,
        returned: Category,
    ) -> Columns:
        """Get the written pages, register new memory, move the growing ends.

        New pages of private memory are unprotected: the following scan gets and
        protects them in one step. Compared pages are read when they are protected.
        """
        self._ends.wanted = self.leaves_growth_out and not self._armer.is_full()
        moves = self._ends.plan(chosen, new, populated)
        registered = self._register(chosen, moves)
        arrived = self._armer.protect_whole(registered)
        written = self._written(chosen, rearm=True, returned=returned)
        left = self._left_out(moves, populated)
        same = ranges_of(self._ends.settle(moves, populated, self.scanner.meter))
        found = native.overlay(
            native.outside(written, *same),
            self._without_own(arrived, arrived),
            outside=True,
        )
        found = native.overlay(found, native.outside(left, *same), outside=True)
        page = self._ends.heap_without_edge(chosen)
        return found if page is None else self._put_back_edge(page, found, returned)

    def _register(self, chosen: Sequence[Mapping], moves: Moves) -> list[Mapping]:
        """Register new memory.

        A reservation that touches a mapping which is registered whole is registered
        with it, so that its later parts are one mapping with this one.
        """
        registered = self._armer.register(moves.register)
        self._armer.register(reservations_beside(moves.whole, chosen))
        self._has_registered |= bool(registered)
        return registered

    def _left_out(self, moves: Moves, populated: Columns) -> Columns:
        """Return the populated pages of the parts that are left out from now on."""
        ends = ranges_of((end.start, end.end) for end in moves.out)
        left = native.inside(populated, *ends)
        return self._without_own(left, left)

    def _written_of(self, populated: Columns) -> Columns:
        """Return what was written of all that is populated and not registered."""
        known = self._ends.pieces
        if not known:
            return populated
        fresh = native.outside(populated, *ranges_of(known))
        return native.overlay(fresh, self._changed(populated), outside=True)

    def _changed(self, populated: Columns) -> Columns:
        """Return the pages of the growing ends that have changed."""
        try:
            same = self._ends.unchanged(populated, self.scanner.meter)
        except PermissionError:  # reported as untracked
            return Columns.empty()
        ends = native.inside(populated, *ranges_of(self._ends.pieces))
        return native.outside(ends, *ranges_of(same))

    def _put_back_edge(
        self, page: Mapping, found: Columns, returned: Category
    ) -> Columns:
        """Leave the uppermost page of a heap out again; return the complete result.

        A store to it before it is read is found by one more scan; a later store changes
        its bytes.
        """
        query = Query(any_of=POPULATED, exclude=Category.PFNZERO)
        there = self.scanner.scan(MappingSet([page]), query)
        digest = self._ends.digests.page(page.start)[0] if there.starts else NOTHING
        again = self._written(MappingSet([page]), rearm=True, returned=returned)
        self._armer.unregister(page)
        self._ends.leave_out(page, digest)
        self._has_registered = True
        return native.overlay(found, again, outside=True)

    def _untracked(self) -> tuple[Untracked, ...]:
        """Return the untracked ranges, with growing ends that cannot be read."""
        said = tuple(self.armed.untracked)
        if self.armed.ends and not self._ends.digests.can_read():
            said += self._ends.unreadable()
        return said

    def _written(
        self, chosen: MappingSet, *, rearm: bool, returned: Category
    ) -> Columns:
        """Scan in two stages: candidates by the kernel's fast path, then categories."""
        from pagescan.scanner.stages import look_stages

        spans, stages = look_stages(chosen, rearm=rearm, returned=returned)
        candidates, gone = stages.candidates, stages.gone
        found = self.scanner.scan_ranges(
            spans, candidates, join_gap=JOIN_GAP, kept_as=(chosen, "candidates")
        )
        if rearm:  # before they are protected, because the next store splits them
            files = [rule.label for rule in candidates if rule.whole_range]
            self.armed.huge.learn_of(self.scanner, found, *files)
        # First, because a store after this protection shows in the following scan.
        dropped = self._protect_dropped(found, gone) if gone else Columns.empty()
        written = self.scanner.scan_ranges(as_spans(found), stages.exact)
        if dropped.starts:
            written = native.overlay(dropped, written, outside=True)
        return self._without_own(written, found, written)

    def _protect_dropped(self, found: Columns, gone: dict[int, Rule]) -> Columns:
        """Get, and then protect, the candidates that are empty entries.

        They were written, and then dropped or paged out. A store between the two steps
        is in this answer.
        """
        dropped = Columns.empty()
        for label, rule in gone.items():
            asked = native.relabel(found, {label: 0})  # the only rule
            empty = self.scanner.scan_ranges(as_spans(asked), [rule])
            protect_regions(self.scanner, empty, rule.align, self.uffd)
            dropped = native.overlay(dropped, empty, outside=True)
        return dropped

    def _without_own(self, found: Columns, *buffers: Columns) -> Columns:
        """Leave out the pages that only this look has written, in its own process.

        A page filled by one of the look's arrays contains no other object. Pages shared
        with other objects are reported, because leaving them out could be a miss.
        """
        if self.target.pid != os.getpid():
            return found
        size = self.target.facts.page_size
        own = whole_pages(chain.from_iterable(buffers), size)
        return native.outside(found, *own)

    def _joined(
        self,
        found: Columns,
        chosen: MappingSet,
        new: frozenset[int],
        returned: Category,
    ) -> Batch:
        size = self.target.facts.page_size
        batch = Batch.join(
            found,
            chosen,
            page_size=size,
            new=new,
            returned=returned & known_categories(),
        )
        if -1 not in batch.owners:
            return batch
        # A mapping grew during the look: the pages got there must be reported.
        current = self._judged()
        starts = {chosen[index].start for index in new}
        return Batch.join(
            found,
            current,
            page_size=size,
            new=frozenset(
                index for index, item in enumerate(current) if item.start in starts
            ),
            returned=returned & known_categories(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _pages_of(batch: Batch) -> tuple[int, int]:
    """Return the number of pages, and how many of them are in new mappings."""
    if not batch.new:
        return batch.summary().pages, 0
    rows = batch.by_mapping()
    return sum(row.pages for row in rows), sum(row.pages for row in rows if row.new)


_alive: weakref.WeakSet[Tracking] = weakref.WeakSet()


def _close_duplicates() -> None:
    """In a forked child, close descriptors that would keep the tracking alive.

    The kernel lifts the protection when the last userfaultfd is closed.
    """
    for tracking in list(_alive):
        with contextlib.suppress(OSError):
            tracking.close()


os.register_at_fork(after_in_child=_close_duplicates)
