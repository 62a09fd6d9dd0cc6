"""`scan` and `maps` of a group: each process by itself, and the sum of all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.groups import (
    GroupFacts,
    GroupMaps,
    GroupScan,
    MemberUntracked,
    ProcessFacts,
)
from pagescan.model.memory import PAGE_COUNTED, Kind
from pagescan.model.results import Cost, MappingCounts, MappingTable, Summary
from pagescan.model.shared_once import SharedOnce
from pagescan.native import Pace
from pagescan.scanner.counts import populated_regions, with_shares
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.group import Member, Selector
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection

_Rows = TypeVar("_Rows", Batch, MappingTable)


def scan_members(
    selector: Selector,
    selection: Selection,
    query: Query,
    pace: Pace,
    *,
    labelled: bool = False,
) -> GroupScan:
    """Return the regions of each process; in the sum shared memory counts once.

    Args:
        selector: The group.
        selection: The mappings to scan.
        query: The masks.
        pace: How long one call may hold the mmap lock of a process.
        labelled: Whether mappings get a label.

    Raises:
        NoSuchTargetError: There is no process in the group.
        PagescanError: No process could be scanned.
    """
    whole = SharedOnce()

    def scan(scanner: Scanner) -> tuple[Batch, Summary]:
        mappings = maps.read(scanner.target)
        selection.check(mappings)
        session = unregistered.session_of(scanner)
        selected = selection.select(mappings)
        batch = unregistered.scan(scanner, selected, query, session)
        whole.add(batch)
        if labelled:
            Labels(scanner.target).label(batch)
        return batch, batch.summary()

    every = _Every(selector, pace, scan)
    regions = sum(facts.summary.regions for facts, _ in every.parts)
    return GroupScan(
        every.group,
        tuple(every.parts),
        whole.summary()._replace(regions=regions),
        tuple(every.left_out),
        every.cost,
    )


def maps_of_members(
    selector: Selector,
    selection: Selection,
    pace: Pace,
    *,
    smaps: bool = False,
    labelled: bool = True,
) -> GroupMaps:
    """Return the mappings of each process; in the sum shared memory counts once.

    Args:
        selector: The group.
        selection: The mappings.
        pace: How long one call may hold the mmap lock of a process.
        smaps: Whether smaps is read, too.
        labelled: Whether mappings get a label.

    Raises:
        PagescanError: As for `scan_members`.
    """
    whole = SharedOnce()

    def count(scanner: Scanner) -> tuple[MappingTable, Summary]:
        mappings = maps.read(scanner.target)
        selection.check(mappings)
        session = unregistered.session_of(scanner)
        rows = unregistered.maps(scanner, selection.select(mappings), session)
        whole.add(populated_regions(scanner, selection))
        if smaps:
            rows = with_shares(scanner, rows)
        if labelled:
            rows = Labels(scanner.target).label_rows(rows)
        return MappingTable(rows), _sum_of(rows)

    every = _Every(selector, pace, count)
    summary = _sum_of_all(every.parts, whole.summary().categories)
    return GroupMaps(
        every.group, tuple(every.parts), summary, tuple(every.left_out), every.cost
    )


def _sum_of_all(
    parts: Sequence[tuple[ProcessFacts, MappingTable]], once: Mapping[str, int]
) -> Summary:
    """Return the sum of all processes; `once`: populated pages, shared ones once."""
    each = [facts.summary for facts, _ in parts]
    totals = {
        name: sum(one.categories.get(name, 0) for one in each) for name in PAGE_COUNTED
    }
    totals["present"] = once.get("present", 0)
    totals["file"] = once.get("file", 0)
    totals["swapped"] = once.get("swapped", 0) + _shared_swap(parts)
    return Summary(
        sum(one.regions for one in each),
        sum(one.pages for one in each),
        sum(one.bytes for one in each),
        totals,
    )


def _sum_of(rows: Sequence[MappingCounts]) -> Summary:
    counts = {}
    for name in PAGE_COUNTED:
        known = [count for row in rows if (count := row.counts[name]) is not None]
        if known or not rows:  # "written" is unknown where nothing is tracked
            counts[name] = sum(known)
    pages, size = sum(row.pages for row in rows), sum(row.bytes for row in rows)
    return Summary(len(rows), pages, size, counts)


def _shared_swap(parts: Sequence[tuple[ProcessFacts, MappingTable]]) -> int:
    """Return the swapped pages of shared mappings; each part of a file counts once."""
    found = {
        (row.mapping.device, row.mapping.inode, row.mapping.offset, row.pages): (
            row.counts["swapped"] or 0
        )
        for _, rows in parts
        for row in rows
        if row.mapping.kind is Kind.SHARED
    }
    return sum(found.values())


class _Every(Generic[_Rows]):
    """The results of all processes of a group.

    Attributes:
        group: The group.
        parts: The processes, with their rows.
        left_out: The processes for which the function failed.
        cost: The cost to all of them.
    """

    def __init__(
        self,
        selector: Selector,
        pace: Pace,
        function: Callable[[Scanner], tuple[_Rows, Summary]],
    ) -> None:
        """Call a function for each process; remember the reason where it failed.

        Raises:
            NoSuchTargetError: There is no process in the group.
            PagescanError: It failed for all of them.
        """
        self.parts: list[tuple[ProcessFacts, _Rows]] = []
        self.group = GroupFacts(selector.kind, selector.name)
        self.left_out: list[MemberUntracked] = []
        self.cost = Cost()
        error: PagescanError | None = None
        for member in selector.require():
            try:
                self._add(member, pace, function)
            except PagescanError as failed:
                error = error or failed
                why = str(failed)
                item = MemberUntracked(member.pid, member.name, None, why)
                self.left_out.append(item)
        if error is not None and not self.parts:
            raise error

    def _add(
        self,
        member: Member,
        pace: Pace,
        function: Callable[[Scanner], tuple[_Rows, Summary]],
    ) -> None:
        pid, start_time = member.key
        with Target.open(pid, start_time=start_time) as target:
            scanner = Scanner(target, pace)
            rows, summary = function(scanner)
            self.cost += scanner.take_cost()
            facts = ProcessFacts(target.facts, member.label, summary)
            self.parts.append((facts, rows))
