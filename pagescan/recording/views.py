"""The views of a recording: pure functions from looks to tables.

Each takes an `Excerpt`: the looks and the memory to show. `docs/recordings.md` defines
each view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pagescan.model.errors import UsageError
from pagescan.model.results import Cost
from pagescan.recording.by_page import ages, heatmap, working_set
from pagescan.recording.excerpt import Excerpt, TimeSpan, parse_span
from pagescan.recording.migration import migration
from pagescan.recording.over_time import mappings, phases, timeline
from pagescan.recording.records import moment
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pagescan.recording.store import Recording
    from pagescan.recording.tables import MappingRow, PhaseRow, TimelineRow, ViewTable

__all__ = [
    "RecordingSummary",
    "ages",
    "heatmap",
    "mappings",
    "migration",
    "phases",
    "summary",
    "timeline",
    "view",
    "working_set",
]


class RecordingSummary(NamedTuple):
    """The totals of a recording.

    Attributes:
        begun: The beginning of the first look.
        ended: The end of the last one.
        seconds: The time that the looks cover.
        looks: Their number.
        pages: Written pages, added up over all looks.
        bytes: The same in bytes.
        rate: Written bytes per second, on average.
        peak: The same in the look that has the most.
        resident: Resident bytes at the first look, and at the last; None: not known.
        cost: The cost to the target, all looks together.
        recorder_ns: Processor time that the recorder took to store the looks.
        gaps: Seconds that no look covers, between the looks of several files.
        estimated: Whether some looks are estimates, by --budget.
        timeline: The rate over time.
        mappings: The mappings that were written, the most first.
        phases: The stretches of time in which the writes stay about the same.
    """

    begun: datetime
    ended: datetime
    seconds: float
    looks: int
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


def summary(excerpt: Excerpt) -> RecordingSummary:
    """Return the totals of a recording, without reading the regions of its looks.

    Raises:
        PagescanError: There is no look.
    """
    excerpt.check()
    looks = excerpt.looks
    total, size, peak = 0, excerpt.page_size(looks[0]), 0.0
    for look in looks:
        pages = excerpt.pages(look)
        total += pages
        peak = max(peak, pages * size / (look.seconds or 1.0))
    seconds = excerpt.seconds
    begun = looks[0].time_ns - looks[0].interval_ns
    over_time = timeline(excerpt)
    known = [row.resident for row in over_time if row.resident is not None]
    return RecordingSummary(
        begun=moment(begun),
        ended=looks[-1].time,
        seconds=seconds,
        looks=len(looks),
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
    )


def _cost(excerpt: Excerpt) -> Cost:
    """Return the cost of all looks and attaches; shares are averaged by time."""
    looks = excerpt.looks
    scan = wait = calls = walked = restored = lost = 0
    weight = share = 0.0
    for look in looks:
        cost = look.cost
        scan += cost.scan_ns
        wait = max(wait, cost.max_wait_ns)
        calls += cost.ioctls
        walked += cost.pages_walked
        restored += cost.huge_restored or 0
        lost += cost.huge_lost or 0
        if cost.target_share is not None:
            weight += look.seconds
            share += cost.target_share * look.seconds
    processes = {look.process for look in looks}
    stopped = sum(excerpt.recording.processes[one].stopped_ns for one in processes)
    return Cost(
        stopped,
        scan,
        wait,
        calls,
        walked,
        looks[-1].cost.mappings_added,
        share / weight if weight else None,
        restored,
        lost,
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
    }
    function = known.get(name.replace("_", "-"))
    if function is None:
        names = ", ".join(known)
        raise UsageError(f"no such view: {name!r}", hint=f"there are: {names}")
    span = parse_span(time, recording) if time else TimeSpan()
    excerpt = Excerpt(recording, Selection.parse(ranges), span)
    excerpt.check()
    return cast("Callable[..., Any]", function)(excerpt, **terms)
