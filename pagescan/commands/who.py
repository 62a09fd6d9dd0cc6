"""`pagescan who`: names the code and the threads that write a process's memory."""

import contextlib
import sys
from datetime import datetime

import click

from pagescan.attribution.writers import BY, WriterWatch
from pagescan.commands.options import (
    common,
    oldest_option,
    output,
    pace_option,
    restore_option,
    tables_option,
)
from pagescan.commands.profile_options import ProfileFile, profile_options
from pagescan.commands.running import is_command, said_if_long
from pagescan.commands.signals import stop_on_signals
from pagescan.console.context import Context
from pagescan.model.errors import UsageError
from pagescan.model.looks import Tick
from pagescan.model.memory import Untracked
from pagescan.model.results import Cost, Output, SessionFacts
from pagescan.model.units import format_seconds, format_size, parse_seconds, plural
from pagescan.model.writers import Writer, WriterReport
from pagescan.native import Pace
from pagescan.render.writer_list import write_writers
from pagescan.session.watched import Terms, Watched
from pagescan.target.find import find_pid
from pagescan.target.launch import launch
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits

_SECONDS = 10.0

_MUCH = 0.01
_COMPILED = (
    "code that a runtime compiles gets its names from the runtime: --ask-runtime for a"
    " JVM, --perf-basic-prof for node, -X perf for Python"
)


@click.command(
    epilog="""\b
Examples:
  pagescan who redis-server
  pagescan who 4242 '[heap]' --by thread --duration 30
  pagescan who 4242 --format speedscope -o writers.json
  pagescan who --by mapping --json -- python3 train.py | jq .writers""",
)
@click.argument("words", metavar="TARGET [RANGE]... | -- CMD [ARG]...", nargs=-1)
@click.option(
    "-i", "--interval", metavar="S", default="1", help="Seconds between looks (1)."
)
@click.option(
    "--duration",
    metavar="S",
    help="End after S seconds (10; with CMD, at its end).",
)
@click.option(
    "--by",
    "subject",
    type=click.Choice(BY),
    default="function",
    show_default=True,
    help="What one row stands for; line needs pagescan[lines].",
)
@click.option(
    "--callers",
    is_flag=True,
    help="One row per chain of callers of a function, as far as frame pointers show"
    " them; a sample then costs three times as much.",
)
@click.option(
    "--sample",
    "period",
    type=click.IntRange(min=1),
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
    " /tmp/perf-PID.map.",
)
@oldest_option
@restore_option
@profile_options
@output("who")
@pace_option
@tables_option
@common
def command(
    *,
    words: tuple[str, ...],
    interval: str,
    duration: str | None,
    subject: str,
    callers: bool,
    period: int,
    user_only: bool,
    ask_runtime: bool,
    oldest: bool,
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
    if not words:
        raise UsageError(
            "who writes where? TARGET or -- CMD is missing",
            hint="pagescan who PID, or pagescan who -- CMD",
        )
    if profile is not None and subject not in ("function", "line"):
        raise UsageError("--format goes with --by function and --by line")
    if callers and subject != "function":
        raise UsageError(f"--callers and --by {subject} exclude each other")
    run = is_command(sys.argv, words)
    most = parse_seconds(duration) if duration else None if run else _SECONDS
    limits = Limits(parse_seconds(interval), None, most)
    check_possible()
    with contextlib.ExitStack() as undo:
        launched, selection = None, Selection()
        if run:
            launched = launch(list(words), stdout=2, stderr=2)
            undo.callback(launched.close)
            pid = launched.pid
            if launched.note:
                context.say(launched.note)
        else:
            pid = find_pid(words[0], oldest=oldest)
            selection = Selection.parse(words[1:])
        writers = undo.enter_context(
            WriterWatch(
                pid,
                by=subject,
                period=period,
                user_only=user_only,
                ask_runtime=ask_runtime,
                callers=callers,
            )
        )
        _say_limits(writers, context, period, asked=user_only)
        terms = Terms(
            selection,
            pace,
            max_tables=max_tables,
            restore_huge=restore_huge,
            interval=limits.interval,
            say=context.say,
            detail=context.detail,
            follower=writers,
            holder="who",
        )
        with said_if_long(context, f"arming {pid}: many mappings, or much memory"):
            watched = undo.enter_context(Watched.armed(pid, terms, launched=launched))
        stop = undo.enter_context(stop_on_signals())
        last = _run(watched, writers, limits, stop, output, profile, context)
        return watched.exit_code(last, stop)


def _say_limits(
    writers: WriterWatch, context: Context, period: int, *, asked: bool
) -> None:
    """Say which writes cannot be seen with these rights and options."""
    if writers.user_only and not asked:
        context.say(
            "writes of the kernel for the process, as in read(2), have no writer here:"
            " this user may sample only code in user mode"
        )
        context.hint("run as root, or: sysctl kernel.perf_event_paranoid=1")
    if period > 1:
        context.say(
            f"one fault in {period} is sampled: the shares are right, within chance;"
            " the pages are those of the samples"
        )


def _run(
    watched: Watched,
    writers: WriterWatch,
    limits: Limits,
    stop: int,
    output: Output,
    profile: ProfileFile | None,
    context: Context,
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
        if tick.look is not None:
            writers.add(tick.look)
            cost += tick.look.cost
    report = writers.report()
    cost_ns = round(watched.cost_warning.toll.fault_seconds * 1e9) + writers.sample_ns
    writers.close()
    untracked = watched.tracking.armed.untracked
    cost += watched.end(stop)
    _write(report, output, armed_at, tuple(untracked), cost, cost_ns)
    if profile is not None:
        profile.write(report)
        context.say(f"{profile.path} has {plural(report.sampled, 'page')} for a viewer")
    for note in report.notes:
        context.say(note)
    context.say(_end_line(report, last))
    if any(_is_compiled(writer) for writer in report.writers):
        context.hint(_COMPILED)
    return last


def _write(
    report: WriterReport,
    output: Output,
    armed_at: datetime,
    untracked: tuple[Untracked, ...],
    cost: Cost,
    estimated_ns: int,
) -> None:
    session = SessionFacts(str(report.target.pid), armed_at, None)
    write_writers(
        report,
        output,
        session=session,
        untracked=untracked,
        cost=cost,
        estimated_ns=estimated_ns,
    )


def _is_compiled(writer: Writer) -> bool:
    """Whether code that a runtime has compiled wrote much, and has no name."""
    return (
        writer.function is None
        and (writer.module or "").startswith("[")
        and writer.share > _MUCH
    )


def _end_line(report: WriterReport, last: Tick | None) -> str:
    """Return the last line: how much was written, and how much of it has a writer."""
    line = (
        f"{plural(report.written, 'page')} written in {plural(report.ticks, 'look')},"
        f" {report.attributed} of them with a known first writer"
    )
    if report.ambiguous:
        line += f"; {report.ambiguous} had been read or written by other code before"
    if report.lost:
        line += f"; samples of up to {plural(report.lost, 'page')} were lost"
    if last is not None and last.unseen_ns is not None:
        unseen = format_seconds(last.unseen_ns / 1e9)
        line += f"; the last look was {unseen} before the end"
    return line
