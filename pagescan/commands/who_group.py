"""Runs `who` at a group of processes."""

import contextlib

from pagescan.attribution.group_writers import GroupWriterWatch
from pagescan.attribution.writers import WriterOptions
from pagescan.commands.group_text import Told
from pagescan.commands.profile_options import ProfileFile
from pagescan.commands.progress_line import ProgressLine, TimeLeft
from pagescan.commands.running import end, said_if_long
from pagescan.commands.signals import stop_on_signals
from pagescan.commands.who_result import say_limits, say_result
from pagescan.model.groups import GroupFacts
from pagescan.model.results import Cost, Output, SessionFacts
from pagescan.model.units import format_seconds, plural
from pagescan.render.writer_list import write_writers
from pagescan.session.watched import Terms
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.group import Selector
from pagescan.tracking.ticks import Limits


def run_group(
    selector: Selector,
    terms: Terms,
    options: WriterOptions,
    limits: Limits,
    output: Output,
    profile: ProfileFile | None,
    line: ProgressLine,
) -> None:
    """Arm all processes of a group, look until the end, then print the writers."""
    context = line.context
    with contextlib.ExitStack() as undo:
        writers = undo.enter_context(GroupWriterWatch(**options._asdict()))
        terms.follower = writers
        with said_if_long(
            context, f"arming {selector}: many processes, or much memory"
        ):
            group = undo.enter_context(WatchedGroup.armed(selector, terms))
        stop = undo.enter_context(stop_on_signals())
        say_limits(writers, context, options.period, asked=options.user_only)
        _run(group, writers, limits, stop, output, profile, line)


def _run(
    group: WatchedGroup,
    writers: GroupWriterWatch,
    limits: Limits,
    stop: int,
    output: Output,
    profile: ProfileFile | None,
    line: ProgressLine,
) -> None:
    context = line.context
    until = f" for {format_seconds(limits.duration)}" if limits.duration else ""
    context.say(
        f"sampling the first writes to {group.selector},"
        f" {plural(len(group.members), 'process')}, every"
        f" {format_seconds(limits.interval)}{until}; Ctrl-C ends it"
    )
    told, cost, last = Told(line), Cost(), None
    left = TimeLeft(line, limits)
    for tick in group.ticks(limits, stop):
        last = tick
        left.add(tick)
        told.about(tick.untracked)
        writers.add(tick)
        cost += tick.cost
    if last is None:
        return
    facts = GroupFacts(group.selector.kind, group.selector.name)
    report = writers.report(facts)
    if writers.left_out:
        context.say(
            f"of the {plural(writers.left_out, 'process')} that ended first, the"
            " writers are not known any more"
        )
    writers.close()
    cost += end(group, stop)
    write_writers(
        report,
        output,
        session=SessionFacts(str(facts), group.armed_at, None),
        untracked=last.untracked,
        cost=cost,
        estimated_ns=round(group.fault_seconds * 1e9) + writers.sample_ns,
    )
    say_result(report, profile, context)
