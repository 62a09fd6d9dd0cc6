"""The tick: follow new mappings, get what was written and rearm, join, tally."""

import contextlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from pagescan import attach, mappings
from pagescan.arm import MAX_TABLES, Armed, Armer, owners_of
from pagescan.errors import PagescanError
from pagescan.mappings import Selection
from pagescan.model import (
    DEFAULT_RETURNED,
    Category,
    Cost,
    Kind,
    Mapping,
    MappingCounts,
    Region,
    Untracked,
)
from pagescan.native import Columns, Masks, Pace, Rule, Spans
from pagescan.regions import PAGE_COUNTED, Batch
from pagescan.scanner import (
    JOIN_GAP,
    PRIVATE,
    Query,
    Scanner,
    as_spans,
    known_categories,
    merge,
    rule_for,
    spans_of,
)
from pagescan.session import Lock, Session, now
from pagescan.target import Target


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Attributes:
        batch: The written pages; those of mappings that came after arming are `new`.
        untracked: What of the selection nothing can be promised for.
        time: When the look was over, in UTC: the baseline of the next, if it rearmed.
        cost: What it cost the target.
    """

    batch: Batch
    untracked: tuple[Untracked, ...]
    time: datetime
    cost: Cost


class Tracking:
    """Looks at what one target writes, through its userfaultfd.

    Attributes:
        target: The process.
        uffd: Its userfaultfd; whoever made this object closes it.
        armed: What is tracked; changed by a look that rearms.
        armed_at: When it was armed, in UTC.
        since: The end of the last look that rearmed.
    """

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
        """Go on with what is armed already; `start` arms."""
        self.target = target
        self.uffd = uffd
        self.armed = armed
        self.armed_at = armed_at
        self.since = since
        self.scanner = Scanner(target, pace)
        self._armer = Armer(self.scanner, uffd, armed)
        self.cost = Cost()

    @classmethod
    def start(
        cls,
        target: Target,
        selection: Selection | None = None,
        *,
        max_tables: int = MAX_TABLES,
        pace: Pace | None = None,
    ) -> Self:
        """Attach to a target and arm what is selected.

        Raises:
            PagescanError: Nothing of the selection could be armed.
        """
        taken = attach.take(target)
        try:
            armed = Armed(selection or Selection(), tables_left=max_tables)
            tracking = cls(
                target, taken.uffd, armed, armed_at=now(), since=None, pace=pace
            )
            tracking.arm()
        except BaseException:
            os.close(taken.uffd)
            raise
        tracking.cost = tracking.scanner.take_cost(taken.stopped_ns)
        return tracking

    def arm(self) -> None:
        """Register and protect everything selected."""
        self._armer.arm(mappings.read(self.target))
        if not self.target.has_address_space():
            raise self.target.gone()
        if not self.armed.tracked_bytes:
            reasons = {item.why for item in self.armed.untracked}
            raise PagescanError(
                f"nothing of the selection could be armed in {self.target}:"
                f" {'; '.join(sorted(reasons)) or 'nothing there is populated'}"
            )
        self.armed_at = self.since = now()

    def look(
        self, *, rearm: bool = False, returned: Category = DEFAULT_RETURNED
    ) -> Look:
        """Find what was written since arming, or since the last look that rearmed.

        Args:
            rearm: Protect what is found, in the same step; take new mappings in.
            returned: What is said of the pages, and what neighbours are joined on.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        chosen = self._judged()
        fresh = self._armer.populated_outside(chosen)
        new = frozenset(owners_of(fresh, chosen))
        if rearm:
            fresh = self._take_in([chosen[index] for index in sorted(new)])
        written = self._written(chosen, rearm=rearm, returned=returned)
        found = merge(written, fresh)
        batch = self._joined(found, chosen, new, returned)
        if not self.target.has_address_space():
            raise self.target.gone()
        moment = now()
        if rearm:
            self.since = moment
            self.armed.epoch += 1
        cost = self.scanner.take_cost()
        self.cost += cost
        return Look(batch, tuple(self.armed.untracked), moment, cost)

    def written(self, *, rearm: bool = True) -> Iterator[Region]:
        """Yield what was written since the last call that rearmed."""
        return self.look(rearm=rearm).batch.regions()

    def close(self) -> None:
        """Disarm: unregister all, close the userfaultfd; twice does no harm."""
        if self.uffd < 0:
            return
        with contextlib.suppress(PagescanError):
            self._armer.disarm(mappings.read(self.target))
        os.close(self.uffd)
        self.uffd = -1

    def hand_over(self) -> None:
        """Let go of the userfaultfd without disarming: a keeper has a duplicate."""
        os.close(self.uffd)
        self.uffd = -1

    def _judged(self) -> list[Mapping]:
        """Return the selected mappings that can be tracked."""
        return [
            mapping
            for mapping in self.armed.selection.select(mappings.read(self.target))
            if mapping.kind is not Kind.SPECIAL
            and not self._armer.is_untracked(mapping)
        ]

    def _take_in(self, found: Sequence[Mapping]) -> Columns:
        """Register new mappings; return the populated pages of the shared ones.

        Those of the private ones are unprotected: the scan that follows gets and
        protects them in one step.
        """
        registered = self._armer.register(found)
        return self._armer.protect_whole(registered)

    def _written(
        self, chosen: Sequence[Mapping], *, rearm: bool, returned: Category
    ) -> Columns:
        """Scan in two stages: candidates by the kernel's fast path, then categories."""
        query = Query(require=Category.WRITTEN, returned=returned)
        candidates: list[Rule] = []
        exact: list[Rule] = []
        indices = {}
        for kind, size in dict.fromkeys((item.kind, item.page_size) for item in chosen):
            rule = rule_for(kind, query, size)
            if rule is None:
                continue
            indices[kind, size] = len(exact)
            candidates.append(
                Rule(
                    asked=Masks(mask=Category.WRITTEN, returned=Category.WRITTEN),
                    # Pages of the file itself are candidates for ever.
                    whole=kind is Kind.PRIVATE_FILE,
                    align=rule.align,
                    tag=len(exact),
                )
            )
            exact.append(replace(rule, protect=rearm))
        spans = spans_of(chosen, indices)
        found = self.scanner.run(spans, candidates, join_gap=JOIN_GAP)
        return self.scanner.run(as_spans(found), exact)

    def _joined(
        self,
        found: Columns,
        chosen: Sequence[Mapping],
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
        # A mapping grew while it was looked at: what was got there must be said.
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


class OwnTracking(Tracking):
    """What `track` returns: closes the target and frees the lock as well."""

    lock: Lock

    def close(self) -> None:
        """Disarm and let others track the target."""
        super().close()
        self.lock.remove()
        self.lock.close()
        self.target.close()


def scan(
    pid: int | None,
    ranges: Iterable[str] | None = None,
    query: Query | None = None,
) -> Batch:
    """Return the page regions of a process that a query wants.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.
        query: The masks; None: all pages, with the default categories.

    Raises:
        PagescanError: As the commands say.
    """
    query = query or Query()
    selection = Selection.parse(ranges or ())
    with Target.open(os.getpid() if pid is None else pid) as target:
        there = mappings.read(target)
        selection.check(there)
        return scan_target(Scanner(target), selection.select(there), query)


def scan_target(
    scanner: Scanner, chosen: Sequence[Mapping], query: Query, *, protect: bool = False
) -> Batch:
    """Scan selected mappings; with `protect`, get and write-protect in one step."""
    found = (scanner.protect if protect else scanner.scan)(chosen, query)
    return Batch.join(
        found,
        chosen,
        page_size=scanner.target.facts.page_size,
        returned=query.returned & known_categories(),
    )


def maps(pid: int | None, ranges: Iterable[str] | None = None) -> list[MappingCounts]:
    """Return one row a mapping: its pages by category.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.
    """
    selection = Selection.parse(ranges or ())
    with Target.open(os.getpid() if pid is None else pid) as target:
        there = mappings.read(target)
        selection.check(there)
        return count_by_mapping(Scanner(target), selection.select(there))


def count_by_mapping(
    scanner: Scanner, chosen: Sequence[Mapping]
) -> list[MappingCounts]:
    """Count the populated pages of each mapping; "written" is None if it is untracked.

    The swap of shared mappings is taken from smaps: their entries do not show it.
    """
    known = known_categories()
    counted = Category(0)
    for name in PAGE_COUNTED:
        counted |= Category.parse(name)
    query = Query(
        any_of=(Category.PRESENT | Category.SWAPPED | Category.GUARD) & known,
        returned=(counted | Category.WPALLOWED) & known,
    )
    batch = scan_target(scanner, chosen, query)
    tracked = tracked_mappings(scanner, chosen)
    swap = _shared_swap(scanner.target, chosen)
    found = {row.mapping.start: row for row in batch.by_mapping()}
    size = scanner.target.facts.page_size
    rows = []
    for mapping in chosen:
        row = found.get(mapping.start)
        counts: dict[str, int | None] = {
            name: (row.counts.get(name) or 0) if row else 0 for name in PAGE_COUNTED
        }
        if mapping.start not in tracked:
            counts["written"] = None
        if mapping.kind not in PRIVATE:
            counts["swapped"] = swap.get(mapping.start, 0)
        pages = mapping.length // size
        rows.append(MappingCounts(mapping, pages, mapping.length, counts))
    return rows


def tracked_mappings(scanner: Scanner, chosen: Sequence[Mapping]) -> set[int]:
    """Return the starts of the mappings that are armed: WPALLOWED.

    One call a mapping: the kernel skips one that is not armed whole, and stops at the
    first page of one that is.
    """
    rule = Rule(
        asked=Masks(mask=Category.WPALLOWED, returned=Category.WPALLOWED), first=True
    )
    judged = [mapping for mapping in chosen if mapping.kind is not Kind.SPECIAL]
    spans = Spans(
        array("Q", (mapping.start for mapping in judged)),
        array("Q", (mapping.end for mapping in judged)),
        array("Q", bytes(8 * len(judged))),
    )
    found = scanner.run(spans, [rule])
    return {judged[index].start for index in owners_of(found, judged) if index >= 0}


def _shared_swap(target: Target, chosen: Sequence[Mapping]) -> dict[int, int]:
    """Return swapped pages of shared mappings by start, from smaps."""
    if not any(mapping.kind is Kind.SHARED for mapping in chosen):
        return {}
    if len(Path("/proc/swaps").read_text().splitlines()) < 2:
        return {}
    with contextlib.suppress(OSError):
        size = target.facts.page_size
        swap = mappings.smaps_field(target.pid, b"Swap")
        return {start: length // size for start, length in swap.items()}
    return {}


def track(pid: int | None = None, ranges: Iterable[str] | None = None) -> Tracking:
    """Arm a process and return the tracking, a context manager that disarms at its end.

    Args:
        pid: The process; None: this one, without ptrace and without rights.
        ranges: RANGE words; None: everything. Mappings that come later are judged by
            the same words.

    Raises:
        PagescanError: As `arm` says.
    """
    selection = Selection.parse(ranges or ())
    target = Target.open(os.getpid() if pid is None else pid)
    with contextlib.ExitStack() as undo:
        undo.callback(target.close)
        selection.check(mappings.read(target))
        lock = Lock.take(target.pid)
        undo.callback(lock.close)
        undo.callback(lock.remove)
        tracking = OwnTracking.start(target, selection)
        tracking.lock = lock
        lock.write(session_of(tracking, "track"))
        undo.pop_all()
    return tracking


def session_of(tracking: Tracking, holder: str) -> Session:
    """Return the facts of a tracking as a session's lock file has them."""
    armed = tracking.armed
    return Session(
        tracking.target.facts,
        tracking.armed_at,
        tracking.since,
        holder,
        os.getpid(),
        armed.selection.words,
        armed.untracked,
        armed.tracked_bytes,
        armed.tables_left,
        armed.epoch,
    )
