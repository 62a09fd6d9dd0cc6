"""`pagescan maps`: lists one row per mapping, with its pages by category."""

import click

from pagescan import render
from pagescan.commands.context import Context
from pagescan.commands.options import (
    common,
    output,
    pace_option,
    ranges_argument,
    target_argument,
)
from pagescan.model.batch import PAGE_COUNTED
from pagescan.model.results import Output, Report, Summary
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.process import Target
from pagescan.target.selection import Selection


@click.command(
    epilog="""\b
Examples:
  pagescan maps 4242
  pagescan maps postgres '/dev/zero*' --json | jq '.mappings[].counts'"""
)
@target_argument
@ranges_argument
@output(by=False)
@pace_option
@common
def command(
    *,
    pid: int,
    selection: Selection,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """List the mappings of TARGET: size, present, swapped, file, zero, huge, guard.

    Also counts the written pages of each mapping that is tracked.
    """
    with Target.open(pid) as target:
        mappings = maps.read(target)
        for note in selection.check(mappings):
            context.say(note)
        scanner = Scanner(target, pace)
        session = unregistered.session_of(scanner)
        rows = unregistered.maps(scanner, selection.select(mappings), session)
        totals = {
            name: sum(row.counts[name] or 0 for row in rows) for name in PAGE_COUNTED
        }
        pages = sum(row.pages for row in rows)
        report = Report(
            "maps",
            now(),
            target.facts,
            Summary(len(rows), pages, sum(row.bytes for row in rows), totals),
            cost=scanner.take_cost(),
        )
    render.write_result(report, rows, output)
