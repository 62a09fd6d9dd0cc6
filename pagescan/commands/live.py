"""Runs the live view of `watch` and `demo` on a terminal."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator

from pagescan.commands.cmd_output import CmdOutput
from pagescan.commands.tick_text import end_line
from pagescan.console.context import Context
from pagescan.console.streams import put
from pagescan.model.errors import PagescanError
from pagescan.model.looks import Tick, WatchedFacts
from pagescan.render.cells import folded
from pagescan.render.live_view.screen import Screen, shown
from pagescan.render.live_view.view import LiveView, summary_lines
from pagescan.scanner.counts import populated_by_mapping
from pagescan.scanner.scanner import Scanner
from pagescan.session.watched import Watched
from pagescan.target import maps as mappings
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Inputs, Limits
from pagescan.tracking.tracking import Tracking

# Counting present pages walks every page; it may take no more than this share of the
# time.
_COUNTING_SHARE = 0.02
_COUNT_EVERY = 0.9


def run_live(
    watched: Watched,
    limits: Limits,
    stop: int,
    common: Context,
    *,
    cmd_output: CmdOutput | None = None,
) -> Tick | None:
    """Show looks until the end; leave a summary on the screen; return the last look.

    Args:
        watched: An armed target.
        limits: The interval, and when to stop.
        stop: A descriptor: the view closes when it becomes readable.
        common: The options of every command.
        cmd_output: Where the output of a launched CMD goes.
    """
    view, last = show(
        watched,
        lambda inputs: watched.ticks(limits, stop, inputs=inputs),
        limits,
        common,
        note=cmd_output.note if cmd_output else "",
    )
    if cmd_output:
        cmd_output.print_kept(common)
    ending = watched.end(stop)
    width = shutil.get_terminal_size().columns
    for line in summary_lines(view, width):
        put(line)
    common.say_untracked(tuple(watched.tracking.armed.untracked))
    if last is not None:
        text = end_line(last, ending, by_key=view.state.ended)
        for line in folded(text, width - len("pagescan: ")):
            common.say(line)
    if view.warning:
        for line in folded(view.warning, width - len("pagescan: "), ": "):
            common.say(line)
    return last


def show(
    watched: Watched,
    looks: Callable[[Inputs], Iterator[Tick]],
    limits: Limits,
    common: Context,
    *,
    note: str = "",
) -> tuple[LiveView, Tick | None]:
    """Show looks as they arrive; return the view, and the last look.

    Args:
        watched: An armed target.
        looks: Yields the looks, and serves the keyboard in the meantime.
        limits: The interval and the pause: keys change them.
        common: The options of every command.
        note: A text for the head line.
    """
    view = LiveView(_facts(watched.tracking), limits.interval, note=note)
    last = None
    counter = _Counter(view)
    with shown(view, color=common.color) as screen:
        view.has_keys = screen.keyboard is not None
        screen.refresh()
        counter.count(watched)
        screen.refresh()
        for tick in looks(_inputs(view, screen, limits)):
            last = tick
            view.watched = _facts(watched.tracking)
            view.update(tick)
            view.warning = view.warning or watched.cost_warning.text(tick)
            counter.count(watched)
            screen.refresh()
    return view, last


def _inputs(view: LiveView, screen: Screen, limits: Limits) -> Inputs:
    """Return the handlers of the keyboard, if there is one."""
    keyboard = screen.keyboard
    if keyboard is None:
        return {}

    def serve() -> bool:
        keys = keyboard.read()
        if keys is None:
            return False
        view.press(keys)
        limits.interval, limits.paused = view.state.interval, view.state.paused
        if view.state.ended:
            signal.raise_signal(signal.SIGINT)  # like Ctrl-C: the normal end
        screen.refresh()
        return True

    return {keyboard.fd: serve}


def _facts(tracking: Tracking) -> WatchedFacts:
    return WatchedFacts(
        target=tracking.target.facts,
        tracked_bytes=tracking.armed.tracked_bytes,
        untracked=len(tracking.armed.untracked),
        stopped_ns=tracking.cost.stopped_ns,
    )


class _Counter:
    """Counts present pages from time to time, the more rarely the more it costs."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.due = 0.0
        self.labels: Labels | None = None

    def count(self, watched: Watched) -> None:
        if (begun := time.monotonic()) < self.due:
            return
        with contextlib.suppress(PagescanError):
            scanner = Scanner(watched.target, watched.terms.pace)
            chosen = watched.terms.selection.select(mappings.read(watched.target))
            counts, found = populated_by_mapping(scanner, chosen)
            if self.labels is None or self.labels.target is not watched.target:
                self.labels = Labels(watched.target)
            self.view.set_counts(counts, found, self.labels.cover(chosen))
        took = time.monotonic() - begun
        self.due = begun + max(_COUNT_EVERY, took / _COUNTING_SHARE)
