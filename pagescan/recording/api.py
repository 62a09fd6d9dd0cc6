"""`record` and `open_recording`: recordings for programs in Python."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.groups import GroupFacts
from pagescan.native import Pace
from pagescan.recording import views
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.recording.store import Recording
from pagescan.session.watched import Terms, Watched
from pagescan.target.find import pid_of
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits

if TYPE_CHECKING:
    from pagescan.recording.parquet import Added
    from pagescan.recording.tables import WritersView
    from pagescan.target.group import Selector


def record(  # noqa: PLR0913 - keywords, one per option
    target: int | str | Selector,
    path: str | None = None,
    ranges: Iterable[str] = (),
    *,
    interval: float = 1.0,
    count: int | None = None,
    duration: float | None = None,
    budget: float | None = None,
    overwrite: bool = False,
    who: bool = False,
    stop: int | None = None,
) -> list[str]:
    """Keep every look at a process, or at a group of them, until something ends it.

    Args:
        target: The process, by its pid or its name; or the group: a `Tree`, `Cgroup`,
            `Unit`, `Container` or `Match`.
        path: The file; None: NAME-PID-TIME.pagescan in the current directory, for a
            group KIND-NAME-TIME.pagescan.
        ranges: RANGE words, as `record` takes them; none: everything.
        interval: Seconds between two looks.
        count: End after this many looks.
        duration: End after this many seconds.
        budget: The most percent of the target's processor time that tracking may cost,
            above 0 and at most 100: then only a random part of the memory is tracked,
            and the totals are estimates. None: everything is tracked.
        overwrite: Whether an existing file is overwritten.
        who: Whether the file also says which functions and threads wrote.
        stop: A descriptor: the recording ends when it becomes readable.

    Returns:
        The paths of the files: another file begins after each hour.

    Raises:
        UsageError: The budget is no percentage, or a word is malformed.
        PagescanError: Nothing can be tracked, or the file cannot be written. The looks
            stored before the error are in the file.

    Examples:
        >>> import pagescan
        >>> paths = pagescan.record(4242, "it.pagescan", interval=0.1, count=3)
        >>> with pagescan.open_recording(*paths) as recording:
        ...     [look.number for look in recording.looks]
        [1, 2, 3]
    """
    limits = Limits(interval, count, duration)
    terms = Terms(
        Selection.parse(ranges),
        Pace(),
        percent=_percent(budget),
        interval=interval,
        holder="record",
    )
    keeping = Keeping(path, overwrite=overwrite)
    check_possible()
    with contextlib.ExitStack() as undo:
        if stop is None:
            stop, other = os.pipe2(os.O_CLOEXEC)  # it never becomes readable
            undo.callback(os.close, stop)
            undo.callback(os.close, other)
        if isinstance(target, int | str):
            return _record(pid_of(target), terms, limits, keeping, stop, who=who)
        return _record_group(target, terms, limits, keeping, stop, who=who)


def _percent(budget: float | None) -> float | None:
    """Return the budget, if it is a percentage that tracking can keep."""
    if budget is None or 0 < budget <= 100:
        return budget
    raise UsageError(
        f"not a percentage: {budget} is not above 0 and at most 100",
        hint="as in 2 or 0.5",
    )


def _record(
    pid: int, terms: Terms, limits: Limits, keeping: Keeping, stop: int, *, who: bool
) -> list[str]:
    """Store each look at a process until the end; return the paths of the files."""
    with contextlib.ExitStack() as undo:
        writers = None
        if who:
            from pagescan.attribution.look_writers import WritersByLook
            from pagescan.attribution.writers import WriterWatch

            writers = WritersByLook(undo.enter_context(WriterWatch(pid)))
            terms.follower = writers.watch
        with Target.open(pid) as opened:
            recorder = Recorder(
                keeping,
                opened.facts,
                interval=limits.interval,
                budget=terms.percent,
                writers=writers,
            )
        undo.callback(recorder.discard)
        with _ended(recorder) as ending, Watched.armed(pid, terms) as watched:
            for tick in watched.ticks(limits, stop):
                recorder.add(tick, watched.tracking)
                ending[0] = tick.end or ending[0]
        return recorder.paths


def _record_group(
    group: Selector,
    terms: Terms,
    limits: Limits,
    keeping: Keeping,
    stop: int,
    *,
    who: bool,
) -> list[str]:
    """Store each look at a group until the end; return the paths of the files."""
    from pagescan.session.watched_group import WatchedGroup

    with contextlib.ExitStack() as undo:
        writers = None
        if who:
            from pagescan.attribution.group_samples import GroupSamples
            from pagescan.attribution.look_writers import GroupWritersByLook

            writers = GroupWritersByLook(undo.enter_context(GroupSamples()))
            terms.follower = writers.group
        group.require()
        recorder = Recorder(
            keeping,
            None,
            interval=limits.interval,
            budget=terms.percent,
            group=GroupFacts(group.kind, group.name),
            group_writers=writers,
        )
        undo.callback(recorder.discard)
        with _ended(recorder) as ending, WatchedGroup.armed(group, terms) as watched:
            recorder.meet(watched.trackings)
            for tick in watched.ticks(limits, stop):
                recorder.add_group(tick, watched.trackings)
                ending[0] = tick.end or ending[0]
        return recorder.paths


@contextlib.contextmanager
def _ended(recorder: Recorder) -> Iterator[list[str]]:
    """Write in the end why the recording ended: the item that the caller changes."""
    ending = ["interrupted"]
    try:
        yield ending
    except PagescanError:
        ending[0] = "failed"
        raise
    finally:
        recorder.end(ending[0])


class OpenRecording(Recording):
    """A recording, and its views."""

    def view(
        self,
        name: str,
        *,
        ranges: Sequence[str] = (),
        time: str | None = None,
        **terms: float,
    ) -> Any:  # noqa: ANN401 - each view has its own
        """Return a view: a list of rows (named tuples), or one record with such lists.

        Args:
            name: summary, mappings, timeline, heatmap, ages, working-set, phases,
                migration, writers or processes.
            ranges: RANGE words: only this memory; none: all.
            time: Only this time, as `report --time` takes it; None: all.
            terms: The arguments of the view: `slots` of timeline and heatmap, `rows` of
                heatmap, `bandwidth` and `downtime` of migration.

        Raises:
            UsageError: There is no such view, or a word is malformed.
            PagescanError: No look, or no mapping, is selected.
        """
        return views.view(self, name, ranges, time, **terms)

    def writers(
        self, *, ranges: Sequence[str] = (), time: str | None = None
    ) -> WritersView:
        """Return the functions whose first writes reached the most pages.

        Args:
            ranges: RANGE words: only this memory; none: all.
            time: Only this time, as `report --time` takes it; None: all.

        Raises:
            UsageError: A word is malformed.
            PagescanError: The recording has no writers: `record(..., who=True)` and
                `record --who` keep them.
        """
        view: WritersView = self.view("writers", ranges=ranges, time=time)
        return view

    def write_page(
        self, path: str, *, ranges: Sequence[str] = (), time: str | None = None
    ) -> int:
        """Write a page for a browser, with a map of memory and time; return its bytes.

        Args:
            path: The file; an existing page is overwritten, any other file is not.
            ranges: RANGE words: only this memory; none: all.
            time: Only this time, as `report --time` takes it; None: all.

        Raises:
            UsageError: A word is malformed.
            PagescanError: Nothing is selected, or the file cannot be written.
        """
        from pagescan.recording.page_contents import page_contents
        from pagescan.render.html.page import write_page

        span = parse_span(time, self) if time else TimeSpan()
        excerpt = Excerpt(self, Selection.parse(ranges), span)
        excerpt.check()
        return write_page(page_contents(excerpt), path)

    def write_parquet(
        self, folder: str, *, since_look: int = 0, release: str | None = None
    ) -> Added:
        """Add the looks to a dataset of Parquet files, each look at most once.

        Args:
            folder: The dataset; it is made if it does not exist.
            since_look: Only looks with a later number.
            release: The release of the program; None: the path of its executable.

        Raises:
            UsageError: The folder is a file.
            PagescanError: pyarrow is not installed, or the folder is no dataset, or it
                cannot be written. Then nothing was added.
        """
        from pagescan.recording.parquet import add_to_dataset

        return add_to_dataset(self, folder, since_look=since_look, release=release)


def open_recording(*paths: str) -> OpenRecording:
    """Open a recording, or several files as one; they may grow while they are read.

    Args:
        paths: The files that `pagescan record` has written, in any order.

    Raises:
        PagescanError: A file cannot be read, or is no recording. A damaged file is
            read as far as it is whole; `Recording.damage` tells what is missing.
    """
    return OpenRecording(paths)
