"""Counts the pages that each side of a fork has copied, from samples of page faults.

The first fault of a process on a page that both sides had at the fork is a copy. Later
faults on this page, and faults on other pages, are no copies.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import os
import time
from array import array
from bisect import bisect_right
from collections import Counter
from itertools import accumulate, compress
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.attribution.samples import clock_ns
from pagescan.model.errors import TargetError, from_oserror
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import PAGE_SIZE, Category, Kind
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps
from pagescan.target.forked_memory import sharing_parent
from pagescan.target.process import Stat, Target, read_stat

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from pagescan.attribution.families import FamilyProcess

FOREVER = (1 << 64) - 1
_TICKS = os.sysconf("SC_CLK_TCK")
_STALE_NS = 1_000_000_000
_POPULATED = Query(
    require=Category.PRESENT,
    exclude=Category.FILE | Category.PFNZERO,
    returned=Category.PRESENT,
)
_HELD = Query(
    any_of=Category.PRESENT | Category.SWAPPED,
    exclude=Category.FILE | Category.PFNZERO,
    returned=Category.PRESENT,
)
_READ_ONLY = Query(require=Category.PFNZERO, returned=Category.PFNZERO)
_COPIED = bytes([0, 1]) + bytes(254)
_NEW = bytes([0, 0, 1]) + bytes(253)


def populated(scanner: Scanner, private: MappingSet) -> native.Columns:
    """Return the populated regions of private memory: a fork shares these."""
    return scanner.scan(private, _POPULATED)


def private_of(target: Target) -> MappingSet:
    """Return the memory that a fork shares copy-on-write."""
    kinds = (Kind.ANON, Kind.PRIVATE_FILE)
    rows = maps.read(target)
    return MappingSet([row for row in rows if row.kind in kinds], rows)


def both(one: Target, other: Target) -> native.Columns:
    """Return the regions where both processes have private pages."""
    ours = populated(Scanner(one), private_of(one))
    theirs = populated(Scanner(other), private_of(other))
    other.check_alive()  # a process that ends loses its memory first
    return native.inside(theirs, ours.starts, ours.ends)


def held(target: Target) -> native.Columns:
    """Return the private memory that a process has now, on swap or not.

    Raises:
        PagescanError: It has ended, or runs another program.
    """
    found = Scanner(target).scan(private_of(target), _HELD)
    target.check_alive()  # a process that ends loses its memory first
    return found


class LateMemory:
    """A parent's memory, up to 1 s old: many short children cost little."""

    def __init__(self) -> None:
        """Begin without a parent."""
        self.forget()

    def forget(self) -> None:
        """Read it again at the next call."""
        self._pid, self._at, self._shared = 0, 0, native.Columns.empty()

    def memory(self, pid: int) -> native.Columns:
        """Return the populated private memory of a parent; empty: it has ended.

        Raises:
            PagescanError: It cannot be looked at, and has not ended.
        """
        now = clock_ns()
        if self._pid != pid or now - self._at > _STALE_NS:
            self.forget()
            with contextlib.suppress(TargetError), Target.open(pid) as target:
                self._shared = populated(Scanner(target), private_of(target))
            self._pid, self._at = pid, now
        return self._shared

    def shared(
        self, parent: int, child: int, made: Fork | None
    ) -> tuple[native.Columns, bool]:
        """Return the memory that a process and its new child share; errors as above.

        Returns:
            The memory, and whether it was too late to see that the child has its own.
            If the process has ended, the memory is what `made`, its own fork, shared.
        """
        with (
            contextlib.suppress(TargetError),
            Target.open(parent) as one,
            Target.open(child) as other,
        ):
            found = both(one, other)
            if sharing_parent(child) is not None:  # it has called no exec
                self.forget()
                return found, False
        found = self.memory(parent)
        if found.starts or made is None:
            return found, True
        found = made.shared
        with contextlib.suppress(TargetError), Target.open(child) as other:
            theirs = populated(Scanner(other), private_of(other))
            if sharing_parent(child) is not None:
                return native.inside(theirs, found.starts, found.ends), False
        return found, True


def compared(parent: int, child: int) -> tuple[Stat, native.Comparison]:
    """Compare a child that was forked before with its parent, page by page.

    Raises:
        PagescanError: One of them cannot be looked at.
        OSError: The child has ended.
    """
    stat = read_stat(child)
    with Target.open(parent) as one, Target.open(child) as other:
        alike = both(one, other)
        try:
            return stat, native.compare_copies(one.pagemap, other.pagemap, alike)
        except OSError as error:
            raise from_oserror(
                error, doing=f"compare {one} and {other}", pid=child, call="read"
            ) from error


def copies_within(
    pids: list[int], trying: Callable[[int], AbstractContextManager[None]]
) -> int:
    """Count the copies that a family has made, each once.

    Args:
        pids: Its processes, the oldest first.
        trying: Runs the block that opens a process, which may fail or have ended: it
            is then left out.
    """
    with contextlib.ExitStack() as undo:
        targets: list[Target] = []
        shared = native.Columns.empty()
        for pid in pids:
            with trying(pid), contextlib.ExitStack() as opened:
                target = opened.enter_context(Target.open(pid))
                if not targets:  # this is the oldest
                    shared = populated(Scanner(target), private_of(target))
                    target.check_alive()
                targets.append(target)
                undo.push(opened.pop_all())
        if len(targets) < 2:
            return 0
        try:
            return native.count_copies([target.pagemap for target in targets], shared)
        except OSError as error:
            raise from_oserror(
                error, doing="compare a family", pid=targets[0].pid, call="read"
            ) from error


def begun_ns(stat: Stat) -> int:
    """Return when a process began, on the clock of the samples."""
    since_boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return clock_ns() - since_boot + stat.start_time * 1_000_000_000 // _TICKS


def only_read(scanner: Scanner, private: MappingSet) -> native.Columns:
    """Return the regions of holes that were read and not written: the zero page."""
    return scanner.scan(private, _READ_ONLY)


class Side:
    """One process of a fork, and what it has copied.

    Attributes:
        pid: The process.
        process: Its record; None: it has none.
        guests: Its vforked children, which write to its memory, and until when.
        until: The time after which its copies no longer count.
        copied: Pages.
        by_code: Pages by the address of the code that wrote.
        addresses: The faults that were copies.
        dropped: One bit per shared page: it has given the page back.
        new_pages: Numbers of the pages that it has written and that were not shared.
    """

    def __init__(self, pid: int, role: str, since: int, shared_pages: int) -> None:
        """Begin with no copies."""
        self.pid = pid
        self.process: FamilyProcess | None = None
        self.guests: dict[int, int] = {}
        self.role = role
        self.since = since
        self.until = FOREVER
        self.bitmap = bytearray(-(-shared_pages // 8))
        self.dropped = bytearray(len(self.bitmap))
        self.copied = 0
        self.by_code: Counter[int] = Counter()
        self.addresses = array("Q")
        self.new_pages: set[int] = set()

    def count(
        self, shared: native.Columns, first_pages: array[int], samples: native.Faults
    ) -> bytes:
        """Add the copies among samples; return one byte per sample, 1 for a copy."""
        copies = bytes(len(samples))
        for pid, until in ((self.pid, FOREVER), *self.guests.items()):
            place = (pid, self.since, min(until, self.until))
            count, verdicts = native.mark_copies(
                shared, first_pages, samples, place, self.bitmap
            )
            if count:
                mask = verdicts.translate(_COPIED)
                self.copied += count
                self.by_code.update(compress(samples.ips, mask))
                self.addresses.extend(compress(samples.addresses, mask))
                copies = either(copies, mask)
            if 2 in verdicts:
                new = compress(samples.addresses, verdicts.translate(_NEW))
                self.new_pages.update(address // PAGE_SIZE for address in new)
        return copies

    def drop(
        self, shared: native.Columns, first_pages: array[int], held: native.Columns
    ) -> None:
        """Mark the shared pages that it does not have any more."""
        gone = native.outside(shared, held.starts, held.ends)
        if gone.starts:
            pages = samples_of(self.pid, 0, gone)
            place = (self.pid, 0, FOREVER)
            native.mark_copies(shared, first_pages, pages, place, self.dropped)

    def forget_read(self, holes: native.Columns) -> None:
        """Forget new pages that were only read: a write to one is another fault."""
        starts, ends = holes.starts, holes.ends
        for page in [*self.new_pages]:
            at = bisect_right(starts, page * PAGE_SIZE) - 1
            if at >= 0 and page * PAGE_SIZE < ends[at]:
                self.new_pages.discard(page)


def samples_of(pid: int, at: int, regions: native.Columns) -> native.Faults:
    """Return one sample per page of some regions, without a code address."""
    pages = array("Q")
    for start, end in zip(regions.starts, regions.ends, strict=True):
        pages.extend(range(start, end, PAGE_SIZE))
    return native.Faults.at(pid, at, pages)


def either(one: bytes, other: bytes) -> bytes:
    """Return the bytes of two masks of equal length, or-ed."""
    both = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return both.to_bytes(len(one), "little")


class Fork:
    """A fork: the memory that it shared, and its two sides.

    Attributes:
        at: The time of the fork, on the clock of the samples.
        shared: The regions that both sides had.
        pages: How many pages these have.
        copied_before: Pages that were copied before pagescan followed the fork.
        engine: perf or state.
        late: Whether the child was gone before it was seen to have its own memory.
        after: What the parent has written after the end: no copies any more.
        end: exited or exec; None: the child lives.
        seen: Copies at the last look, for the rate.
        looked_at: The time of the last look; before it, the beginning.
        peak: The highest rate so far, pages per second.
        series: The copies of each side in each interval.
    """

    def __init__(
        self,
        number: int,
        at: int,
        parent: int,
        child: int,
        shared: native.Columns,
        *,
        since: int | None = None,
        copied_before: int | None = None,
    ) -> None:
        """Begin to count, since the fork or since another moment."""
        self.number = number
        self.at = at
        self.shared = shared
        sizes = [
            (end - start) // PAGE_SIZE
            for start, end in zip(shared.starts, shared.ends, strict=True)
        ]
        self.first_pages = array("Q", accumulate(sizes, initial=0))
        self.pages = self.first_pages.pop()
        begin = at if since is None else since
        self.parent = Side(parent, "parent", begin, self.pages)
        self.child = Side(child, "child", begin, self.pages)
        self.copied_before = copied_before
        self.engine = "perf" if copied_before is None else "state"
        self.late = False
        self.after = Side(parent, "parent", FOREVER, 0)
        self.lost_before = 0
        self.lost = 0
        self.end: str | None = None
        self.ended_at = 0
        self.seen = 0
        self.looked_at = begin
        self.peak = 0.0
        self.series: list[tuple[int, int, int]] = []

    @property
    def copied(self) -> int:
        """Pages of which each side has its own copy: those that one side has written.

        If the other side writes later, no copy is made: the page is then its own. So it
        is if the child has given its page back.
        """
        parent, child = _bits(self.parent.bitmap), _bits(self.child.bitmap)
        copies = parent & ~_bits(self.child.dropped) | child
        return copies.bit_count() + (self.copied_before or 0)

    @property
    def kept(self) -> int:
        """Pages that the parent has given back, and that the child keeps alone."""
        others = self.parent.bitmap, self.child.bitmap, self.child.dropped
        kept = _bits(self.parent.dropped)
        for bitmap in others if kept else ():
            kept &= ~_bits(bitmap)
        return kept.bit_count()

    @property
    def may_be_vfork(self) -> bool:
        """Whether nothing shows that the child had memory of its own.

        After fork(2), the first return of each side writes to the stack: both have a
        fault on the same page. If the memory was one, one fault is enough for both.
        """
        if self.late and self.end == "exec":
            copied = {address // PAGE_SIZE for address in self.child.addresses}
            ours = [*self.parent.addresses, *self.after.addresses]
            return copied.isdisjoint(address // PAGE_SIZE for address in ours)
        return not self.child.copied

    def finish(self, at: int, how: str) -> None:
        """Stop counting: later writes of the parent copy nothing."""
        if self.end is None:
            self.end, self.ended_at = how, at
            self.after = Side(self.parent.pid, "parent", at, self.pages)
            self.parent.until = min(self.parent.until, at)
            self.child.until = min(self.child.until, at)

    def look(self, now: int, interval: float) -> None:
        """Store how much was copied in the interval that ends now, in seconds.

        A fork that began or ended in it had less time. The rate of less than half of it
        is left to chance: at the beginning it counts with the next interval, and at the
        end with the fork's whole time.
        """
        total = self.parent.copied + self.child.copied
        until = now if self.end is None else min(now, self.ended_at)
        seconds = (until - self.looked_at) / 1e9
        if seconds > 0 and seconds >= interval / 2:
            self.peak = max(self.peak, (total - self.seen) / seconds)
            self.seen, self.looked_at = total, now
        whole = (until - self.parent.since) / 1e9
        if self.end is not None and whole > 0:
            self.peak = max(self.peak, total / whole)
        self.series.append((now, self.parent.copied, self.child.copied))


def _bits(bitmap: bytearray) -> int:
    return int.from_bytes(bitmap, "little")
