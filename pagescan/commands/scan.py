"""`pagescan scan`: lists page regions by category, with the masks of PAGEMAP_SCAN."""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pagescan import render
from pagescan.commands.forms import check_form
from pagescan.commands.group_options import subject_argument
from pagescan.commands.options import (
    common,
    output,
    pace_option,
    ranges_argument,
)
from pagescan.commands.values import Categories, whole
from pagescan.console.context import Context
from pagescan.console.streams import arrived, put
from pagescan.model.batch import Batch
from pagescan.model.errors import UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import DEFAULT_RETURNED, NO_CATEGORY, Category
from pagescan.model.report import Report
from pagescan.model.results import MappingCounts, Output, Summary
from pagescan.model.units import format_size, now, plural
from pagescan.native import Pace
from pagescan.scanner.counts import scan_mappings, tracked_mappings
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.session.lookup import find_session, hint_to_arm
from pagescan.session.record import Session
from pagescan.target import maps as mappings
from pagescan.target.process import Target
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    from pagescan.target.group import Selector

_MASKS = Categories()


_OF_TRACKED = Category.WRITTEN | Category.WPALLOWED


@click.command(
    epilog="""\b
Examples:
  pagescan scan 4242 '[stack]' --require present --exclude file
  pagescan scan redis-server --any present,swapped --return file,swapped --json
  pagescan scan 4242 --require written --wp"""
)
@subject_argument
@ranges_argument
@click.option("--require", type=_MASKS, help="Only pages with all of these.")
@click.option(
    "--any", "any_of", type=_MASKS, help="Only pages with at least one of these."
)
@click.option("--exclude", type=_MASKS, help="Only pages with none of these.")
@click.option(
    "--return",
    "returned",
    type=_MASKS,
    help="Report these, and join neighbours that agree on them.",
)
@click.option(
    "--max-pages",
    type=whole(1),
    metavar="N",
    help="Stop after N pages.",
)
@click.option(
    "--wp",
    is_flag=True,
    help="Write-protect the listed pages, in the same step; needs a session.",
)
@click.option(
    "--wp-only",
    is_flag=True,
    help="As --wp, but print only the summary.",
)
@click.option(
    "--raw-categories",
    "raw",
    is_flag=True,
    help="Show the kernel's own bits, not interpreted.",
)
@output("scan")
@pace_option
@common
def command(
    *,
    subject: "int | Selector",
    selection: Selection,
    require: Category | None,
    any_of: Category | None,
    exclude: Category | None,
    returned: Category | None,
    max_pages: int | None,
    wp: bool,
    wp_only: bool,
    raw: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """List the page regions of TARGET by category.

    RANGE is START-END, START+LEN or a mapping's name with * and ? as wildcards.
    Categories: wpallowed written file present swapped pfnzero huge soft_dirty guard.
    """
    none, shown = NO_CATEGORY, returned or DEFAULT_RETURNED
    masks = require or none, any_of or none, exclude or none, shown
    query = Query(*masks, max_pages, raw)
    protects = "--wp" if wp else "--wp-only" if wp_only else ""
    if raw and protects:
        raise UsageError(f"--raw-categories and {protects} exclude each other")
    if wp_only:
        check_form("summary", output.options)
    if not isinstance(subject, int):
        if protects or max_pages:
            option = protects or "--max-pages"
            raise UsageError(f"{option} does not go with a group")
        from pagescan.commands.group_results import scan_group

        scan_group(subject, selection, query, output, pace, context)
        return
    with contextlib.ExitStack() as undo:
        target = undo.enter_context(Target.open(subject))
        scanner = Scanner(target, pace)
        for note in selection.check(mapped := mappings.read(target)):
            context.say(note)
        selected = selection.select(mapped)
        if protects:
            session, batch = undo.enter_context(_protected(scanner, selected, query))
        else:
            session = unregistered.session_of(scanner)
            batch = unregistered.scan(scanner, selected, query, session)
        asked = (query.require | query.any_of | (returned or none)) & _OF_TRACKED
        judged = asked or output.by == "mapping"
        tracked = tracked_mappings(scanner, selected) if judged else set()
        if asked and not tracked:
            _say_untracked(context, subject)
        summary = batch.summary()
        rows = _rows(Batch.empty(batch) if wp_only else batch, target, tracked, output)
        facts, cost = session.facts if session else None, scanner.take_cost()
        report = Report("scan", now(), target.facts, summary, session=facts, cost=cost)
        if wp_only and output.format in ("table", "plain"):
            put(_protected_line(summary))
        else:
            render.write_result(report, rows, output)
        if protects:
            arrived()


def _protected_line(summary: Summary) -> str:
    """Return the summary of --wp-only, where no rows are wanted."""
    pages, regions = plural(summary.pages, "page"), plural(summary.regions, "region")
    listed = f"{pages} ({format_size(summary.bytes)}) in {regions}"
    return f"{listed} listed, and protected except for holes"


def _say_untracked(context: Context, pid: int) -> None:
    context.say("nothing of the selection is tracked: no page has `written`")
    context.hint(hint_to_arm(pid))


def _rows(
    batch: Batch, target: Target, tracked: set[int], output: Output
) -> Batch | list[MappingCounts]:
    """Return the rows; by mapping, `written` is unknown where nothing is tracked."""
    if output.labelled:
        from pagescan.target.labels import Labels

        Labels(target).label(batch)
    if output.by != "mapping" or "written" not in batch.returned.names:
        return batch
    return [
        row
        if row.start in tracked
        else replace(row, counts={**row.counts, "written": None})
        for row in batch.by_mapping()
    ]


def _protected(
    scanner: Scanner, chosen: MappingSet, query: Query
) -> AbstractContextManager[tuple[Session | None, Batch]]:
    """Get and write-protect on a session; what was written is kept until it arrives."""
    from pagescan.session.delivery import protect_until_delivered

    return protect_until_delivered(
        find_session(scanner.target.pid),
        lambda uffd: scan_mappings(scanner, chosen, query, uffd),
        written=bool(query.returned & Category.WRITTEN),
    )
