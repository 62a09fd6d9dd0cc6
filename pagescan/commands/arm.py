"""`pagescan arm`: starts a tracking session and returns."""

import click

from pagescan import render
from pagescan.commands.options import (
    common,
    one_process,
    output,
    pace_option,
    ranges_argument,
    tables_option,
    target_argument,
)
from pagescan.console.context import Context
from pagescan.model.results import Output, Report, Summary
from pagescan.model.units import format_seconds, format_size
from pagescan.native import Pace
from pagescan.session.opened import start
from pagescan.session.record import session_of
from pagescan.target import maps as mappings
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible


@click.command(
    epilog="""\b
Examples:
  pagescan arm 4242
  pagescan arm redis-server '[anon]'; sleep 10; pagescan diff"""
)
@target_argument
@ranges_argument
@one_process
@output("arm")
@pace_option
@tables_option
@common
def command(
    *,
    pid: int,
    selection: Selection,
    output: Output,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> None:
    """Start to track which pages TARGET writes, and return.

    One of its threads is stopped once, for about 0.2 ms. From then on the first write
    to each page costs the target one short fault. `pagescan diff` shows the written
    pages. `pagescan disarm` or the target's end ends the session.
    """
    check_possible()
    with Target.open(pid) as target:
        for note in selection.check(mappings.read(target)):
            context.say(note)
        tracking = start(target, selection, max_tables=max_tables, pace=pace)
    context.detail(tracking.attached)
    context.say_untracked(tuple(tracking.armed.untracked))
    context.say(
        f"armed {target}: {format_size(tracking.armed.tracked_bytes)},"
        f" stopped for {format_seconds(tracking.cost.stopped_ns / 1e9)}"
    )
    report = Report(
        "arm",
        tracking.armed_at,
        target.facts,
        Summary.none(),
        session=session_of(tracking, "keeper").facts,
        untracked=tuple(tracking.armed.untracked),
        cost=tracking.cost,
    )
    if output.is_json:
        render.write_result(report, [], output)
