"""Records the looks at a group of processes, for `pagescan record`."""

import contextlib
from typing import TYPE_CHECKING

from pagescan.commands.group_text import Told
from pagescan.commands.record_progress import RecordProgress
from pagescan.commands.running import said_if_long
from pagescan.commands.signals import stop_on_signals
from pagescan.commands.unseen_writes import say_unseen_writes
from pagescan.commands.watch_group import group_end_line
from pagescan.console.interrupts import one_step
from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupFacts, GroupTick
from pagescan.model.results import Cost
from pagescan.model.units import plural
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.session.watched import Terms
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.group import Selector
from pagescan.tracking.ticks import Limits

if TYPE_CHECKING:
    from pagescan.attribution.look_writers import GroupWritersByLook


def record_group(
    selector: Selector,
    terms: Terms,
    limits: Limits,
    keeping: Keeping,
    progress: RecordProgress,
    *,
    keeps_writers: bool = False,
) -> None:
    """Arm all processes of a group, and keep their looks in one file until the end."""
    context = progress.context
    with contextlib.ExitStack() as undo:
        selector.require()
        writers = _sampled(undo) if keeps_writers else None
        if writers is not None:
            terms.follower = writers.group
        with one_step():
            recorder = Recorder(
                keeping,
                None,
                interval=limits.interval,
                budget=terms.percent,
                options={"ranges": terms.selection.words},
                group=GroupFacts(selector.kind, selector.name),
                group_writers=writers,
            )
            undo.callback(recorder.discard)
        what = f"arming {selector}: many processes, or much memory"
        with said_if_long(context, what):
            group = undo.enter_context(WatchedGroup.armed(selector, terms))
        stop = undo.enter_context(stop_on_signals())
        if writers is not None:
            say_unseen_writes(writers, context)
        _record(group, limits, stop, recorder, progress)


def _sampled(undo: contextlib.ExitStack) -> "GroupWritersByLook":
    from pagescan.attribution.group_samples import GroupSamples
    from pagescan.attribution.look_writers import GroupWritersByLook

    return GroupWritersByLook(undo.enter_context(GroupSamples()))


def _record(
    group: WatchedGroup,
    limits: Limits,
    stop: int,
    recorder: Recorder,
    progress: RecordProgress,
) -> None:
    """Store the looks of each tick, and then report it on stderr."""
    context = progress.context
    told = Told(progress)
    context.say(
        f"recording {group.selector}, {plural(len(group.members), 'process')}, into"
        f" {recorder.paths[0]}; Ctrl-C to end"
    )
    recorder.meet(group.trackings)
    last: GroupTick | None = None
    ending = Cost()
    try:
        for tick in group.ticks(limits, stop):
            last = tick
            recorder.add_group(tick, group.trackings)
            progress.clear()
            told.about(tick.untracked)
            progress.show(tick, tick.summary, recorder)
            if tick.end:
                ending = group.end(stop)
    except PagescanError:
        progress.end(recorder, "failed")
        raise
    line = group_end_line(last, ending) if last else None
    progress.end(recorder, (last and last.end) or "interrupted", line)
