"""`record` and `open_recording`: recordings for programs in Python."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from pagescan.native import Pace
from pagescan.recording import views
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.recording.store import Recording
from pagescan.session.watched import Terms, Watched
from pagescan.target.find import pid_of
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.ticks import Limits


def record(
    pid: int | str,
    path: str | None = None,
    ranges: Iterable[str] = (),
    *,
    interval: float = 1.0,
    count: int | None = None,
    duration: float | None = None,
    overwrite: bool = False,
    stop: int | None = None,
) -> list[str]:
    """Keep every look at a process in a file, until something ends it.

    Args:
        pid: The process, or its name.
        path: The file; None: NAME-PID-TIME.pagescan in the current directory.
        ranges: RANGE words, as `record` takes them; none: everything.
        interval: Seconds between two looks.
        count: End after this many looks.
        duration: End after this many seconds.
        overwrite: Whether an existing file is overwritten.
        stop: A descriptor: the recording ends when it becomes readable.

    Returns:
        The paths of the files: another file begins after each hour.

    Raises:
        PagescanError: The process cannot be tracked, or the file cannot be written. The
            looks stored before the error are in the file.

    Examples:
        >>> import pagescan
        >>> paths = pagescan.record(4242, "it.pagescan", interval=0.1, count=3)
        >>> with pagescan.open_recording(*paths) as recording:
        ...     [look.number for look in recording.looks]
        [1, 2, 3]
    """
    limits = Limits(interval, count, duration)
    terms = Terms(Selection.parse(ranges), Pace(), interval=interval, holder="record")
    number = pid_of(pid)
    with Target.open(number) as target:
        keeping = Keeping(path, overwrite=overwrite)
        recorder = Recorder(keeping, target.facts, interval=interval)
    never, other = os.pipe2(os.O_CLOEXEC)
    ending = "interrupted"
    try:
        with Watched.armed(number, terms) as watched:
            end = never if stop is None else stop
            for tick in watched.ticks(limits, end):
                recorder.add(tick, watched.tracking)
                ending = tick.end or ending
    finally:
        os.close(never)
        os.close(other)
        recorder.end(ending)
        recorder.discard()
    return recorder.paths


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
            name: summary, mappings, timeline, heatmap, ages, working-set, phases or
                migration.
            ranges: RANGE words: only this memory; none: all.
            time: Only this time, as `report --time` takes it; None: all.
            terms: The arguments of the view: `slots` of timeline and heatmap, `rows` of
                heatmap, `bandwidth` and `downtime` of migration.

        Raises:
            UsageError: There is no such view, or a word is malformed.
            PagescanError: No look, or no mapping, is selected.
        """
        return views.view(self, name, ranges, time, **terms)

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


def open_recording(*paths: str) -> OpenRecording:
    """Open a recording, or several files as one; they may grow while they are read.

    Args:
        paths: The files that `pagescan record` has written, in any order.

    Raises:
        PagescanError: A file cannot be read, or is no recording. A damaged file is
            read as far as it is whole; `Recording.damage` tells what is missing.
    """
    return OpenRecording(paths)
