"""The view `migration`: computes a pre-copy from the recorded writes. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.ranges import Ranges
from pagescan.recording.bands import Bands
from pagescan.recording.by_page import ALWAYS, ALWAYS_PERCENT, Unique
from pagescan.recording.tables import LastRange, Migration, RoundRow, ViewTable

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook

BANDWIDTH = 1 << 30
DOWNTIME = 0.3
_MOST_ROUNDS = 30
_LITTLE_GAIN = 0.95
_VAIN = 3  # this many such rounds in a row end the migration
_RANGES = 10
_GAP = 16  # pages between ranges that are sent as one


def migration(
    excerpt: Excerpt, *, bandwidth: int = BANDWIDTH, downtime: float = DOWNTIME
) -> Migration:
    """Return the rounds, the bytes and the freeze of a migration.

    Round 1 sends all resident memory; each later round sends the pages that were
    written during the previous round. When the rest can be sent within the downtime,
    the target is frozen and the rest is sent. A migration does not converge if its
    rounds no longer get shorter.

    Round 1 begins with the first look. A round may end in the middle of a look: the
    number of its pages that belong to the round is then estimated, from the number of
    different pages in windows of that length (the view `working-set`).

    Args:
        excerpt: The looks.
        bandwidth: Bytes per second.
        downtime: The longest freeze, in seconds.
    """
    replay = _Replay(excerpt)
    memory = _resident(excerpt)
    rounds: ViewTable[RoundRow] = ViewTable()
    rest, vain, sent = memory, 0, 0
    while rounds == [] or rest > bandwidth * downtime:
        if len(rounds) >= _MOST_ROUNDS or vain >= _VAIN:
            break
        seconds = rest / bandwidth
        dirty = min(replay.written_in(seconds), memory)
        rounds.append(RoundRow(len(rounds) + 1, rest, seconds, dirty))
        vain = vain + 1 if dirty > _LITTLE_GAIN * rest else 0
        sent += rest
        rest = dirty
    return Migration(
        rounds,
        memory,
        sent + rest,
        sum(row.seconds for row in rounds),
        rest / bandwidth,
        rest <= bandwidth * downtime,
        bandwidth,
        downtime,
        replay.repeats > 0,
        _last(excerpt),
    )


def _resident(excerpt: Excerpt) -> int:
    """Return the bytes of round 1: resident memory, but no more than is mapped."""
    total = 0
    for looks in excerpt.by_process().values():
        first = looks[0]
        _, mappings = excerpt.recording.mappings_at(first)
        chosen = excerpt.selection.select(mappings)
        mapped = sum(mapping.length for mapping in chosen)
        known = [look.resident for look in looks if look.resident is not None]
        total += min(mapped, known[0]) if known else mapped
    return total


class _Replay:
    """Replays the looks one after the other; after the last look it begins again.

    Attributes:
        repeats: How often it has begun again.
    """

    def __init__(self, excerpt: Excerpt) -> None:
        self.repeats = 0
        self._excerpt = excerpt
        looks = excerpt.by_process()
        self._counts = {
            process: native.PageCounts(excerpt.page_size(mine[0]))
            for process, mine in looks.items()
        }
        self._number = dict.fromkeys(looks, 0)
        curves = _curves(excerpt)
        self._power = _power([curve for curve, _ in curves])
        self._all = sum(curve.written * size for curve, size in curves)
        self._length = sum(_seconds(tick) for tick in excerpt.by_tick)
        self._ticks = self._again()
        self._left = 0.0  # seconds of the present tick that are not replayed yet
        self._processes: list[int] = []
        self._bytes = 0
        self._seconds = 1.0

    def _again(self) -> Iterator[list[RecordedLook]]:
        while self._number:
            yield from self._excerpt.by_tick
            self.repeats += 1

    def written_in(self, seconds: float) -> int:
        """Go on by some seconds; return the bytes of pages written in them.

        In the time of all looks, or more, these are all pages of the recording.
        """
        if self._number and seconds >= self._length:
            self.repeats += int(seconds / self._length)
            self._replay(seconds % self._length)
            return self._all
        return self._replay(seconds)

    def _replay(self, seconds: float) -> int:
        """Go on by less than the time of all looks; return the bytes as above."""
        since = dict(self._number)
        dirty = 0.0
        if self._left > 0:  # the rest of a tick: the pages of all of it are known
            for process in self._processes:
                since[process] -= 1  # they are not new in the looks after it
            part = min(seconds, self._left)
            dirty += self._part_of(self._bytes, part)
            self._left -= part
            seconds -= part
        while seconds > 1e-9:
            tick = next(self._ticks, None)
            if tick is None:
                break
            fresh = self._take(tick, since)
            part = min(seconds, self._seconds)
            dirty += self._part_of(fresh, part)
            self._left = self._seconds - part
            seconds -= part
        return round(dirty)

    def _take(self, tick: list[RecordedLook], since: dict[int, int]) -> int:
        """Go to the next tick; return how many bytes of its pages are new."""
        excerpt, fresh = self._excerpt, 0
        self._processes, self._bytes = [], 0
        for look in tick:
            process, size = look.process, excerpt.page_size(look)
            ((_, unpacked),) = excerpt.unpacked([look])
            fresh += self._counts[process].add(unpacked, since[process]) * size
            self._number[process] += 1
            self._processes.append(process)
            self._bytes += sum(excerpt.counts(look).pages) * size
        self._seconds = _seconds(tick)
        return fresh

    def _part_of(self, size: int, seconds: float) -> float:
        """Return the part of some bytes that a part of the tick has written."""
        share = min(1.0, seconds / self._seconds)
        return float(size * share**self._power)


def _seconds(tick: list[RecordedLook]) -> float:
    """Return the time of a tick, above zero."""
    return max(tick[0].seconds, 1e-6)


def _curves(excerpt: Excerpt) -> list[tuple[Unique, int]]:
    """Return for each process its different pages over time, and its page size."""
    return [
        (
            Unique(counts, len(excerpt.by_process()[process])),
            excerpt.recording.processes[process].target.page_size,
        )
        for process, counts in excerpt.page_counts.items()
    ]


def _power(curves: Sequence[Unique]) -> float:
    """Return P, where a part X of a look has written X**P of its pages.

    It comes from the growth of the working set from one look to two: 0 if the same
    pages are written again, 1 if only other pages are written.
    """
    one = two = 0.0
    for unique in curves:
        if unique.looks > 1:
            one += unique.in_window(1)
            two += unique.in_window(2)
    if one <= 0 or two <= 0:
        return 1.0
    return min(1.0, max(0.0, math.log2(two / one)))


def _last(excerpt: Excerpt) -> ViewTable[LastRange]:
    """Return the ranges that are written all the time, the largest first."""
    ranges: ViewTable[LastRange] = ViewTable()
    bands = Bands(excerpt)
    for process, counts in excerpt.page_counts.items():
        size = excerpt.recording.processes[process].target.page_size
        hot = native.relabel(counts.classes(ALWAYS_PERCENT), {ALWAYS: 0})
        starts, ends = array("Q"), array("Q")
        lengths: list[int] = []
        for start, end, _ in zip(*hot, strict=True):
            if ends and start - ends[-1] <= _GAP * size:
                ends[-1] = end
                lengths[-1] += end - start
            else:
                starts.append(start)
                ends.append(end)
                lengths.append(end - start)
        mine = [band for band in bands if band.process == process]
        for start, end, length in zip(*Ranges(starts, ends), lengths, strict=True):
            names = [band.name for band in mine if band.start <= start < band.end]
            name = names[0] if names else "[unmapped]"
            ranges.append(LastRange(process, start, end, name, length))
    ranges.sort(key=lambda row: -row.bytes)
    del ranges[_RANGES:]
    return ranges
