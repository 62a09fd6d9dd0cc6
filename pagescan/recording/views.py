"""The views of a recording: pure functions from looks to tables.

Each takes an `Excerpt`: the looks and the memory to show. `docs/recordings.md` defines
each view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pagescan.model.errors import UsageError
from pagescan.model.results import Cost
from pagescan.recording.by_page import ages, heatmap, working_set
from pagescan.recording.by_process import processes
from pagescan.recording.by_writer import writers
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.migration import migration
from pagescan.recording.over_time import mappings, phases, timeline
from pagescan.recording.records import moment
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pagescan.recording.store import Recording
    from pagescan.recording.tables import (
        MappingRow,
        PhaseRow,
        ProcessRow,
        TimelineRow,
        ViewTable,
        WritersView,
    )

__all__ = [
    "RecordingSummary",
    "ages",
    "heatmap",
    "mappings",
    "migration",
    "phases",
    "processes",
    "summary",
    "timeline",
    "view",
    "working_set",
    "writers",
]


class RecordingSummary(NamedTuple):
    """The totals of a recording.

    Attributes:
        begun: The beginning of the first look.
        ended: The end of the last one.
        seconds: The time that the looks cover.
        looks: Their number; in a group, each process has its own.
        ticks: The number of moments at which these looks were taken.
        pages: Written pages, added up over all looks.
        bytes: The same in bytes.
        rate: Written bytes per second, on average.
        peak: The same in the look that has the most; of a group, all its processes
            together.
        resident: Resident bytes at the first look, and at the last; None: not known.
        cost: The cost to the target, all looks together.
        recorder_ns: Processor time that the recorder took to store the looks.
        gaps: Seconds that no look covers, between the looks of several files.
        estimated: Whether some looks are estimates, by --budget.
        timeline: The rate over time.
        mappings: The mappings that were written, the most first.
        phases: The stretches of time in which the writes stay about the same.
        writers: The functions that write most; None: they were not recorded.
        processes: The processes, those that wrote most first.
    """

    begun: datetime
    ended: datetime
    seconds: float
    looks: int
    ticks: int
    pages: int
    bytes: int
    rate: float
    peak: float
    resident: tuple[int | None, int | None]
    cost: Cost
    recorder_ns: int
    gaps: float
    estimated: bool
    timeline: ViewTable[TimelineRow]
    mappings: ViewTable[MappingRow]
    phases: ViewTable[PhaseRow]
    writers: WritersView | None
    processes: ViewTable[ProcessRow]


def summary(excerpt: Excerpt) -> RecordingSummary:
    """Return the totals of a recording, without reading the regions of its looks.

    Raises:
        PagescanError: There is no look.
    """
    excerpt.check()
    looks = excerpt.looks
    total, size, peak = 0, excerpt.page_size(looks[0]), 0.0
    ticks = 0
    for tick in excerpt.by_tick:
        ticks += 1
        pages = sum(map(excerpt.pages, tick))
        total += pages
        peak = max(peak, pages * size / (tick[0].seconds or 1.0))
    seconds = excerpt.seconds
    begun = looks[0].time_ns - looks[0].interval_ns
    over_time = timeline(excerpt)
    known = [row.resident for row in over_time if row.resident is not None]
    return RecordingSummary(
        begun=moment(begun),
        ended=looks[-1].time,
        seconds=seconds,
        looks=len(looks),
        ticks=ticks,
        pages=total,
        bytes=total * size,
        rate=total * size / seconds if seconds else 0.0,
        peak=peak,
        resident=(known[0], known[-1]) if known else (None, None),
        cost=_cost(excerpt),
        recorder_ns=sum(look.recorder_ns or 0 for look in looks),
        gaps=max(0.0, (looks[-1].time_ns - begun) / 1e9 - seconds),
        estimated=any(look.estimate for look in looks),
        timeline=over_time,
        mappings=mappings(excerpt),
        phases=phases(excerpt),
        writers=writers(excerpt) if excerpt.recording.has_writers else None,
        processes=processes(excerpt),
    )


def _cost(excerpt: Excerpt) -> Cost:
    """Return the cost of all looks and attaches.

    The share is what the looks have cost, by the processor time that the processes used
    in them; None: they used no time, or it is not known, since an earlier version
    recorded.
    """
    looks = excerpt.looks
    scan = wait = calls = walked = restored = lost = 0
    used = spent = 0
    known = True
    for look in looks:
        cost = look.cost
        scan += cost.scan_ns
        wait = max(wait, cost.max_wait_ns)
        calls += cost.ioctls
        walked += cost.pages_walked
        restored += cost.huge_restored or 0
        lost += cost.huge_lost or 0
        used += cost.used_ns or 0
        spent += cost.target_ns or 0
        known &= cost.target_share is None or cost.used_ns is not None
    known &= used > 0
    processes = {look.process for look in looks}
    stopped = sum(excerpt.recording.processes[one].stopped_ns for one in processes)
    return Cost(
        stopped_ns=stopped,
        scan_ns=scan,
        max_wait_ns=wait,
        ioctls=calls,
        pages_walked=walked,
        mappings_added=looks[-1].cost.mappings_added,
        target_share=spent / used if known else None,
        target_ns=spent if known else None,
        used_ns=used if known else None,
        huge_restored=restored,
        huge_lost=lost,
    )


def view(
    recording: Recording,
    name: str,
    ranges: Sequence[str] = (),
    time: str | None = None,
    **terms: float,
) -> Any:  # noqa: ANN401 - each view has its own
    """Return a view by its name: `Recording.view` describes it."""
    known = {
        "summary": summary,
        "mappings": mappings,
        "timeline": timeline,
        "heatmap": heatmap,
        "ages": ages,
        "working-set": working_set,
        "phases": phases,
        "migration": migration,
        "writers": writers,
        "processes": processes,
    }
    function = known.get(name.replace("_", "-"))
    if function is None:
        names = ", ".join(known)
        raise UsageError(f"no such view: {name!r}", hint=f"there are: {names}")
    span = parse_span(time, recording) if time else TimeSpan()
    excerpt = Excerpt(recording, Selection.parse(ranges), span)
    excerpt.check()
    return cast("Callable[..., Any]", function)(excerpt, **terms)
