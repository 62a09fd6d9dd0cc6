"""Runs the live view of `watch` at a group on a terminal."""

import contextlib
import shlex
import shutil
import time

from pagescan.commands.cmd_output import CmdOutput
from pagescan.commands.live_parts import (
    countdown,
    keyboard_inputs,
    said_in,
    watched_facts,
)
from pagescan.commands.present import seconds_to_next_count
from pagescan.console.context import Context
from pagescan.console.streams import put
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupTick, MemberLook
from pagescan.model.looks import Look, Tick
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Summary
from pagescan.model.units import escape, format_size
from pagescan.native import Columns
from pagescan.render.cells import elide_middle
from pagescan.render.live_view.group_view import GroupView
from pagescan.render.live_view.screen import shown
from pagescan.render.live_view.view import LiveView
from pagescan.render.strip import signed
from pagescan.scanner.counts import populated_by_mapping
from pagescan.session.member import WatchedMember
from pagescan.session.watched_group import WatchedGroup
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.tracking.ticks import Limits

_SUMMARY = 8
"""Processes in the summary that stays on the screen."""


def run_live(
    group: WatchedGroup,
    limits: Limits,
    stop: int,
    context: Context,
    cmd_output: CmdOutput | None = None,
) -> tuple[GroupTick | None, Cost, bool]:
    """Show looks until the end; leave a summary on the screen.

    Args:
        group: The armed group.
        limits: The interval, and when to stop.
        stop: A descriptor: the view closes when it becomes readable.
        context: The options of every command.
        cmd_output: Where the output of a launched CMD goes.

    Returns:
        The last tick, the cost of the end, and whether a key has ended it.
    """
    note = cmd_output.note if cmd_output else ""
    view = GroupView(_title(group), limits.interval, note=note)
    view.budget = group.terms.percent
    view.words = f"--{group.selector.kind} {shlex.quote(group.selector.name)}"
    live = _Live(group, view, limits.interval)
    view.open = live.open
    last = None
    view.figures.begin([item.at_tick(None).facts for item in live.items()])
    with (
        said_in(view, group.terms, context),
        shown(view, color=context.color) as screen,
    ):
        view.has_keys = screen.keyboard is not None
        live.count()
        screen.refresh()
        inputs = keyboard_inputs(view, screen, limits)
        limits.waiting = countdown(view, screen, limits)
        for tick in group.ticks(limits, stop, inputs=inputs):
            last = tick
            view.update(tick)
            live.update(tick)
            live.count()
            screen.refresh()
    if cmd_output:
        cmd_output.print_kept(context)
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


class _Live:
    """Feeds the views of the processes that have been entered, and counts memory."""

    def __init__(self, group: WatchedGroup, view: GroupView, interval: float) -> None:
        self._group = group
        self._view = view
        self._interval = interval
        self._due = 0.0
        self._labels: dict[int, Labels] = {}
        self._before: dict[int, Summary] = {}  # of views: the sums when they opened

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
        facts = watched_facts(item.tracking, self._group.terms.percent)
        view = LiveView(facts, self._interval, note="Esc: all processes")
        view.begun = "Enter"
        self._before[pid] = item.totals
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
                view.watched = watched_facts(item.tracking, self._group.terms.percent)
            view.update(_tick_of(tick, member, view, self._before[pid]))

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
        self._due = begun + seconds_to_next_count(took)

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


def _tick_of(
    tick: GroupTick, member: MemberLook, view: LiveView, before: Summary
) -> Tick:
    """Return the tick of one process; without a look it has written nothing.

    Its totals begin when the view opened, as the figures of the mappings do.
    """
    facts, look = member
    if look is None:
        size = view.watched.target.page_size
        nothing = Batch.join(Columns.empty(), MappingSet(), page_size=size)
        look = Look(nothing, (), tick.time, Cost())
    totals = facts.totals or Summary.none()
    totals = totals._replace(
        pages=totals.pages - before.pages, bytes=totals.bytes - before.bytes
    )
    return Tick(tick.number, look, tick.since, tick.seconds, None, totals)


def _summary_lines(view: GroupView, width: int) -> list[str]:
    """Return lines to print after the view: the processes that have written most."""
    rows = sorted(view.figures.rows.values(), key=lambda row: -row.written)
    rows = [row for row in rows[:_SUMMARY] if row.written]
    if not rows:
        return []
    lines = [f"{'written':>10}  {'present':>9}  {'growth':>9}  {'pid':>7}  process"]
    for row in rows:
        present = "-" if row.first is None else format_size(row.present)
        growth = "-" if row.first is None else signed(row.growth)
        if row.gone:
            present, growth = "gone", "-"
        figures = f"{format_size(row.written):>10}  {present:>9}  {growth:>9}  "
        room = max(12, width - len(figures) - 9)
        lines.append(f"{figures}{row.pid:>7}  {elide_middle(row.name, room)}")
    return lines
