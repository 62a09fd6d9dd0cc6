"""`pagescan watch`: shows at every interval the pages written since the last look."""

import contextlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pagescan import render
from pagescan.commands.cmd_output import CmdOutput
from pagescan.commands.completing import complete_words
from pagescan.commands.early_view import EarlyView
from pagescan.commands.group_options import Asked, group_option
from pagescan.commands.look_options import look_options
from pagescan.commands.options import (
    common,
    oldest_option,
    output,
    pace_option,
    restore_option,
    tables_option,
)
from pagescan.commands.present import PresentCounter
from pagescan.commands.running import end, is_command, said_if_long
from pagescan.commands.signals import stop_on_signals, undo_on_signals
from pagescan.commands.tick_text import SAMPLED_ROWS, end_line, tick_line
from pagescan.console.context import Context
from pagescan.console.garbage import without_searches
from pagescan.console.interrupts import one_step
from pagescan.console.streams import OutputError
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.looks import Tick
from pagescan.model.report import Report
from pagescan.model.results import Cost, Output, SessionFacts, Summary
from pagescan.model.units import (
    format_seconds,
    format_size,
    now,
    plural,
)
from pagescan.native import Pace
from pagescan.session.watched import Follower, Terms, Watched
from pagescan.target.launch import Launched, launch
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from pagescan.target.group import Selector
    from pagescan.target.label_rules import Told


@click.command(
    epilog="""\b
Examples:
  pagescan watch 4242
  pagescan watch redis-server '[anon]' -i 0.2 -n 50 --json | jq .summary.pages
  pagescan watch --tree postgres
  pagescan watch -- python3 train.py
  pagescan watch --tree -- make -j4""",
)
@click.argument(
    "words",
    metavar="TARGET [RANGE]... | -- CMD [ARG]...",
    nargs=-1,
    shell_complete=complete_words,
)
@look_options
@click.option(
    "--cmd-output",
    "cmd_file",
    metavar="FILE",
    type=click.Path(),
    help="Write CMD's output here; by default it goes to stderr, and the live view"
    " shows it when it closes.",
)
@click.option(
    "--ask-runtime",
    is_flag=True,
    help="Ask a Java virtual machine at the start what its memory is for, with jcmd:"
    " this disturbs it.",
)
@oldest_option
@group_option
@restore_option
@output("watch")
@pace_option
@tables_option
@common
def command(
    *,
    words: tuple[str, ...],
    interval: float,
    count: int | None,
    duration: float | None,
    budget: float | None,
    cmd_file: str | None,
    ask_runtime: bool,
    oldest: bool,
    asked: Asked,
    restore_huge: bool,
    output: Output,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> int:
    """Arm TARGET, or run CMD, and show at every interval the pages it has written.

    A page counts once per look, however often it was written: a longer interval
    gives a lower rate. Ctrl-C ends it, or q in the live view, where ? lists the keys.

    One thread of the target is stopped once, for about 0.2 ms. From then on the first
    write to each page per interval costs the target one short fault.
    """
    limits = Limits(interval, count, duration)
    run = is_command(sys.argv, words)
    check_words(words, asked, run=run)
    if cmd_file and not run:
        raise UsageError("--cmd-output needs -- CMD: other targets keep their output")
    if oldest and run:
        raise UsageError("--oldest chooses a TARGET, and CMD is one")
    live = output.format == "table"
    if ask_runtime:
        check_asking(asked, output, run=run)
    check_possible()
    with contextlib.ExitStack() as undo:
        undo.enter_context(undo_on_signals())
        launched, selection = None, Selection()
        cmd_output: CmdOutput | None = None
        if run:
            with one_step():
                cmd_output = CmdOutput.of(cmd_file, live=live)
                undo.callback(cmd_output.close)
                launched = launch(
                    list(words), stdout=cmd_output.fd, stderr=cmd_output.fd
                )
                undo.callback(launched.close)
            cmd_output.started()
            if launched.note:
                context.say(launched.note)
            subject: int | Selector = launched.pid
            if asked.tree:
                from pagescan.target.group import Tree

                subject = Tree.of(launched.pid)
        else:
            subject, ranges = asked.subject(words, oldest=oldest)
            selection = Selection.parse(ranges)
        terms = Terms(
            selection,
            pace,
            max_tables=max_tables,
            restore_huge=restore_huge,
            percent=budget,
            interval=limits.interval,
            say=context.say,
            detail=context.detail,
        )
        if ask_runtime and isinstance(subject, int):
            terms.told = told_by(subject)
        terms.follower = follower_of(live and isinstance(subject, int), terms)
        if not isinstance(subject, int):
            return watch_group(
                subject, terms, limits, output, context, launched, cmd_output
            )
        note = cmd_output.note if cmd_output else ""
        early = EarlyView(terms, interval, context, note=note)
        undo.enter_context(early)
        watched = arm(undo, subject, terms, launched, early if live else None, context)
        stop = undo.enter_context(stop_on_signals())
        if live:
            last = run_on_terminal(watched, limits, stop, context, early, cmd_output)
        else:
            last = run_plain(watched, limits, stop, output, context)
        return watched.exit_code(last, stop)


def arm(
    undo: contextlib.ExitStack,
    pid: int,
    terms: Terms,
    launched: Launched | None,
    early: EarlyView | None,
    context: Context,
) -> Watched:
    """Arm a target until `undo` ends; say so if that takes long.

    Args:
        undo: Disarms it, too.
        pid: The target.
        terms: The terms on which it is tracked.
        launched: The CMD that has this pid.
        early: The view that says so; None: stderr does.
        context: The options of every command.
    """
    message = f"arming {pid}: many mappings, or much memory"
    with said_if_long(context, message) as drop:

        def expect(target: Target) -> None:
            if early is not None and early.expect(target):
                drop()

        armed = Watched.armed(pid, terms, launched=launched, expect=expect)
        with without_searches():
            return undo.enter_context(armed)


def run_on_terminal(
    watched: Watched,
    limits: Limits,
    stop: int,
    context: Context,
    early: EarlyView,
    cmd_output: CmdOutput | None,
) -> Tick | None:
    """Show the live view until the end; it needs rich, which is loaded here."""
    from pagescan.commands.live import run_live

    return run_live(watched, limits, stop, context, early, cmd_output=cmd_output)


def follower_of(live: bool, terms: Terms) -> Follower | None:
    """Return what follows the looks for the key w; None: it has no effect."""
    if not live or terms.percent is not None:
        return None
    from pagescan.commands.live_writers import LiveWriters

    return LiveWriters()


def watch_group(
    selector: "Selector",
    terms: Terms,
    limits: Limits,
    output: Output,
    context: Context,
    launched: Launched | None,
    cmd_output: CmdOutput | None,
) -> int:
    """Arm all processes of a group, show their looks; return the exit status of CMD."""
    from pagescan.commands.watch_group import run_group
    from pagescan.session.watched_group import WatchedGroup

    with contextlib.ExitStack() as undo:
        with said_if_long(
            context, f"arming {selector}: many processes, or much memory"
        ):
            armed = WatchedGroup.armed(selector, terms, launched=launched)
            group = undo.enter_context(armed)
        stop = undo.enter_context(stop_on_signals())
        last = run_group(group, limits, stop, output, context, cmd_output)
        return group.root.exit_code(last, stop) if group.root else 0


def check_words(words: tuple[str, ...], asked: Asked, *, run: bool) -> None:
    """Raise a UsageError if neither TARGET nor CMD is given, nor a group."""
    if run and asked.kind:
        raise UsageError(
            f"{asked.given} and -- CMD exclude each other",
            hint="start CMD first, then watch its processes; --tree goes with -- CMD",
        )
    if not words and not asked.kind:
        raise UsageError(
            "watch what? TARGET or -- CMD is missing",
            hint="pagescan watch PID, or pagescan watch -- CMD",
        )


def check_asking(asked: Asked, output: Output, *, run: bool) -> None:
    """Raise a UsageError if --ask-runtime would have no effect."""
    if run:
        raise UsageError(
            "--ask-runtime does not go with -- CMD",
            hint="a virtual machine can be asked when it has started: watch its pid",
        )
    if asked.given:
        raise UsageError("--ask-runtime does not go with a group")
    if output.format != "table" and not output.labelled:
        raise UsageError("--ask-runtime needs the column label: -c +label")


def told_by(pid: int) -> "list[Told]":
    """Return what a Java virtual machine says about its memory."""
    from pagescan.target.jvm import ask
    from pagescan.target.process import Target

    with Target.open(pid) as target:
        return ask(target)


def run_plain(
    watched: Watched, limits: Limits, stop: int, output: Output, context: Context
) -> Tick | None:
    """Write each look to stdout, in any of the formats; return the last one."""
    _say_what_begins(watched, limits, context)
    last, ending = None, Cost()
    labels = None
    by_mapping = output.by == "mapping"
    labelled = output.labelled or (by_mapping and output.has_default)
    counter = PresentCounter(by_mapping=by_mapping)
    counts = output.is_json or by_mapping
    counted = counter.count(watched.target, watched.terms) if counts else Cost()
    for tick in watched.ticks(limits, stop):
        last = tick
        tracking = watched.tracking
        if labelled and (labels is None or labels.target is not tracking.target):
            from pagescan.target.labels import Labels

            labels = Labels(tracking.target)
            labels.told = list(watched.terms.told)
        if message := watched.cost_warning.text(tick):
            context.say(message)
        if output.format == "plain" and tick.look:
            context.say(tick_line(tick))
        rows = tick.look.batch if tick.look else empty_batch(tracking)
        if labels is not None:
            labels.label(rows)
        if counts:
            counted += counter.count(watched.target, watched.terms)
        ending = end(watched, stop) if tick.end else Cost()
        report = report_of(tracking, tick, ending + counted)
        report = replace(report, memory=counter.memory)
        counted = Cost()
        shown = counter.rows_of(rows, output) if by_mapping else rows
        try:
            render.write_result(report, shown, output)
        except OutputError as error:
            raise PagescanError(
                f"{error}: look {tick.number}"
                f" ({plural(report.summary.pages, 'page')} written) is not complete"
            ) from error
    if last is not None:
        context.say(end_line(last, ending))
    return last


def _say_what_begins(watched: Watched, limits: Limits, context: Context) -> None:
    """Say what is watched, what of it is not tracked, and what its rows are."""
    armed = watched.tracking.armed
    context.say_untracked(tuple(armed.untracked))
    context.say(
        f"watching {watched.tracking.target}, {format_size(armed.tracked_bytes)},"
        f" every {format_seconds(limits.interval)}; Ctrl-C to end"
    )
    if watched.terms.percent is not None:
        context.say(SAMPLED_ROWS)


def report_of(tracking: Tracking, tick: Tick, ending: Cost) -> Report:
    """Return the report of a tick; the last one includes the cost of the end."""
    look = tick.look
    return Report(
        "watch",
        look.time if look else now(),
        tracking.target.facts,
        look.batch.summary() if look else Summary.none(),
        session=SessionFacts(str(tracking.target.pid), tracking.armed_at, tick.since),
        untracked=look.untracked if look else (),
        cost=(look.cost if look else Cost())
        + ending
        + Cost(stopped_ns=tracking.cost.stopped_ns if tick.number == 1 else 0),
        tick=tick.number,
        interval_ns=round(tick.seconds * 1e9),
        end=tick.end,
        totals=tick.totals if tick.end else None,
        total_share=tick.total_share if tick.end else None,
        total_ns=tick.total_ns if tick.end else None,
        unseen_ns=tick.unseen_ns,
        estimate=look.estimate if look else None,
        estimated=tick.estimated,
    )


def empty_batch(tracking: Tracking) -> Batch:
    """Return the result of a look at a target that is gone."""
    from pagescan.model.mapping_set import MappingSet
    from pagescan.native import Columns

    return Batch.join(
        Columns.empty(), MappingSet(), page_size=tracking.target.facts.page_size
    )
