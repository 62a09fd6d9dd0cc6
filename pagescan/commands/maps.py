"""`pagescan maps`: lists one row per mapping, with its pages by category."""

from collections.abc import Sequence
from dataclasses import replace

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
from pagescan.model.batch import PAGE_COUNTED
from pagescan.model.memory import Mapping
from pagescan.model.results import MappingCounts, Output, Report, Summary
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.target import maps
from pagescan.target.labels import Label, Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection


def _labelled(
    rows: Sequence[MappingCounts],
    labels: Sequence[Label | None],
    mappings: Sequence[Mapping],
    context: Context,
) -> list[MappingCounts]:
    """Return the rows with their labels; with -v, say by which rules."""
    known = {
        mapping.start: label
        for mapping, label in zip(mappings, labels, strict=True)
        if label is not None
    }
    by_rule: dict[str, set[str]] = {}
    for label in known.values():
        by_rule.setdefault(label.rule, set()).add(label.text)
    for rule, texts in by_rule.items():
        names = sorted(texts)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        context.detail(f"{', '.join(names[:3])}{more}, by the rule: {rule}")
    return [
        replace(row, label=known[row.start].text) if row.start in known else row
        for row in rows
    ]


@click.command(
    epilog="""\b
Examples:
  pagescan maps 4242
  pagescan maps java -c start,size,present,label
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
        if output.columns is None or output.labelled:
            rows = _labelled(rows, Labels(target).of(mappings), mappings, context)
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
