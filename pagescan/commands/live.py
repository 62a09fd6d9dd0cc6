"""Runs the live view of `watch` and `demo` on a terminal."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from pagescan.commands.options import Common
from pagescan.commands.streams import put
from pagescan.commands.watcher import Watcher, end_line
from pagescan.model.errors import PagescanError
from pagescan.model.looks import Tick, Watched
from pagescan.render.live import LiveView, live, summary_lines
from pagescan.scanner.counts import count_by_mapping
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps as mappings
from pagescan.tracking.ticks import Limits
from pagescan.tracking.tracking import Tracking

# Counting present pages walks every page; it may take no more than this share of the
# time.
_COUNTING_SHARE = 0.02
_COUNT_EVERY = 3.0


def run_live(
    watcher: Watcher, limits: Limits, stop: int, common: Common, *, note: str = ""
) -> None:
    """Show looks until the end; leave a summary on the screen."""
    view, last = show(
        watcher, watcher.ticks(limits, stop), limits.interval, common, note=note
    )
    ending = watcher.end(stop)
    for line in summary_lines(view):
        put(line)
    if watcher.tracking is not None:
        common.say_untracked(tuple(watcher.tracking.armed.untracked))
    if last is not None:
        common.say(end_line(last, ending))
    if view.warning:
        common.say(view.warning)


def show(
    watcher: Watcher,
    looks: Iterator[Tick],
    interval: float,
    common: Common,
    *,
    note: str = "",
) -> tuple[LiveView, Tick | None]:
    """Show looks as they arrive; return the view, and the last look."""
    if watcher.tracking is None:
        raise PagescanError("not armed")
    view = LiveView(_watched(watcher.tracking), interval, note=note)
    last = None
    counter = _Counter(view)
    counter.count(watcher)
    with live(view, color=common.color) as screen, _on_resize(screen.refresh):
        screen.refresh()
        for tick in looks:
            last = tick
            view.watched = _watched(watcher.tracking)
            view.update(tick)
            view.warning = view.warning or watcher.too_costly(tick)
            counter.count(watcher)
            screen.refresh()
    return view, last


def _watched(tracking: Tracking) -> Watched:
    return Watched(
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

    def count(self, watcher: Watcher) -> None:
        if watcher.tracking is None or (begun := time.monotonic()) < self.due:
            return
        with contextlib.suppress(PagescanError):
            scanner = Scanner(watcher.target, watcher.pace)
            chosen = watcher.selection.select(mappings.read(watcher.target))
            self.view.set_counts(count_by_mapping(scanner, chosen))
        took = time.monotonic() - begun
        self.due = begun + max(_COUNT_EVERY, took / _COUNTING_SHARE)


@contextlib.contextmanager
def _on_resize(refresh: Callable[[], None]) -> Iterator[None]:
    """Draw the view again when the window changes its size."""
    before = signal.signal(signal.SIGWINCH, lambda *_: refresh())
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
