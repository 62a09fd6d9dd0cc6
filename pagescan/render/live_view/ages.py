"""When each page was written last, as far as the looks tell; pure, no I/O.

Each region is labelled with a stamp, the number of a look. Old stamps are merged, so
that there are few of them, and the further back a write is, the coarser is its time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from pagescan import native
from pagescan.native import Columns

NOW, RECENT, MINUTE, OLDER, NEVER = range(5)
"""The classes of age: the last look, 10 seconds, a minute, longer ago, not at all."""
_LIMITS = (10.0, 60.0)
_MOST_STAMPS = 24
MOST_REGIONS = 400_000  # 24 bytes each


class Ages:
    """The time of the last write to each page.

    Attributes:
        regions: The pages that were written; the categories are stamps.
        time: The time of the last look, in seconds.
    """

    def __init__(self) -> None:
        """Begin with no page written."""
        self.regions = Columns.empty()
        self.time = 0.0
        self._stamp = 0
        self._times: dict[int, float] = {}

    def add(self, starts: array[int], ends: array[int], time: float) -> None:
        """Add the pages of a look; earlier writes to them are forgotten."""
        self._stamp += 1
        self.time = time
        if not starts:
            return
        stamps = array("Q", [self._stamp]) * len(starts)
        over = Columns(starts, ends, stamps)
        self.regions = native.overlay(self.regions, over, outside=True)
        self._times[self._stamp] = time
        if len(self._times) > _MOST_STAMPS:
            self._merge(_MOST_STAMPS // 2)
        if len(self.regions.starts) > MOST_REGIONS:
            self.regions = over  # too many to remember: start again
            self._times = {self._stamp: time}

    def _merge(self, count: int) -> None:
        """Give the oldest stamps, pair by pair, the newer stamp of the two."""
        stamps = sorted(self._times)
        labels = {stamp: stamp for stamp in stamps}
        oldest = stamps[: count - count % 2]
        labels.update(zip(oldest[::2], oldest[1::2], strict=True))
        self.regions = native.relabel(self.regions, labels)
        self._times = {stamp: self._times[stamp] for stamp in set(labels.values())}

    def keep(self, populated: Columns) -> None:
        """Forget pages that are no longer populated."""
        self.regions = native.inside(self.regions, populated.starts, populated.ends)

    def within(self, ranges: Sequence[tuple[int, int]]) -> Columns:
        """Return the written regions in ascending ranges, as `part_of` does."""
        return part_of(self.regions, ranges)

    def classes(self) -> list[dict[int, int]]:
        """Return the stamps of each class of age, the newest class first."""
        found: list[dict[int, int]] = [{} for _ in range(NEVER)]
        for stamp, time in self._times.items():
            age = self.time - time
            place = sum(age > limit for limit in _LIMITS) + 1
            found[NOW if stamp == self._stamp else place][stamp] = 1
        return found

    def last_write(self, start: int, end: int) -> float | None:
        """Return the time of the last write to a range; None: it was not written."""
        stamps = self.within([(start, end)]).categories
        return self._times[max(stamps)] if stamps else None


def part_of(regions: Columns, ranges: Sequence[tuple[int, int]]) -> Columns:
    """Return the regions that touch ascending ranges; those of one range uncut."""
    if len(ranges) == 1:
        ((low, high),) = ranges
        first, behind = (
            bisect_right(regions.ends, low),
            bisect_left(regions.starts, high),
        )
        return Columns(*(column[first:behind] for column in regions))
    starts, ends = (array("Q", column) for column in zip(*ranges, strict=True))
    return native.inside(regions, starts, ends)
