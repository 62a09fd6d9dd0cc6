"""`pagescan who`: names the code and the threads that write a process's memory."""

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from pagescan.attribution.writers import BY_OF_GROUP as BY, WriterOptions, WriterWatch
from pagescan.commands.completing import complete_words
from pagescan.commands.group_options import Asked, group_option
from pagescan.commands.options import (
    common,
    oldest_option,
    output,
    pace_option,
    restore_option,
    tables_option,
)
from pagescan.commands.profile_options import ProfileFile, profile_options
from pagescan.commands.progress_line import ProgressLine, TimeLeft
from pagescan.commands.running import end, is_command, said_if_long
from pagescan.commands.signals import stop_on_signals, undo_on_signals
from pagescan.commands.values import SECONDS, whole
from pagescan.commands.who_result import say_limits, say_result
from pagescan.console.context import Context
from pagescan.console.interrupts import one_step
from pagescan.model.errors import UsageError
from pagescan.model.looks import Tick
from pagescan.model.results import Cost, Output, SessionFacts
from pagescan.model.units import format_seconds, format_size
from pagescan.native import Pace
from pagescan.render.writer_list import write_writers
from pagescan.session.watched import Terms, Watched
from pagescan.target.launch import launch
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits

if TYPE_CHECKING:
    from pagescan.target.group import Selector

_SECONDS = 10.0


@click.command(
    epilog="""\b
Examples:
  pagescan who redis-server
  pagescan who 4242 '[heap]' --by thread --duration 30
  pagescan who --tree postgres --by process
  pagescan who 4242 --python
  pagescan who 4242 --format speedscope -o writers.json
  pagescan who --by mapping --json -- python3 train.py | jq .writers""",
)
@click.argument(
    "words",
    metavar="TARGET [RANGE]... | -- CMD [ARG]...",
    nargs=-1,
    shell_complete=complete_words,
)
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    metavar="S",
    default="1",
    help="Seconds between looks (1).",
)
@click.option(
    "--duration",
    type=SECONDS,
    metavar="S",
    help="End after S seconds (10; with CMD, at its end).",
)
@click.option(
    "--by",
    "subject",
    type=click.Choice(BY),
    default="function",
    show_default=True,
    help="What one row stands for; line needs pagescan[lines], process a group.",
)
@click.option(
    "--callers",
    is_flag=True,
    help="One row per chain of callers of a function, as far as frame pointers show"
    " them; a sample then costs three times as much.",
)
@click.option(
    "--python",
    is_flag=True,
    help="Name functions of Python (CPython 3.11 to 3.13) in place of CPython's own"
    " code, where they are known; a sample then costs more than twice as much.",
)
@click.option(
    "--sample",
    "period",
    type=whole(1, 10**9),
    default=1,
    metavar="N",
    help="Take a sample of one fault in N: cheaper, but only the shares can be used.",
)
@click.option(
    "--user",
    "user_only",
    is_flag=True,
    help="Leave out writes of the kernel for the process, as in read(2).",
)
@click.option(
    "--ask-runtime",
    is_flag=True,
    help="Let a JVM write the names of its compiled methods, by jcmd, to"
    " /tmp/perf-PID.map, which is removed unless it was there before.",
)
@oldest_option
@group_option
@restore_option
@profile_options
@output("who")
@pace_option
@tables_option
@common
def command(
    *,
    words: tuple[str, ...],
    interval: float,
    duration: float | None,
    subject: str,
    callers: bool,
    python: bool,
    period: int,
    user_only: bool,
    ask_runtime: bool,
    oldest: bool,
    asked: Asked,
    restore_huge: bool,
    profile: ProfileFile | None,
    output: Output,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> int:
    """Name the code that writes the memory of TARGET, or of CMD.

    A writer is the code that made the first write to a page since the last look; later
    writes are not seen. Ctrl-C ends it early, and the result is printed.

    One thread of the target is stopped once, for about 0.2 ms. From then on the first
    write to each page per interval costs it one short fault, with a sample.
    """
    run = is_command(sys.argv, words)
    check_words(words, asked, run=run)
    check_names(subject, callers=callers, python=python)
    most = duration or (None if run else _SECONDS)
    limits = Limits(interval, None, most)
    if oldest and run:
        raise UsageError("--oldest chooses a TARGET, and CMD is one")
    check_possible()
    with contextlib.ExitStack() as undo:
        undo.enter_context(undo_on_signals())
        if profile is not None:
            undo.callback(profile.close)  # a signal ends this process before click does
        launched, selection = None, Selection()
        options = WriterOptions(
            subject, period, user_only, ask_runtime, callers, python
        )
        if run:
            with one_step():
                launched = launch(list(words), stdout=2, stderr=2)
                undo.callback(launched.close)
            chosen: int | Selector = launched.pid
            if launched.note:
                context.say(launched.note)
        else:
            chosen, ranges = asked.subject(words, oldest=oldest)
            selection = Selection.parse(ranges)
        line = ProgressLine(context)
        undo.callback(line.clear)  # an error stands in a line of its own
        terms = Terms(
            selection,
            pace,
            max_tables=max_tables,
            restore_huge=restore_huge,
            interval=limits.interval,
            say=line.say,
            detail=context.detail,
            holder="who",
        )
        if not isinstance(chosen, int):
            who_of_group(chosen, terms, options, limits, output, profile, line)
            return 0
        if subject == "process":
            raise UsageError(
                "--by process is for a group of processes",
                hint="--tree, --cgroup, --unit, --container or --match selects one",
            )
        pid = chosen
        writers = undo.enter_context(WriterWatch(pid, **options._asdict()))
        if not run:  # CMD may become a Python later
            writers.check_python()
        terms.follower = writers
        with said_if_long(context, f"arming {pid}: many mappings, or much memory"):
            watched = undo.enter_context(Watched.armed(pid, terms, launched=launched))
        stop = undo.enter_context(stop_on_signals())
        say_limits(writers, context, period, asked=user_only)
        # CMD writes to stderr, too: there, a line that is written again would be torn.
        left = None if run else TimeLeft(line, limits)
        last = _run(watched, writers, limits, stop, output, profile, context, left)
        return watched.exit_code(last, stop)


def who_of_group(
    selector: "Selector",
    terms: Terms,
    options: WriterOptions,
    limits: Limits,
    output: Output,
    profile: ProfileFile | None,
    line: ProgressLine,
) -> None:
    """Name the code that writes the memory of a group; its modules are loaded here."""
    from pagescan.commands.who_group import run_group

    run_group(selector, terms, options, limits, output, profile, line)


def check_names(subject: str, *, callers: bool, python: bool) -> None:
    """Raise a UsageError if the options of names exclude each other."""
    if callers and subject != "function":
        raise UsageError(f"--callers and --by {subject} exclude each other")
    if callers and python:
        raise UsageError("--callers and --python exclude each other")
    if python and subject == "line":
        raise UsageError("--python and --by line exclude each other")


def check_words(words: tuple[str, ...], asked: Asked, *, run: bool) -> None:
    """Raise a UsageError if neither TARGET nor CMD is given, nor a group."""
    if run and asked.given:
        raise UsageError(
            f"{asked.given} and -- CMD exclude each other",
            hint="start CMD first, then name the writers of its processes",
        )
    if not words and not asked.kind:
        raise UsageError(
            "who writes where? TARGET or -- CMD is missing",
            hint="pagescan who PID, or pagescan who -- CMD",
        )


def _run(
    watched: Watched,
    writers: WriterWatch,
    limits: Limits,
    stop: int,
    output: Output,
    profile: ProfileFile | None,
    context: Context,
    left: TimeLeft | None,
) -> Tick | None:
    """Look until the end, then print the writers; return the last tick."""
    tracking = watched.tracking
    armed_at, cost = tracking.armed_at, Cost(stopped_ns=tracking.cost.stopped_ns)
    context.say_untracked(tuple(tracking.armed.untracked))
    size = format_size(tracking.armed.tracked_bytes)
    until = f" for {format_seconds(limits.duration)}" if limits.duration else ""
    context.say(
        f"sampling the first writes to {tracking.target}, {size}, every"
        f" {format_seconds(limits.interval)}{until}; Ctrl-C ends it"
    )
    last = None
    for tick in watched.ticks(limits, stop):
        last = tick
        if left is not None:
            left.add(tick)
        if tick.look is not None:
            writers.add(tick.look)
            cost += tick.look.cost
    report = writers.report()
    cost_ns = round(watched.cost_warning.toll.fault_seconds * 1e9) + writers.sample_ns
    writers.close()
    untracked = watched.tracking.armed.untracked
    cost += end(watched, stop)
    session = SessionFacts(str(tracking.target.pid), armed_at, None)
    write_writers(
        report,
        output,
        session=session,
        untracked=untracked,
        cost=cost,
        estimated_ns=cost_ns,
    )
    say_result(report, profile, context, last.unseen_ns if last else None)
    return last
