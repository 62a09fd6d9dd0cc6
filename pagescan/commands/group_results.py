"""`maps` and `scan` at a group: each process by itself, and the sum of all."""

from collections.abc import Callable, Sequence

from pagescan import render
from pagescan.console.context import Context
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts, MemberUntracked, ProcessFacts
from pagescan.model.memory import PAGE_COUNTED, Kind
from pagescan.model.results import Cost, MappingCounts, Output, Report, Summary
from pagescan.model.shared_once import SharedOnce
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.render.group_rows import GroupRows, ProcessTable
from pagescan.scanner.counts import populated_regions, with_shares
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.group import Member, Selector
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection

_Rows = Batch | Sequence[MappingCounts]
_Found = tuple[_Rows, Summary]


def scan_group(
    selector: Selector,
    selection: Selection,
    query: Query,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """Print the regions of each process; in the sum shared memory counts once."""
    whole = SharedOnce()

    def scan(scanner: Scanner) -> _Found:
        mappings = maps.read(scanner.target)
        selection.check(mappings)
        session = unregistered.session_of(scanner)
        selected = selection.select(mappings)
        batch = unregistered.scan(scanner, selected, query, session)
        whole.add(batch)
        if output.labelled:
            Labels(scanner.target).label(batch)
        return batch, batch.summary()

    every = _Every(selector, pace, scan)
    regions = sum(facts.summary.regions for facts, _ in every.parts)
    summary = whole.summary()._replace(regions=regions)
    every.write("scan", summary, output, context)


def maps_of_group(
    selector: Selector,
    selection: Selection,
    output: Output,
    pace: Pace,
    context: Context,
    *,
    smaps: bool,
) -> None:
    """Print the mappings of each process; in the sum shared memory counts once."""
    whole = SharedOnce()
    labelled = output.by != "process" and (output.columns is None or output.labelled)

    def count(scanner: Scanner) -> _Found:
        mappings = maps.read(scanner.target)
        selection.check(mappings)
        session = unregistered.session_of(scanner)
        rows = unregistered.maps(scanner, selection.select(mappings), session)
        whole.add(populated_regions(scanner, selection))
        if smaps:
            rows = with_shares(scanner, rows)
        if labelled:
            rows = Labels(scanner.target).label_rows(rows)
        return rows, _sum_of(rows)

    every = _Every(selector, pace, count)
    each = [facts.summary for facts, _ in every.parts]
    totals = {
        name: sum(one.categories.get(name, 0) for one in each) for name in PAGE_COUNTED
    }
    once = whole.summary().categories
    totals["present"] = once.get("present", 0)
    totals["file"] = once.get("file", 0)
    totals["swapped"] = once.get("swapped", 0) + _shared_swap(every.parts)
    summary = Summary(
        sum(one.regions for one in each),
        sum(one.pages for one in each),
        sum(one.bytes for one in each),
        totals,
    )
    every.write("maps", summary, output, context)


def _sum_of(rows: Sequence[MappingCounts]) -> Summary:
    counts = {}
    for name in PAGE_COUNTED:
        known = [count for row in rows if (count := row.counts[name]) is not None]
        if known or not rows:  # "written" is unknown where nothing is tracked
            counts[name] = sum(known)
    pages, size = sum(row.pages for row in rows), sum(row.bytes for row in rows)
    return Summary(len(rows), pages, size, counts)


def _shared_swap(parts: Sequence[tuple[ProcessFacts, _Rows]]) -> int:
    """Return the swapped pages of shared mappings; each part of a file counts once."""
    found = {
        (row.mapping.device, row.mapping.inode, row.mapping.offset, row.pages): (
            row.counts["swapped"] or 0
        )
        for _, rows in parts
        if not isinstance(rows, Batch)
        for row in rows
        if row.mapping.kind is Kind.SHARED
    }
    return sum(found.values())


class _Every:
    """The results of all processes of a group.

    Attributes:
        parts: The processes, with their rows.
    """

    def __init__(
        self, selector: Selector, pace: Pace, function: Callable[[Scanner], _Found]
    ) -> None:
        """Call a function for each process; remember the reason where it failed.

        Raises:
            NoSuchTargetError: There is no process in the group.
            PagescanError: It failed for all of them.
        """
        self.parts: list[tuple[ProcessFacts, _Rows]] = []
        self._group = GroupFacts(selector.kind, selector.name)
        self._failed: list[MemberUntracked] = []
        self._cost = Cost()
        error: PagescanError | None = None
        for member in selector.require():
            try:
                self._add(member, pace, function)
            except PagescanError as failed:
                error = error or failed
                why = str(failed)
                item = MemberUntracked(member.pid, member.name, None, why)
                self._failed.append(item)
        if error is not None and not self.parts:
            raise error

    def _add(
        self, member: Member, pace: Pace, function: Callable[[Scanner], _Found]
    ) -> None:
        pid, start_time = member.key
        with Target.open(pid, start_time=start_time) as target:
            scanner = Scanner(target, pace)
            rows, summary = function(scanner)
            self._cost += scanner.take_cost()
            facts = ProcessFacts(target.facts, member.label, summary)
            self.parts.append((facts, rows))

    def write(
        self, kind: str, summary: Summary, output: Output, context: Context
    ) -> None:
        """Print the results, and which processes have none."""
        for item in self._failed:
            context.say(f"left out: {item.pid} {item.name}: {item.why}")
        report = Report(
            kind,
            now(),
            None,
            summary,
            untracked=tuple(self._failed),
            cost=self._cost,
            group=self._group,
            processes=tuple(facts for facts, _ in self.parts),
        )
        rows: GroupRows | ProcessTable = GroupRows(self.parts)
        if output.by == "process":
            table = ProcessTable(facts for facts, _ in self.parts)
            rows = GroupRows(()) if output.is_json else table
        render.write_result(report, rows, output)
