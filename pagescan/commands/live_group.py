"""Runs the live view of `watch` at a group on a terminal."""

import contextlib
import shutil
import signal
import time

from pagescan.console.context import Context
from pagescan.console.streams import put
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupTick, MemberLook
from pagescan.model.looks import Look, Tick, WatchedFacts
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Summary
from pagescan.model.units import escape, format_size
from pagescan.native import Columns
from pagescan.render.live_view.group_view import GroupView
from pagescan.render.live_view.screen import Screen, shown
from pagescan.render.live_view.view import LiveView
from pagescan.scanner.counts import populated_by_mapping
from pagescan.session.member import WatchedMember
from pagescan.session.watched_group import WatchedGroup
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Inputs, Limits
from pagescan.tracking.tracking import Tracking

_COUNTING_SHARE = 0.02
"""Counting present pages walks every page; it may take this share of the time."""
_COUNT_EVERY = 0.9
_SUMMARY = 8
"""Processes in the summary that stays on the screen."""


def run_live(
    group: WatchedGroup, limits: Limits, stop: int, context: Context
) -> tuple[GroupTick | None, Cost, bool]:
    """Show looks until the end; leave a summary on the screen.

    Returns:
        The last tick, the cost of the end, and whether a key has ended it.
    """
    view = GroupView(_title(group), limits.interval)
    live = _Live(group, view, limits.interval)
    view.open = live.open
    last = None
    with shown(view, color=context.color) as screen:
        view.has_keys = screen.keyboard is not None
        view.figures.begin([item.at_tick(None).facts for item in live.items()])
        live.count()
        screen.refresh()
        for tick in group.ticks(limits, stop, inputs=_inputs(view, screen, limits)):
            last = tick
            view.update(tick)
            live.update(tick)
            live.count()
            screen.refresh()
    ending = group.end(stop)
    for line in _summary_lines(view, shutil.get_terminal_size().columns):
        put(line)
    return last, ending, view.state.ended


def _title(group: WatchedGroup) -> str:
    selector = group.selector
    first = next(iter(group.members.values()), None)
    if selector.kind == "tree" and first is not None:
        return f"tree {selector.name} {escape(first.facts.name)}"
    return str(selector)


def _inputs(view: GroupView, screen: Screen, limits: Limits) -> Inputs:
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
            signal.raise_signal(signal.SIGINT)  # the normal end, like Ctrl-C
        screen.refresh()
        return True

    return {keyboard.fd: serve}


class _Live:
    """Feeds the views of the processes that have been entered, and counts memory."""

    def __init__(self, group: WatchedGroup, view: GroupView, interval: float) -> None:
        self._group = group
        self._view = view
        self._interval = interval
        self._due = 0.0
        self._labels: dict[int, Labels] = {}

    def items(self) -> list[WatchedMember]:
        """Return the members."""
        return list(self._group.members.values())

    def _item(self, pid: int) -> WatchedMember | None:
        return next((item for item in self.items() if item.facts.pid == pid), None)

    def open(self, pid: int) -> LiveView | None:
        """Return a view of the mappings of a process; None: it is not tracked."""
        item = self._item(pid)
        if item is None or item.tracking is None:
            return None
        facts = _facts(item.tracking)
        view = LiveView(facts, self._interval, note="Esc: all processes")
        self._count_mappings(item, view)
        return view

    def update(self, tick: GroupTick) -> None:
        """Hand the looks to the views that are open."""
        by_pid = {member.facts.target.pid: member for member in tick.members}
        for pid, view in self._view.views.items():
            member, item = by_pid.get(pid), self._item(pid)
            if member is None:
                continue
            if item is not None and item.tracking is not None:
                view.watched = _facts(item.tracking)
            view.update(_tick_of(tick, member, view))

    def count(self) -> None:
        """Count present pages; the longer a count takes, the more rarely it is made."""
        if (begun := time.monotonic()) < self._due:
            return
        self._group.count_memory()
        figures = self._view.figures
        figures.count(self._group.populated)
        figures.begin([item.at_tick(None).facts for item in self.items()])
        inside = self._view.inside
        item = None if inside is None else self._item(inside)
        if inside is not None and item is not None:
            self._count_mappings(item, self._view.views[inside])
        took = time.monotonic() - begun
        self._due = begun + max(_COUNT_EVERY, took / _COUNTING_SHARE)

    def _count_mappings(self, item: WatchedMember, view: LiveView) -> None:
        tracking = item.tracking
        if tracking is None:
            return
        with contextlib.suppress(PagescanError):
            target = tracking.target
            chosen = self._group.terms.selection.select(maps.read(target))
            counts, found = populated_by_mapping(tracking.scanner, chosen)
            labels = self._labels.get(target.pid)
            if labels is None or labels.target is not target:
                labels = self._labels[target.pid] = Labels(target)
            view.set_counts(counts, found, labels.cover(chosen))


def _facts(tracking: Tracking) -> WatchedFacts:
    return WatchedFacts(
        target=tracking.target.facts,
        tracked_bytes=tracking.armed.tracked_bytes,
        untracked=len(tracking.armed.untracked),
        stopped_ns=tracking.cost.stopped_ns,
    )


def _tick_of(tick: GroupTick, member: MemberLook, view: LiveView) -> Tick:
    """Return the tick of one process; without a look it has written nothing."""
    facts, look = member
    if look is None:
        size = view.watched.target.page_size
        nothing = Batch.join(Columns.empty(), MappingSet(), page_size=size)
        look = Look(nothing, (), tick.time, Cost())
    totals = facts.totals or Summary.none()
    return Tick(tick.number, look, tick.since, tick.seconds, None, totals)


def _summary_lines(view: GroupView, width: int) -> list[str]:
    """Return lines to print after the view: the processes that have written most."""
    rows = sorted(view.figures.rows.values(), key=lambda row: -row.written)
    return [
        f"{format_size(row.written):>10}  {row.pid:>7}  {row.name}"[:width]
        for row in rows[:_SUMMARY]
        if row.written
    ]
