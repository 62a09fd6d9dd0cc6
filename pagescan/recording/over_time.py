"""Views of counts per look: timeline, mappings, phases. Pure functions."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import add
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from pagescan.recording.bands import Bands
from pagescan.recording.excerpt import ticks_of
from pagescan.recording.records import BILLION
from pagescan.recording.tables import MappingRow, PhaseRow, TimelineRow, ViewTable

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook

_SLOTS = 60
_FEW = 4  # looks: up to that number, they are added up one by one
_POINTS = 600  # the slots from which phases are made
_MOST_BANDS = 6  # the busiest bands: only their changes begin a phase
_MUCH = 0.05  # of all writes: a mapping with less begins no phase
_FACTOR = math.log2(1.5)  # a smaller change of the rate begins no phase
_OF_NOISE = 3.0  # nor does a change below this many times the noise
_SHORTEST = 3  # the fewest slots of a phase
_UNIT = 4096  # bytes per second below which rates are about equal


def timeline(excerpt: Excerpt, slots: int = _SLOTS) -> ViewTable[TimelineRow]:
    """Return the written bytes and the resident memory over time, slot by slot."""
    rows: ViewTable[TimelineRow] = ViewTable()
    known: dict[int, int | None] = {}
    columns = slots_of(excerpt, slots)
    within = _rates_within(excerpt, columns)
    for looks, begun in columns:
        size = excerpt.page_size(looks[0]) if looks else 0
        pages = sum(excerpt.pages(look) for look in looks)
        newest = {look.process: look.resident for look in looks}
        known = newest | _others(excerpt, known, looks)
        resident = [count for count in known.values() if count is not None]
        seconds = _seconds(looks)
        rows.append(
            TimelineRow(
                begun,
                seconds,
                len(looks),
                pages,
                pages * size,
                pages * size / seconds if seconds else within.get(begun, 0.0),
                sum(resident) if resident else None,
            )
        )
    return rows


def _rates_within(
    excerpt: Excerpt, columns: Sequence[tuple[Sequence[RecordedLook], int]]
) -> dict[int, float]:
    """Return the rate of slots within the interval of a tick, by their beginning."""
    empty = [at for at, (looks, _) in enumerate(columns) if not looks]
    ticks = excerpt.by_tick if empty else []
    times = [tick[0].time_ns for tick in ticks]
    bounds = [begun for _, begun in columns] + times[-1:]
    rates: dict[int, float] = {}
    for at in empty:
        middle = (bounds[at] + bounds[at + 1]) // 2
        tick = ticks[bisect_left(times, middle)]
        if tick[0].time_ns - tick[0].interval_ns <= middle:
            pages = sum(excerpt.pages(look) for look in tick)
            size = excerpt.page_size(tick[0])
            rates[bounds[at]] = pages * size / (_seconds(tick) or 1.0)
    return rates


def _others(
    excerpt: Excerpt, known: dict[int, int | None], looks: Sequence[RecordedLook]
) -> dict[int, int | None]:
    """Return the resident bytes of processes that go on without a look in a slot."""
    if not looks:
        return {}
    here = {look.process for look in looks}
    rows, last = excerpt.recording.processes, looks[-1].position
    return {
        process: size
        for process, size in known.items()
        if process not in here and rows[process].last_look > last
    }


def slots_of(excerpt: Excerpt, slots: int) -> list[tuple[Sequence[RecordedLook], int]]:
    """Return each slot of time: its looks, and its beginning.

    There are fewer slots than asked for if there are fewer looks.
    """
    looks = excerpt.looks
    if not looks:
        return []
    begun = looks[0].time_ns - looks[0].interval_ns
    length = max(1, looks[-1].time_ns - begun)
    count = max(1, min(slots, len(excerpt.by_tick)))
    result: list[list[RecordedLook]] = [[] for _ in range(count)]
    for tick in excerpt.by_tick:
        first = tick[0]
        at = (first.time_ns - begun - first.interval_ns // 2) * count // length
        result[min(max(at, 0), count - 1)] += tick
    return [(one, begun + at * length // count) for at, one in enumerate(result)]


@dataclass(slots=True)
class _Course:
    """The writes to each band: in all, and by the slots from which phases are made.

    Attributes:
        bands: The bands.
        pages: By band: the written pages of all looks.
        looks: By band: the number of looks that found any.
        peaks: By band: the most pages per second.
        slots: The looks of each slot, and its beginning.
        tables: By slot: the written pages of each band.
    """

    bands: Bands
    pages: list[int]
    looks: list[int]
    peaks: list[float]
    slots: list[tuple[Sequence[RecordedLook], int]]
    tables: list[dict[int, int]]


def _course(excerpt: Excerpt) -> _Course:
    """Return the writes to each band; the result is cached."""
    return excerpt.once("course", lambda: _read_course(excerpt))


def _read_course(excerpt: Excerpt) -> _Course:
    bands = Bands(excerpt)
    pages, found = [0] * len(bands), [0] * len(bands)
    peaks = [0.0] * len(bands)
    slots = slots_of(excerpt, _POINTS)
    tables = []
    for looks, _ in slots:
        table = [0] * len(bands)
        for mine, seconds, rows in _alike(excerpt, bands, looks):
            if len(rows) > _FEW:
                least = min(seconds)
                for band, counts in zip(mine, zip(*rows, strict=True), strict=True):
                    table[band] += sum(counts)
                    found[band] += len(counts)
                    if max(counts) > peaks[band] * least:  # else none is higher
                        peaks[band] = _peak(peaks[band], counts, seconds)
                continue
            for length, row in zip(seconds, rows, strict=True):
                for band, count in zip(mine, row, strict=True):
                    table[band] += count
                    found[band] += 1
                    if count > peaks[band] * length:
                        peaks[band] = count / length
        tables.append({band: count for band, count in enumerate(table) if count})
        pages = list(map(add, pages, table))
    return _Course(bands, pages, found, peaks, slots, tables)


def pages_by_band(
    excerpt: Excerpt, bands: Bands, looks: Sequence[RecordedLook]
) -> list[int]:
    """Return the written pages of each band, added up over looks."""
    table = [0] * len(bands)
    for mine, _, rows in _alike(excerpt, bands, looks):
        for band, counts in zip(mine, zip(*rows, strict=True), strict=True):
            table[band] += sum(counts)
    return table


def _peak(peak: float, counts: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the highest rate of some looks, or `peak` if that is higher."""
    for count, length in zip(counts, seconds, strict=True):
        if count > peak * length:
            peak = count / length
    return peak


def _alike(
    excerpt: Excerpt, bands: Bands, looks: Sequence[RecordedLook]
) -> Iterator[tuple[Sequence[int], list[float], list[Sequence[int]]]]:
    """Yield consecutive looks that have written to the same bands.

    Yields:
        The bands; of each look, its seconds, above zero, and its counts by band.
    """
    of_mapping = bands.of_mapping
    known: Sequence[int] | None = None
    mine: Sequence[int] = ()
    once = True
    seconds: list[float] = []
    rows: list[Sequence[int]] = []
    for look in looks:
        indices, counts = excerpt.counts(look)
        if indices is not known:  # looks with the same mappings share them
            if rows:
                yield mine, seconds, rows
                seconds, rows = [], []
            known, mine = indices, [of_mapping[index] for index in indices]
            once = len(set(mine)) == len(mine)
        if once:
            seconds.append(look.seconds or 1.0)
            rows.append(counts)
            continue
        # Several mappings are one band.
        sums: dict[int, int] = {}
        for band, count in zip(mine, counts, strict=True):
            sums[band] = sums.get(band, 0) + count
        yield [*sums], [look.seconds or 1.0], [[*sums.values()]]
    if rows:
        yield mine, seconds, rows


def mappings(excerpt: Excerpt) -> ViewTable[MappingRow]:
    """Return the written bytes of each mapping that was written, the most first."""
    course = _course(excerpt)
    total = sum(course.pages) or 1
    rows = []
    for at, band in enumerate(course.bands):
        pages = course.pages[at]
        if not pages:
            continue
        size = excerpt.recording.processes[band.process].target.page_size
        before, after = course.bands.sizes(band)
        rows.append(
            MappingRow(
                band.process,
                band.start,
                band.end,
                band.mapping,
                band.label,
                after,
                after - before,
                pages,
                pages * size,
                pages / total,
                course.looks[at],
                course.peaks[at] * size,
            )
        )
    return ViewTable(sorted(rows, key=lambda row: -row.pages))


class _Point(NamedTuple):
    """A slot with looks: writes by band; and on a log scale, in all and by band."""

    looks: Sequence[RecordedLook]
    begun: int
    table: dict[int, int]
    values: list[float]


def phases(excerpt: Excerpt) -> ViewTable[PhaseRow]:
    """Return the stretches of time in which the writes stay about the same.

    A phase ends where the rate of all memory, or of a mapping that is written much,
    changes by more than half, and by more than its usual variation.
    """
    course = _course(excerpt)
    points = _points(excerpt, course)
    borders = [0, *_cuts(points, 0, len(points), len(points)), len(points)]
    rows: ViewTable[PhaseRow] = ViewTable()
    for low, high in pairwise(borders):
        if low < high:
            rows.append(_phase(excerpt, course.bands, points[low:high]))
    return rows


def _phase(excerpt: Excerpt, bands: Bands, points: Sequence[_Point]) -> PhaseRow:
    looks = [look for point in points for look in point.looks]
    pages = sum(excerpt.pages(look) for look in looks)
    by_name: dict[str, int] = {}
    for point in points:
        for band, count in point.table.items():
            name = bands[band].name
            by_name[name] = by_name.get(name, 0) + count
    most = max(by_name, key=lambda name: by_name[name], default=None)
    seconds = _seconds(looks)
    return PhaseRow(
        points[0].begun,
        seconds,
        len(looks),
        pages * excerpt.page_size(looks[0]) / seconds if seconds else 0.0,
        most,
        by_name[most] / sum(by_name.values()) if most else 0.0,
    )


def _points(excerpt: Excerpt, course: _Course) -> list[_Point]:
    """Return the slots, with the rates of all memory and of the busiest bands."""
    totals = course.pages
    much = _MUCH * sum(totals)
    order = sorted(range(len(totals)), key=lambda band: -totals[band])
    busiest = [band for band in order[:_MOST_BANDS] if totals[band] >= max(much, 1)]
    points = []
    for (looks, begun), table in zip(course.slots, course.tables, strict=True):
        if not looks:
            continue
        scale = excerpt.page_size(looks[0]) / (_seconds(looks) or 1.0)
        counts = [sum(table.values()), *(table.get(band, 0) for band in busiest)]
        values = [_log(count * scale) for count in counts]
        points.append(_Point(looks, begun, table, values))
    return points


def _log(rate: float) -> float:
    return math.log2(1 + rate / _UNIT)


def _cuts(points: list[_Point], low: int, high: int, total: int) -> list[int]:
    """Return where to cut some points into phases: at the greatest change first."""
    shortest = max(_SHORTEST, total // 100)
    if high - low < 2 * shortest:
        return []
    best, where = 0.0, -1
    for series in zip(*(point.values for point in points[low:high]), strict=True):
        gain, at = _best_cut(series, shortest)
        if gain > best:
            best, where = gain, low + at
    if where < 0:
        return []
    return [
        *_cuts(points, low, where, total),
        where,
        *_cuts(points, where, high, total),
    ]


def _best_cut(series: Sequence[float], shortest: int) -> tuple[float, int]:
    """Return the gain of the best cut of a series, and where it is; 0: no cut helps.

    The gain is the sum of squares that the two means explain.
    """
    total, count = sum(series), len(series)
    noise = median(abs(one - other) for one, other in pairwise(series))
    least = max(_FACTOR, _OF_NOISE * noise)
    best, where, left = 0.0, 0, 0.0
    for at in range(1, count):
        left += series[at - 1]
        if not shortest <= at <= count - shortest:
            continue
        change = abs(left / at - (total - left) / (count - at))
        gain = change * change * at * (count - at) / count
        if change > least and gain > best:
            best, where = gain, at
    return best, where


def _seconds(looks: Sequence[RecordedLook]) -> float:
    """Return the seconds that looks cover; looks of one tick count once.

    The looks of two recorders are not in the same ticks; an empty look may stand for
    several ticks, also for some of before.
    """
    by_process: dict[int, int] = {}
    for look in looks:
        by_process[look.process] = by_process.get(look.process, 0) + look.interval_ns
    most = max(by_process.values(), default=0)
    return min(most, sum(tick[0].interval_ns for tick in ticks_of(looks))) / BILLION
