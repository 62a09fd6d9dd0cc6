"""Counts the pages that each side of a fork has copied, from samples of page faults.

The first fault of a process on a page that both sides had at the fork is a copy. Later
faults on this page, and faults on other pages, are no copies.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections import Counter
from itertools import accumulate, compress
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.memory import PAGE_SIZE, Category
from pagescan.scanner.query import Query

if TYPE_CHECKING:
    from pagescan.model.mapping_set import MappingSet
    from pagescan.scanner.scanner import Scanner

FOREVER = (1 << 64) - 1
_POPULATED = Query(
    require=Category.PRESENT,
    exclude=Category.FILE | Category.PFNZERO,
    returned=Category.PRESENT,
)
_COPIED = bytes([0, 1]) + bytes(254)
_NEW = bytes([0, 0, 1]) + bytes(253)


def populated(scanner: Scanner, private: MappingSet) -> native.Columns:
    """Return the populated regions of private memory: a fork shares these."""
    return scanner.scan(private, _POPULATED)


class Side:
    """One process of a fork, and what it has copied.

    Attributes:
        pid: The process.
        guests: Its vforked children, which write to its memory, and until when.
        until: The time after which its copies no longer count.
        copied: Pages.
        by_code: Pages by the address of the code that wrote.
        addresses: The faults that were copies.
        new_pages: Numbers of the pages that it has written and that were not shared.
    """

    def __init__(self, pid: int, role: str, since: int, shared_pages: int) -> None:
        """Begin with no copies."""
        self.pid = pid
        self.guests: dict[int, int] = {}
        self.role = role
        self.since = since
        self.until = FOREVER
        self.bitmap = bytearray(-(-shared_pages // 8))
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
        end: exited or exec; None: the child lives.
        seen: Copies at the last look, for the rate.
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
        self.lost_before = 0
        self.lost = 0
        self.end: str | None = None
        self.ended_at = 0
        self.seen = 0
        self.peak = 0.0
        self.series: list[tuple[int, int, int]] = []

    @property
    def copied(self) -> int:
        """Pages of which each side has its own copy: those that one side has written.

        If the other side writes later, no copy is made: the page is then its own.
        """
        one, other = (
            int.from_bytes(side.bitmap, "little") for side in (self.parent, self.child)
        )
        return (one | other).bit_count() + (self.copied_before or 0)

    def finish(self, at: int, how: str) -> None:
        """Stop counting: later writes of the parent copy nothing."""
        if self.end is None:
            self.end, self.ended_at = how, at
            self.parent.until = min(self.parent.until, at)
            self.child.until = min(self.child.until, at)

    def look(self, now: int, seconds: float) -> None:
        """Store how much was copied in the interval that ends now."""
        total = self.parent.copied + self.child.copied
        if seconds > 0:
            self.peak = max(self.peak, (total - self.seen) / seconds)
        self.seen = total
        self.series.append((now, self.parent.copied, self.child.copied))
