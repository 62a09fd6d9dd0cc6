"""`pagescan record`: keeps every look at a target in a file."""

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from pagescan.commands.completing import complete_words
from pagescan.commands.group_options import Asked, group_option
from pagescan.commands.look_options import look_options
from pagescan.commands.options import (
    common,
    oldest_option,
    pace_option,
    restore_option,
    tables_option,
)
from pagescan.commands.record_progress import RecordProgress
from pagescan.commands.running import is_command, said_if_long
from pagescan.commands.signals import stop_on_signals, undo_on_signals
from pagescan.commands.tick_text import end_line
from pagescan.commands.unseen_writes import say_unseen_writes
from pagescan.commands.values import value_of
from pagescan.console.context import Context
from pagescan.console.interrupts import one_step
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.looks import Tick, summary_of
from pagescan.model.results import Cost
from pagescan.model.units import (
    format_size,
    parse_seconds,
    parse_size,
)
from pagescan.native import Pace
from pagescan.recording.output_file import Ring
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.session.watched import Terms, Watched
from pagescan.target.launch import launch
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits

if TYPE_CHECKING:
    from pagescan.attribution.look_writers import WritersByLook
    from pagescan.target.group import Selector

_NEVER = "never"


@click.command(
    epilog="""\b
Examples:
  pagescan record redis-server --duration 10m
  pagescan record 4242 '[heap]' -i 0.2 -o heap.pagescan
  pagescan record 4242 --last 15m -o flight.pagescan
  pagescan record --unit postgresql --who --duration 10m
  pagescan record --who -- python3 train.py""",
)
@click.argument(
    "words",
    metavar="TARGET [RANGE]... | -- CMD [ARG]...",
    nargs=-1,
    shell_complete=complete_words,
)
@click.option(
    "-o",
    "--output",
    "path",
    metavar="FILE",
    type=click.Path(),
    help="The file; otherwise NAME-PID-TIME.pagescan in this directory.",
)
@look_options
@click.option(
    "--rotate",
    metavar="TIME",
    help="Begin another file after this time (1h), or never.",
)
@click.option(
    "--last",
    metavar="TIME|SIZE",
    help="A flight recorder: keep only the looks of the last TIME, or the latest looks"
    " that fit into SIZE.",
)
@click.option(
    "--who",
    "keeps_writers",
    is_flag=True,
    help="Also keep which functions and threads wrote, as `who` finds it: by a sample"
    " of each first write.",
)
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@oldest_option
@group_option
@restore_option
@pace_option
@tables_option
@common
def command(
    *,
    words: tuple[str, ...],
    path: str | None,
    interval: float,
    count: int | None,
    duration: float | None,
    budget: float | None,
    rotate: str | None,
    last: str | None,
    keeps_writers: bool,
    force: bool,
    oldest: bool,
    asked: Asked,
    restore_huge: bool,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> int:
    """Arm TARGET, or run CMD, and keep every look at its writes in a file.

    Ctrl-C ends it; `pagescan report FILE` shows it, also while it grows.
    """
    limits = Limits(interval, count, duration)
    keeping = _keeping(path, force=force, rotate=rotate, last=last)
    run = is_command(sys.argv, words)
    if run and asked.given:
        raise UsageError(
            f"{asked.given} and -- CMD exclude each other",
            hint="start CMD first, then record its processes",
        )
    if not words and not asked.kind:
        raise UsageError(
            "record what? TARGET or -- CMD is missing",
            hint="pagescan record PID, or pagescan record -- CMD",
        )
    if oldest and run:
        raise UsageError("--oldest chooses a TARGET, and CMD is one")
    check_possible()
    with contextlib.ExitStack() as undo:
        undo.enter_context(undo_on_signals())
        progress = RecordProgress(context)
        undo.callback(progress.clear)
        launched, selection = None, Selection()
        if run:
            with one_step():
                launched = launch(list(words), stdout=2, stderr=2)
                undo.callback(launched.close)
            if launched.note:
                context.say(launched.note)
            subject: int | Selector = launched.pid
        else:
            subject, ranges = asked.subject(words, oldest=oldest)
            selection = Selection.parse(ranges)
        writers = None
        if keeps_writers and isinstance(subject, int):
            writers = _sampled(subject, undo)
        terms = Terms(
            selection,
            pace,
            max_tables=max_tables,
            restore_huge=restore_huge,
            percent=budget,
            interval=limits.interval,
            say=progress.say,
            detail=context.detail,
            follower=writers.watch if writers else None,
            holder="record",
        )
        if not isinstance(subject, int):
            from pagescan.commands.record_group import record_group

            record_group(
                *(subject, terms, limits, keeping, progress),
                keeps_writers=keeps_writers,
            )
            return 0
        pid = subject
        with Target.open(pid) as target, one_step():
            recorder = Recorder(
                keeping,
                target.facts,
                interval=limits.interval,
                budget=budget,
                options={"ranges": selection.words},
                writers=writers,
            )
            undo.callback(recorder.discard)
        with said_if_long(context, f"arming {pid}: many mappings, or much memory"):
            watched = undo.enter_context(Watched.armed(pid, terms, launched=launched))
        stop = undo.enter_context(stop_on_signals())
        if writers is not None:
            say_unseen_writes(writers.watch, context)
        final = _record(watched, limits, stop, recorder, progress)
        return watched.exit_code(final, stop)


def _sampled(pid: int, undo: contextlib.ExitStack) -> "WritersByLook":
    """Begin to sample the first writes."""
    from pagescan.attribution.look_writers import WritersByLook
    from pagescan.attribution.writers import WriterWatch

    return WritersByLook(undo.enter_context(WriterWatch(pid)))


def _keeping(
    path: str | None, *, force: bool, rotate: str | None, last: str | None
) -> Keeping:
    """Return the file and the limits of the recording, as the options say."""
    if last is None:
        seconds = 3600.0
        if rotate == _NEVER:
            return Keeping(path, overwrite=force, rotate=None)
        if rotate is not None:
            seconds = value_of("--rotate", _rotation, rotate)
        return Keeping(path, overwrite=force, rotate=seconds)
    if rotate not in (None, _NEVER):
        raise UsageError("--last keeps one file: --rotate does not go with it")
    return Keeping(path, overwrite=force, rotate=None, ring=_ring(last))


def _rotation(text: str) -> float:
    """Return the seconds after which another file begins."""
    try:
        return parse_seconds(text)
    except UsageError as error:
        raise UsageError(str(error), hint="as in 30m or 2h, or never") from error


def _ring(text: str) -> Ring:
    """Return the limit in "15m", a time, or in "64M", a size."""
    with contextlib.suppress(UsageError):
        return Ring(seconds=parse_seconds(text))
    try:
        size = parse_size(text)
    except UsageError as error:
        raise UsageError(
            f"--last: neither a time nor a size: {text!r}",
            hint="as in 15m or 2h, or in 64M or 1G",
        ) from error
    if size < _LEAST_RING:
        raise UsageError(f"--last: a ring has at least {format_size(_LEAST_RING)}")
    return Ring(bytes=size)


_LEAST_RING = 1 << 20


def _record(
    watched: Watched,
    limits: Limits,
    stop: int,
    recorder: Recorder,
    progress: "RecordProgress",
) -> Tick | None:
    """Store each look, and then report it on stderr. Return the last tick."""
    context = progress.context
    context.say_untracked(tuple(watched.tracking.armed.untracked))
    context.say(f"recording {watched.target} into {recorder.paths[0]}; Ctrl-C to end")
    last, ending = None, Cost()
    try:
        for tick in watched.ticks(limits, stop):
            last = tick
            recorder.add(tick, watched.tracking)
            if message := watched.cost_warning.text(tick):
                progress.say(message)
            written = summary_of(tick.look) if tick.look else None
            progress.show(tick, written, recorder)
            if tick.end:
                ending = watched.end(stop)
    except PagescanError:
        progress.end(recorder, "failed")
        raise
    line = end_line(last, ending) if last else None
    progress.end(recorder, (last and last.end) or "interrupted", line)
    return last
