"""`maps` and `scan` at a group: prints each process by itself, and the sum of all."""

from pagescan import render
from pagescan.console.context import Context
from pagescan.model.groups import GroupMaps, GroupScan
from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.render.group_rows import GroupRows, ProcessTable
from pagescan.scanner.query import Query
from pagescan.session.group_scan import maps_of_members, scan_members
from pagescan.target.group import Selector
from pagescan.target.selection import Selection


def scan_group(
    selector: Selector,
    selection: Selection,
    query: Query,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """Print the regions of each process."""
    labelled = output.labelled
    found = scan_members(selector, selection, query, pace, labelled=labelled)
    _write("scan", found, output, context)


def maps_of_group(
    selector: Selector,
    selection: Selection,
    output: Output,
    pace: Pace,
    context: Context,
    *,
    smaps: bool,
) -> None:
    """Print the mappings of each process."""
    labelled = output.by != "process" and (output.has_default or output.labelled)
    found = maps_of_members(selector, selection, pace, smaps=smaps, labelled=labelled)
    _write("maps", found, output, context)


def _write(
    kind: str, found: GroupScan | GroupMaps, output: Output, context: Context
) -> None:
    """Print the results, and which processes have none."""
    for item in found.left_out:
        context.say(f"left out: {item.pid} {item.name}: {item.why}")
    report = Report(
        kind,
        now(),
        None,
        found.summary,
        untracked=found.left_out,
        cost=found.cost,
        group=found.group,
        processes=tuple(facts for facts, _ in found.parts),
    )
    rows: GroupRows | ProcessTable = GroupRows(found.parts)
    if output.by == "process":
        table = ProcessTable(facts for facts, _ in found.parts)
        rows = GroupRows(()) if output.is_json else table
    render.write_result(report, rows, output)
