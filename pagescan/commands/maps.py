"""`pagescan maps`: lists one row per mapping, with its pages by category."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pagescan import render
from pagescan.commands.group_options import subject_argument
from pagescan.commands.options import common, output, pace_option, ranges_argument
from pagescan.console.context import Context
from pagescan.console.garbage import without_searches
from pagescan.model.errors import UsageError
from pagescan.model.memory import PAGE_COUNTED
from pagescan.model.report import Report
from pagescan.model.results import SHARES, MappingCounts, Output, Summary
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.scanner.counts import with_shares
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    from pagescan.target.group import Selector


def _say_rules(labels: Labels, context: Context) -> None:
    """Print, with -v, which rules have labelled which memory."""
    for rule, texts in labels.by_rule().items():
        more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
        context.detail(f"{', '.join(texts[:3])}{more}, by the rule: {rule}")


def _sum_of(rows: Sequence[MappingCounts]) -> Summary:
    """Return the sums over all mappings; an unknown count adds 0."""
    totals = {name: sum(row.counts[name] or 0 for row in rows) for name in PAGE_COUNTED}
    pages, size = sum(row.pages for row in rows), sum(row.bytes for row in rows)
    return Summary(len(rows), pages, size, totals)


@click.command(
    epilog="""\b
Examples:
  pagescan maps 4242
  pagescan maps java --sort -present -c start,size,present,label
  pagescan maps java --ask-runtime -v
  pagescan maps postgres --smaps --oldest
  pagescan maps --unit nginx --by process
  pagescan maps postgres --oldest '/dev/zero*' --json | jq '.mappings[].counts'"""
)
@subject_argument
@ranges_argument
@click.option(
    "--smaps",
    is_flag=True,
    help="Read smaps, too: columns private, shared, pss. Holds the target's mmap lock"
    " for a whole mapping at a time.",
)
@click.option(
    "--ask-runtime",
    is_flag=True,
    help="Ask a Java virtual machine itself what its memory is for, with jcmd: this"
    " disturbs it.",
)
@output("maps")
@pace_option
@common
def command(
    *,
    subject: "int | Selector",
    selection: Selection,
    smaps: bool,
    ask_runtime: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """List the mappings of TARGET: size, present, swapped, file, zero, huge, guard.

    Also counts the written pages of each mapping that is tracked.
    """
    labelled = output.has_default or output.labelled
    if ask_runtime and not labelled:
        raise UsageError("--ask-runtime needs the column label: -c +label")
    if not isinstance(subject, int):
        if ask_runtime:
            raise UsageError("--ask-runtime does not go with a group")
        from pagescan.commands.group_results import maps_of_group

        shares = smaps or output.names(*SHARES)
        maps_of_group(subject, selection, output, pace, context, smaps=shares)
        return
    with Target.open(subject) as target, without_searches():
        mappings = maps.read(target)
        for note in selection.check(mappings):
            context.say(note)
        scanner = Scanner(target, pace)
        session = unregistered.session_of(scanner)
        rows = unregistered.maps(scanner, selection.select(mappings), session)
        if smaps or output.names(*SHARES):
            rows = with_shares(scanner, rows)
        if labelled:
            labels = Labels(target)
            if ask_runtime:
                from pagescan.target.jvm import ask

                labels.told = ask(target)
            rows = labels.label_rows(rows, mappings)
            _say_rules(labels, context)
        cost = scanner.take_cost()
        report = Report("maps", now(), target.facts, _sum_of(rows), cost=cost)
    render.write_result(report, rows, output)
