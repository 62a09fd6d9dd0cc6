"""The look: follows new mappings, gets written pages, rearms, and joins the result."""

import contextlib
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import (
    DEFAULT_RETURNED,
    Category,
    Region,
)
from pagescan.model.ranges import Interval
from pagescan.model.results import Cost
from pagescan.model.units import format_time, now
from pagescan.native import Columns, Pace
from pagescan.scanner.scanner import Observer, Scanner
from pagescan.target.kernel import known_categories
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.arm import MAX_TABLES, Armed, Armer
from pagescan.tracking.followed import FollowedMappings
from pagescan.tracking.huge_pages import Restored, never
from pagescan.tracking.mapping_count import count_alike
from pagescan.tracking.unregistered_memory import UnregisteredMemory
from pagescan.tracking.written_scan import WrittenScan

if TYPE_CHECKING:
    from pagescan.tracking.attach import TakenUffd
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
        self.armer = Armer(self.scanner, uffd, armed)
        self.mappings = FollowedMappings(target, armed, self.armer)
        self.writes = WrittenScan(self.scanner, uffd, armed.huge)
        self.unregistered = UnregisteredMemory(
            self.armer,
            self.mappings,
            self.writes,
            leaves_growth_out=self.leaves_growth_out,
        )
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
        from pagescan.tracking import attach

        taken = attach.take(target)
        armed = Armed(selection or Selection(), tables_left=max_tables)
        tracking = cls(target, taken.uffd, armed, armed_at=now(), since=None, pace=pace)
        return tracking.arm_attached(taken)

    def tell(self, observer: Observer) -> None:
        """Tell an observer of each later call that protects pages.

        It is told of writes by the times of faults. So from now on memory that grows is
        registered at once, and not compared: a store to a page that is not protected
        makes no fault. That may leave the target with more mappings.
        """
        self.scanner.observer = observer
        self.unregistered.register_growth()

    def arm_attached(self, taken: "TakenUffd") -> Self:
        """Arm after the attach, and return self; on errors, undo both."""
        try:
            self.arm()
        except BaseException:
            Tracking.close(self)  # the caller closes the parts of a subclass
            raise
        cost = self.scanner.take_cost(taken.stopped_ns)
        self.cost = replace(
            cost, mappings_added=self.mappings.added(), huge_restored=0, huge_lost=0
        )
        self.attached = str(taken)
        return self

    def arm(self) -> None:
        """Register and protect the whole selection."""
        mappings = self.mappings.read()
        self.armed.alike = count_alike(mappings)
        self.mappings.has_registered = self.armer.arm(mappings)
        self.check_armed(self.mappings.has_registered)
        self.armed_at = self.since = now()

    def check_armed(self, anything: object) -> None:
        """Raise if the target is gone, or if nothing could be registered."""
        self.target.check_alive()
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
            UsageError: The tracking is closed.
        """
        if self.uffd < 0:
            raise UsageError(f"the tracking of {self.target} is closed")
        if rearm and self.scanner.observer is not None:
            self.scanner.observer.look_begins()
        selected, populated, new = self.unregistered.find()
        if not rearm:
            more = self.unregistered.written_of(populated)
            written = self.writes.scan(selected, rearm=False, returned=returned)
            more = self.writes.without_own(more, more)
            regions = native.overlay(written, more, outside=True)
        elif new or self.unregistered.ends.pieces:
            regions = self.unregistered.take_in(selected, new, populated, returned)
        else:
            regions = self.writes.scan(selected, rearm=True, returned=returned)
        if rearm and self.scanner.observer is not None:
            self.scanner.observer.look_ends()
        batch = self.joined(regions, selected, new, returned)
        self.target.check_alive()
        moment = now()
        if rearm:
            self.since = moment
            self.armed.epoch += 1
        share = None
        if rearm and self.toll is not None:
            share = self.toll.look(*_pages_of(batch))
        cost = self._take_cost(rearm=rearm, share=share)
        return Look(batch, self.unregistered.untracked(), moment, cost)

    @contextlib.contextmanager
    def observed(self, *, rearm: bool) -> Iterator[None]:
        """Tell the observer, if there is one, that a look begins and ends."""
        observer = self.scanner.observer if rearm else None
        if observer is not None:
            observer.look_begins()
        yield
        if observer is not None:
            observer.look_ends()

    def written_outside(self) -> Columns:
        """Return the written pages of memory that is tracked and not registered.

        They are populated, and came since the last look that rearmed, or are pages of
        the growing ends that have changed; tagged as written.
        """
        _, populated, _ = self.unregistered.find()
        return self.unregistered.written_of(populated)

    def ends_that_are_read(self) -> list[Interval]:
        """Return the growing ends; none, if this process may not read the memory."""
        ends = self.unregistered.ends
        return ends.pieces if ends.digests.can_read() else []

    def _take_cost(self, *, rearm: bool, share: float | None = None) -> Cost:
        """Return the cost counted since the last call, and add it to the sum."""
        cost = self.scanner.take_cost()
        if rearm:
            toll = self.toll if share is not None else None
            cost = replace(
                cost,
                mappings_added=self.mappings.added(),
                target_share=share,
                target_ns=_ns(toll.last) if toll else None,
                used_ns=_ns(toll.last_used) if toll else None,
                huge_restored=self._restored_bytes,
                huge_lost=0,
            )
            self._restored_bytes = 0
        self.cost += cost
        return cost

    @property
    def toll_of_all(self) -> tuple[float | None, int | None]:
        """The share and the nanoseconds of the target's time that all looks cost."""
        if self.toll is None or self.toll.share is None:
            return None, None
        return self.toll.share, _ns(self.toll.spent)

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
                    self.armer.disarm(self.mappings.read())
        finally:
            os.close(self.uffd)
            self.uffd = -1
        if self.is_ours():
            self._put_back()

    def _put_back(self) -> None:
        """Make split huge pages huge again; after Ctrl-C the rest stays split."""
        from pagescan.console.interrupts import hurries

        added = None
        with contextlib.suppress(PagescanError):
            mappings = self.mappings.read()
            added = self.mappings.more_alike(mappings)
            self.restored = self.armed.huge.restore(
                self.scanner,
                mappings,
                only_count=not self.restore_huge,
                interrupted=lambda: self.end_early() or hurries(),
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

    def joined(
        self,
        regions: Columns,
        selected: MappingSet,
        new: frozenset[int],
        returned: Category,
    ) -> Batch:
        """Join regions with their mappings; `new` are the indices of new mappings."""
        size = self.target.facts.page_size
        batch = Batch.join(
            regions,
            selected,
            page_size=size,
            new=new,
            returned=returned & known_categories(),
        )
        if -1 not in batch.owners:
            return batch
        # A mapping grew during the look: the pages got there must be reported.
        current = self.mappings.trackable()
        starts = {selected[index].start for index in new}
        return Batch.join(
            regions,
            current,
            page_size=size,
            new=frozenset(
                index for index, item in enumerate(current) if item.start in starts
            ),
            returned=returned & known_categories(),
        )

    def __repr__(self) -> str:
        since = self.since or self.armed_at
        state = "closed" if self.uffd < 0 else f"since {format_time(since)}"
        return f"<Tracking of {self.target}: {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


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
