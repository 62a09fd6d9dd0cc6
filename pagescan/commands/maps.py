"""`pagescan maps`: lists one row per mapping, with its pages by category."""

import click

from pagescan import render
from pagescan.commands.options import (
    common,
    output,
    pace_option,
    ranges_argument,
    target_argument,
)
from pagescan.console.context import Context
from pagescan.model.memory import PAGE_COUNTED
from pagescan.model.results import SHARES, Output, Report, Summary
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.scanner.counts import with_shares
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection


def _say_rules(labels: Labels, context: Context) -> None:
    """Print, with -v, which rules have labelled which memory."""
    for rule, texts in labels.by_rule().items():
        more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
        context.detail(f"{', '.join(texts[:3])}{more}, by the rule: {rule}")


@click.command(
    epilog="""\b
Examples:
  pagescan maps 4242
  pagescan maps java --sort -present -c start,size,present,label
  pagescan maps postgres --smaps --oldest
  pagescan maps postgres '/dev/zero*' --json | jq '.mappings[].counts'"""
)
@target_argument
@ranges_argument
@click.option(
    "--smaps",
    is_flag=True,
    help="Read smaps, too: columns private, shared, pss. Holds the target's mmap lock"
    " for a whole mapping at a time.",
)
@output("maps")
@pace_option
@common
def command(
    *,
    pid: int,
    selection: Selection,
    smaps: bool,
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
        if smaps or output.names(*SHARES):
            rows = with_shares(scanner, rows)
        if output.columns is None or output.labelled:
            labels = Labels(target)
            rows = labels.label_rows(rows)
            _say_rules(labels, context)
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
