"""Prints the looks of `watch` at a group, in all formats."""

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from pagescan import render
from pagescan.commands.cmd_output import CmdOutput
from pagescan.commands.group_text import Told
from pagescan.commands.present import GroupCounter, PresentCounter
from pagescan.commands.running import end
from pagescan.commands.tick_text import SAMPLED_ROWS, why_ended, written_words
from pagescan.console.context import Context
from pagescan.console.streams import OutputError
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts, GroupTick
from pagescan.model.report import Report
from pagescan.model.results import Cost, Output, SessionFacts
from pagescan.model.units import format_seconds, format_share, format_size, plural
from pagescan.render.cells import folded
from pagescan.render.group_rows import GroupRows, ProcessTable
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Limits

if TYPE_CHECKING:
    from pagescan.target.process import Target


def run_group(
    group: WatchedGroup,
    limits: Limits,
    stop: int,
    output: Output,
    context: Context,
    cmd_output: CmdOutput | None = None,
) -> GroupTick | None:
    """Show the looks until the end: on a terminal live, elsewhere one by one.

    Args:
        group: The armed group.
        limits: The interval, and when to stop.
        stop: A descriptor: the looks end when it becomes readable.
        output: The format.
        context: The options of every command.
        cmd_output: Where the output of a launched CMD goes.

    Returns:
        The last tick.
    """
    if output.format == "table":
        from pagescan.commands.live_group import run_live

        last, ending, by_key = run_live(group, limits, stop, context, cmd_output)
    else:
        last, ending = _run_plain(group, limits, stop, output, context)
        by_key = False
    if last is None:
        return None
    text = group_end_line(last, ending, by_key=by_key)
    if output.format != "table":
        context.say(text)
        return last
    Told(context).about(last.untracked)
    width = shutil.get_terminal_size().columns
    for line in folded(text, width - len("pagescan: ")):
        context.say(line)
    return last


def _run_plain(
    group: WatchedGroup, limits: Limits, stop: int, output: Output, context: Context
) -> tuple[GroupTick | None, Cost]:
    """Write each look to stdout; return the last one, and the cost of the end."""
    count = len(group.members)
    context.say(
        f"watching {group.selector}, {plural(count, 'process')},"
        f" every {format_seconds(limits.interval)}; Ctrl-C to end"
    )
    by_mapping = output.by == "mapping"
    if group.terms.percent is not None and output.by != "process":
        context.say(SAMPLED_ROWS)
    labelled = output.labelled or (by_mapping and output.has_default)
    labels = _LabelsOfEach(group) if labelled else None
    told = Told(context)
    last, ending = None, Cost()
    growth, counted = None, Cost()
    if by_mapping:
        growth = _GrowthOfEach(group)
        counted = growth.count()
    memory = GroupCounter(group)
    if output.is_json:
        memory.count()
    for tick in group.ticks(limits, stop):
        last = tick
        told.about(tick.untracked)
        if output.format == "plain":
            context.say(group_tick_line(tick))
        if growth is not None:
            counted += growth.count(tick)
        if labels is not None:  # before the end, which forgets the members
            labels.label(tick)
        if output.is_json and not tick.end:
            memory.count()
        ending = end(group, stop) if tick.end else Cost()
        rows = growth.rows_of(tick, output) if growth else rows_of(tick, output)
        report = group_report(group, tick, ending + counted)
        report = replace(report, memory=memory.memory)
        counted = Cost()
        try:
            render.write_result(report, rows, output)
        except OutputError as error:
            raise PagescanError(
                f"{error}: look {tick.number}"
                f" ({plural(tick.summary.pages, 'page')} written) is not complete"
            ) from error
    return last, ending


def rows_of(tick: GroupTick, output: Output) -> GroupRows | ProcessTable:
    """Return the rows of a tick: the processes, or the regions of each."""
    if output.by == "process" and not output.is_json:
        return ProcessTable(facts for facts, _ in tick.members)
    found = tick.members if output.by != "process" else ()
    return GroupRows([(facts, look.batch) for facts, look in found if look is not None])


def group_report(group: WatchedGroup, tick: GroupTick, ending: Cost) -> Report:
    """Return the report of a tick; the last one includes the cost of the end."""
    name = f"{group.selector.kind} {group.selector.name}"
    return Report(
        "watch",
        tick.time,
        None,
        tick.summary,
        session=SessionFacts(name, tick.armed_at, tick.since),
        untracked=tick.untracked,
        cost=tick.cost + ending,
        group=GroupFacts(group.selector.kind, group.selector.name),
        processes=tuple(facts for facts, _ in tick.members),
        gone=tick.gone,
        short_lived=tick.short_lived,
        tick=tick.number,
        interval_ns=round(tick.seconds * 1e9),
        end=tick.end,
        totals=tick.totals if tick.end else None,
        total_share=tick.total_share if tick.end else None,
        total_ns=tick.total_ns if tick.end else None,
        estimate=tick.estimate,
        estimated=tick.estimated,
        unseen_ns=tick.unseen_ns if tick.end else None,
    )


def group_tick_line(tick: GroupTick) -> str:
    """Return the line for one tick: processes, pages written, and the rate."""
    rate = format_size(int(tick.summary.bytes / max(tick.seconds, 1e-6)))
    there = sum(facts.end is None for facts, _ in tick.members)
    return (
        f"tick {tick.number}: {plural(tick.summary.pages, 'page')} written,"
        f" {rate}/s, {plural(there, 'process')}"
    )


def group_end_line(tick: GroupTick, ending: Cost, *, by_key: bool = False) -> str:
    """Return the last line: the reason of the end, totals, and processes that went."""
    cost = ""
    if tick.total_share is not None:
        share, spent = format_share(tick.total_share), (tick.total_ns or 0) / 1e9
        cost = (
            f"; tracking cost them about {format_seconds(spent)}, {share} of their"
            " processor time"
        )
    gone = ""
    if tick.gone:
        gone = f"; {plural(tick.gone, 'process')} went"
    if tick.unseen_ns is not None:
        unseen = format_seconds(tick.unseen_ns / 1e9)
        gone += f": the last looks at them were up to {unseen} before the end"
    if tick.short_lived:
        gone += f"; {tick.short_lived} lived too short for a look"
    if ending.mappings_added:
        cost += f"; tracking left {plural(ending.mappings_added, 'more mapping')}"
    return (
        f"{why_ended(tick.end, by_key=by_key)}:"
        f" {written_words(tick.totals, estimated=tick.estimated)} in"
        f" {plural(tick.number, 'look')}{gone}{cost}"
    )


class _LabelsOfEach:
    """Labels the mappings of each member."""

    def __init__(self, group: WatchedGroup) -> None:
        self._group = group
        self._labels: dict[int, Labels] = {}

    def label(self, tick: GroupTick) -> None:
        """Label the batches of a tick."""
        targets = {
            item.facts.pid: item.tracking.target
            for item in self._group.members.values()
            if item.tracking is not None
        }
        for facts, look in tick.members:
            target = targets.get(facts.target.pid)
            if look is None or target is None:
                continue
            known = self._labels.get(facts.target.pid)
            if known is None or known.target is not target:
                known = self._labels[facts.target.pid] = Labels(target)
            known.label(look.batch)


class _GrowthOfEach:
    """The growth of each member's mappings since its first count."""

    def __init__(self, group: WatchedGroup) -> None:
        self._group = group
        self._counters: dict[int, tuple[Target, PresentCounter]] = {}

    def count(self, tick: GroupTick | None = None) -> Cost:
        """Count the members that have run, and new ones; None: all."""
        members = tick.members if tick else ()
        ran = {facts.target.pid for facts, look in members if look}
        # Those that have ended in this tick still have rows in it.
        there = {
            facts.target.pid: self._counters[facts.target.pid]
            for facts, _ in members
            if facts.target.pid in self._counters
        }
        cost = Cost()
        for item in self._group.members.values():
            if item.tracking is None:
                continue
            pid, target = item.facts.pid, item.tracking.target
            known = self._counters.get(pid)
            if known is None or known[0] is not target:  # new, or an exec
                known = target, PresentCounter(by_mapping=True)
                cost += known[1].count(target, self._group.terms)
            elif pid in ran:
                cost += known[1].count(target, self._group.terms)
            there[pid] = known
        self._counters = there
        return cost

    def rows_of(self, tick: GroupTick, output: Output) -> GroupRows:
        """Return the mappings that each member has written, with their growth."""
        parts = []
        for facts, look in tick.members:
            if look is not None:
                known = self._counters.get(facts.target.pid)
                counter = known[1] if known else PresentCounter()
                parts.append((facts, counter.rows_of(look.batch, output)))
        return GroupRows(parts)
