"""Runs the live view of `watch` and `demo` on a terminal."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator

from pagescan.commands.cmd_output import CmdOutput
from pagescan.commands.early_view import EarlyView
from pagescan.commands.live_parts import (
    countdown,
    keyboard_inputs,
    watched_facts,
)
from pagescan.commands.live_writers import LiveWriters
from pagescan.commands.present import seconds_to_next_count
from pagescan.commands.tick_text import end_line
from pagescan.console.context import Context
from pagescan.console.garbage import without_searches
from pagescan.console.streams import put
from pagescan.model.errors import PagescanError
from pagescan.model.looks import Tick
from pagescan.render.cells import folded
from pagescan.render.live_view.view import LiveView, summary_lines
from pagescan.scanner.counts import populated_by_mapping
from pagescan.scanner.scanner import Scanner
from pagescan.session.watched import Watched
from pagescan.target import maps as mappings
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Inputs, Limits


def run_live(
    watched: Watched,
    limits: Limits,
    stop: int,
    common: Context,
    early: EarlyView,
    *,
    cmd_output: CmdOutput | None = None,
) -> Tick | None:
    """Show looks until the end; leave a summary on the screen; return the last look.

    Args:
        watched: An armed target.
        limits: The interval, and when to stop.
        stop: A descriptor: the view closes when it becomes readable.
        common: The options of every command.
        early: The view, which may be on the screen already.
        cmd_output: Where the output of a launched CMD goes.
    """
    view, last = show(
        watched,
        lambda inputs: watched.ticks(limits, stop, inputs=inputs),
        limits,
        early,
    )
    if cmd_output:
        cmd_output.print_kept(common)
    ending = watched.end(stop)
    width = shutil.get_terminal_size().columns
    for line in summary_lines(view, width):
        put(line)
    common.say_untracked(tuple(watched.tracking.armed.untracked))
    if last is not None:
        warning = watched.cost_warning
        remedy = warning.remedy(sampled=view.state.writers) if warning.warned else ""
        text = end_line(last, ending, by_key=view.state.ended, remedy=remedy)
        for line in folded(text, width - len("pagescan: ")):
            common.say(line)
    return last


def show(
    watched: Watched,
    looks: Callable[[Inputs], Iterator[Tick]],
    limits: Limits,
    early: EarlyView,
) -> tuple[LiveView, Tick | None]:
    """Show looks as they arrive; return the view, and the last look.

    Args:
        watched: An armed target.
        looks: Yields the looks, and serves the keyboard in the meantime.
        limits: The interval and the pause: keys change them.
        early: The view, which may be on the screen already; it is closed at the end.
    """
    last = None
    follower = watched.terms.follower
    writers = follower if isinstance(follower, LiveWriters) else LiveWriters()
    with early, writers:
        view, screen = early.show(
            watched_facts(watched.tracking, watched.terms.percent),
            "counting what is present",
        )
        screen.refresh()
        counter = _Counter(view)
        counter.count(watched)
        view.before = ""
        view.has_keys = screen.keyboard is not None
        screen.refresh()
        inputs = keyboard_inputs(
            view, screen, limits, lambda: writers.serve(view, watched)
        )
        limits.waiting = countdown(view, screen, limits)
        for tick in looks(inputs):
            last = tick
            view.watched = watched_facts(watched.tracking, watched.terms.percent)
            view.update(tick)
            writers.show(view, tick.look)
            watched.cost_warning.check(tick)
            counter.count(watched)
            screen.refresh()
    return view, last


class _Counter:
    """Counts present pages from time to time, the more rarely the more it costs."""

    def __init__(self, view: LiveView) -> None:
        self.view = view
        self.due = 0.0
        self.labels: Labels | None = None

    def count(self, watched: Watched) -> None:
        if (begun := time.monotonic()) < self.due:
            return
        with contextlib.suppress(PagescanError), without_searches():
            scanner = Scanner(watched.target, watched.terms.pace)
            rows = mappings.read(watched.target)
            chosen = watched.terms.selection.select(rows)
            counts, found = populated_by_mapping(scanner, chosen)
            if self.labels is None or self.labels.target is not watched.target:
                self.labels = Labels(watched.target)
                self.labels.told = list(watched.terms.told)
            self.view.set_counts(counts, found, self.labels.cover(chosen, rows))
        took = time.monotonic() - begun
        self.due = begun + seconds_to_next_count(took)
