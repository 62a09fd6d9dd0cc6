"""Prints the looks of `watch` at a group, in all formats."""

import shutil

from pagescan import render
from pagescan.commands.tick_text import why_ended
from pagescan.console.context import Context
from pagescan.console.streams import OutputError
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts, GroupTick, MemberUntracked
from pagescan.model.results import Cost, Output, Report, SessionFacts
from pagescan.model.units import format_seconds, format_share, format_size, plural
from pagescan.render.cells import folded
from pagescan.render.group_rows import GroupRows, ProcessTable
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Limits

_NAMED = 5
"""Untracked processes that a message names."""


def run_group(
    group: WatchedGroup, limits: Limits, stop: int, output: Output, context: Context
) -> None:
    """Show the looks until the end: on a terminal live, elsewhere one by one."""
    if output.format == "table":
        from pagescan.commands.live_group import run_live

        last, ending, by_key = run_live(group, limits, stop, context)
    else:
        last, ending = _run_plain(group, limits, stop, output, context)
        by_key = False
    if last is None:
        return
    text = group_end_line(last, ending, by_key=by_key)
    if output.format != "table":
        context.say(text)
        return
    _Told(context).about(last)
    width = shutil.get_terminal_size().columns
    for line in folded(text, width - len("pagescan: ")):
        context.say(line)


def _run_plain(
    group: WatchedGroup, limits: Limits, stop: int, output: Output, context: Context
) -> tuple[GroupTick | None, Cost]:
    """Write each look to stdout; return the last one, and the cost of the end."""
    count = len(group.members)
    context.say(
        f"watching {group.selector}, {processes(count)},"
        f" every {format_seconds(limits.interval)}; Ctrl-C to end"
    )
    labels = _LabelsOfEach(group) if output.labelled else None
    told = _Told(context)
    last, ending = None, Cost()
    for tick in group.ticks(limits, stop):
        last = tick
        told.about(tick)
        if output.format == "plain":
            context.say(group_tick_line(tick))
        ending = group.end(stop) if tick.end else Cost()
        if labels is not None:
            labels.label(tick)
        try:
            render.write_result(
                group_report(group, tick, ending), rows_of(tick, output), output
            )
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
    )


def group_tick_line(tick: GroupTick) -> str:
    """Return the line for one tick: processes, pages written, and the rate."""
    rate = format_size(int(tick.summary.bytes / max(tick.seconds, 1e-6)))
    there = sum(facts.end is None for facts, _ in tick.members)
    return (
        f"tick {tick.number}: {plural(tick.summary.pages, 'page')} written,"
        f" {rate}/s, {processes(there)}"
    )


def group_end_line(tick: GroupTick, ending: Cost, *, by_key: bool = False) -> str:
    """Return the last line: the reason of the end, totals, and processes that went."""
    cost = ""
    if tick.total_share is not None:
        share, spent = format_share(tick.total_share), (tick.total_ns or 0) / 1e9
        cost = (
            f"; tracking cost them about {format_seconds(spent)} of processor time,"
            f" {share} of theirs"
        )
    gone = f"; {processes(tick.gone)} went" if tick.gone else ""
    if tick.short_lived:
        gone += f"; {tick.short_lived} lived too short for a look"
    if ending.mappings_added:
        cost += f"; they have {plural(ending.mappings_added, 'mapping')} more by that"
    return (
        f"{why_ended(tick.end, by_key=by_key)}: {plural(tick.totals.pages, 'page')}"
        f" ({format_size(tick.totals.bytes)}) written in"
        f" {plural(tick.number, 'look')}{gone}{cost}"
    )


def processes(count: int) -> str:
    """Return a number of processes in words."""
    return "1 process" if count == 1 else f"{count} processes"


class _Told:
    """Names the processes that are not tracked, once per reason."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reasons: set[str] = set()

    def about(self, tick: GroupTick) -> None:
        """Print a line per reason that was not told before."""
        by_reason: dict[str, list[MemberUntracked]] = {}
        for item in tick.untracked:
            if item.part is None:
                by_reason.setdefault(_general(item), []).append(item)
        for reason, items in by_reason.items():
            if reason in self._reasons:
                continue
            self._reasons.add(reason)
            named = ", ".join(
                f"{item.pid} {item.name}" for item in items[:_NAMED] if item.pid
            )
            more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
            which = f": {named}{more}" if named else ""
            self._context.say(f"not tracked{which}: {items[0].why}")


def _general(item: MemberUntracked) -> str:
    """Return a reason without the pid and the name of the process."""
    return item.why.replace(str(item.pid), "PID").replace(item.name or " ", "NAME")


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
