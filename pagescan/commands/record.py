"""`pagescan record`: keeps every look at a target in a file."""

import contextlib
import os
import sys
import time

import click

from pagescan.commands.completing import complete_words
from pagescan.commands.options import (
    common,
    oldest_option,
    pace_option,
    restore_option,
    tables_option,
)
from pagescan.commands.running import is_command, said_if_long
from pagescan.commands.signals import stop_on_signals
from pagescan.commands.tick_text import end_line
from pagescan.console.context import Context
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.looks import Tick, summary_of
from pagescan.model.results import Cost
from pagescan.model.units import (
    format_size,
    parse_percent,
    parse_seconds,
    parse_size,
    plural,
)
from pagescan.native import Pace
from pagescan.recording.output_file import Ring
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.session.watched import Terms, Watched
from pagescan.target.find import find_pid
from pagescan.target.launch import launch
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits

_NEVER = "never"


@click.command(
    epilog="""\b
Examples:
  pagescan record redis-server --duration 10m
  pagescan record 4242 '[heap]' -i 0.2 -o heap.pagescan
  pagescan record 4242 --last 15m -o flight.pagescan
  pagescan record -- python3 train.py""",
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
    type=click.Path(dir_okay=False),
    help="The file; otherwise NAME-PID-TIME.pagescan in this directory.",
)
@click.option(
    "-i", "--interval", metavar="S", default="1", help="Seconds between looks (1)."
)
@click.option(
    "-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after N looks."
)
@click.option("--duration", metavar="S", help="End after S seconds.")
@click.option(
    "--budget",
    metavar="PERCENT",
    help="The most of the target's processor time that tracking may cost: tracks a"
    " random part of its memory, and estimates the rest.",
)
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
@click.option("--force", is_flag=True, help="Overwrite the file if it exists.")
@oldest_option
@restore_option
@pace_option
@tables_option
@common
def command(
    *,
    words: tuple[str, ...],
    path: str | None,
    interval: str,
    count: int | None,
    duration: str | None,
    budget: str | None,
    rotate: str | None,
    last: str | None,
    force: bool,
    oldest: bool,
    restore_huge: bool,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> int:
    """Arm TARGET, or run CMD, and keep every look at its writes in a file.

    Ctrl-C ends it; `pagescan report FILE` shows it, also while it grows.
    """
    most = parse_seconds(duration) if duration else None
    limits = Limits(parse_seconds(interval), count, most)
    percent = None if budget is None else parse_percent(budget)
    keeping = _keeping(path, force=force, rotate=rotate, last=last)
    run = is_command(sys.argv, words)
    if not words:
        raise UsageError(
            "record what? TARGET or -- CMD is missing",
            hint="pagescan record PID, or pagescan record -- CMD",
        )
    check_possible()
    with contextlib.ExitStack() as undo:
        progress = _Progress(context)
        undo.callback(progress.clear)
        launched, selection = None, Selection()
        if run:
            launched = launch(list(words), stdout=2, stderr=2)
            undo.callback(launched.close)
            if launched.note:
                context.say(launched.note)
            pid = launched.pid
        else:
            pid = find_pid(words[0], oldest=oldest)
            selection = Selection.parse(words[1:])
        terms = Terms(
            selection,
            pace,
            max_tables=max_tables,
            restore_huge=restore_huge,
            percent=percent,
            interval=limits.interval,
            say=progress.say,
            detail=context.detail,
            holder="record",
        )
        with Target.open(pid) as target:
            recorder = Recorder(
                keeping,
                target.facts,
                interval=limits.interval,
                budget=percent,
                options={"ranges": selection.words},
            )
        undo.callback(recorder.discard)
        with said_if_long(context, f"arming {pid}: many mappings, or much memory"):
            watched = undo.enter_context(Watched.armed(pid, terms, launched=launched))
        stop = undo.enter_context(stop_on_signals())
        final = _record(watched, limits, stop, recorder, progress)
        return watched.exit_code(final, stop)


def _keeping(
    path: str | None, *, force: bool, rotate: str | None, last: str | None
) -> Keeping:
    """Return the file and the limits of the recording, as the options say."""
    if last is None:
        seconds = 3600.0
        if rotate == _NEVER:
            return Keeping(path, overwrite=force, rotate=None)
        if rotate is not None:
            seconds = parse_seconds(rotate)
        return Keeping(path, overwrite=force, rotate=seconds)
    if rotate not in (None, _NEVER):
        raise UsageError("--last keeps one file: --rotate does not go with it")
    return Keeping(path, overwrite=force, rotate=None, ring=_ring(last))


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
    progress: "_Progress",
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
            progress.show(tick, recorder)
            if tick.end:
                ending = watched.end(stop)
    except PagescanError:
        recorder.end("failed")
        progress.clear()
        if recorder.looks:
            _say_file(recorder, context)
        raise
    progress.clear()
    recorder.end(last.end or "interrupted" if last else "interrupted")
    if last is not None:
        context.say(end_line(last, ending))
    if recorder.looks:
        _say_file(recorder, context)
    return last


def _say_file(recorder: Recorder, context: Context) -> None:
    """Print which files were recorded, and the command that shows them."""
    context.say(
        f"{plural(recorder.looks, 'look')} in {plural(len(recorder.paths), 'file')}"
        f" of {format_size(recorder.size)}"
    )
    names = " ".join(map(_quoted, recorder.paths))
    context.hint(f"pagescan report {names}")


def _quoted(path: str) -> str:
    from shlex import quote

    return quote(path)


class _Progress:
    """A line on stderr that is written again at each look, on a terminal."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._shown = 0.0
        self._drawn = False

    def say(self, message: str) -> None:
        """Print a message in place of the line."""
        self.clear()
        self.context.say(message)

    def show(self, tick: Tick, recorder: Recorder) -> None:
        """Write the line, at most a few times per second."""
        if not self.context.shows_progress or tick.look is None:
            return
        now = time.monotonic()
        if now - self._shown < _REDRAWN and not tick.end:
            return
        self._shown, self._drawn = now, True
        rate = summary_of(tick.look).bytes / max(tick.seconds, 1e-6)
        text = (
            f"{plural(recorder.looks, 'look')}, {format_size(tick.totals.bytes)}"
            f" written, {format_size(int(rate))}/s now,"
            f" file {format_size(recorder.size)}"
        )
        room = max(10, os.get_terminal_size(2).columns - 1)
        sys.stderr.write(f"\r{text[:room]}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False


_REDRAWN = 0.2
