"""`pagescan arm`: starts a tracking session and returns."""

from typing import TYPE_CHECKING

import click

from pagescan import render
from pagescan.commands.group_options import subject_argument
from pagescan.commands.options import (
    common,
    output,
    pace_option,
    ranges_argument,
    tables_option,
)
from pagescan.commands.signals import undo_on_signals
from pagescan.console.context import Context
from pagescan.model.report import Report
from pagescan.model.results import Output, Summary
from pagescan.model.units import format_seconds, format_size
from pagescan.native import Pace
from pagescan.session.opened import start
from pagescan.session.record import session_of
from pagescan.target import maps as mappings
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible

if TYPE_CHECKING:
    from pagescan.target.group import Selector


@click.command(
    epilog="""\b
Examples:
  pagescan arm 4242
  pagescan arm redis-server '[anon]'; sleep 10; pagescan diff
  pagescan arm --tree 4242; sleep 10; pagescan diff --tree 4242 --by process"""
)
@subject_argument
@ranges_argument
@output("arm")
@pace_option
@tables_option
@common
def command(
    *,
    subject: "int | Selector",
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

    A group has one session: of the processes that it has now.
    """
    check_possible()
    if not isinstance(subject, int):
        from pagescan.commands.group_sessions import arm_and_print
        from pagescan.session.watched import Terms

        terms = Terms(selection, pace, max_tables=max_tables, detail=context.detail)
        with undo_on_signals():
            arm_and_print(subject, terms, output, context)
        return
    with undo_on_signals(), Target.open(subject) as target:
        for note in mappings.check_selection(selection, target):
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
