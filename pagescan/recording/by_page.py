"""Views of single pages: heatmap, ages, working set. Pure functions.

They read the regions of every look, so they take longer than views of counts.
"""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_right
from collections import Counter
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.ranges import Ranges
from pagescan.recording.bands import Band, Bands
from pagescan.recording.over_time import pages_by_band, slots_of
from pagescan.recording.tables import AgesRow, HeatRow, ViewTable, WorkingSetRow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook

ALWAYS_PERCENT = 50
"""Pages that were written in more of the looks since their first are always written."""
ONCE, SOMETIMES, ALWAYS = 1, 2, 4
"""The classes of pages, as `PageCounts.classes` returns them."""
_WINDOWS = (1, 2, 5)


def ages(excerpt: Excerpt) -> ViewTable[AgesRow]:
    """Return how much of each mapping was written once, sometimes, or all the time."""
    bands = Bands(excerpt)
    rows: ViewTable[AgesRow] = ViewTable()
    for process, counts in excerpt.page_counts.items():
        size = excerpt.recording.processes[process].target.page_size
        mine = [band for band in bands if band.process == process]
        regions, owners = _by_band(counts.classes(ALWAYS_PERCENT), mine)
        pages, classes = native.tally(regions, owners, size, len(mine))
        for at, band in enumerate(mine):
            if not pages[at]:
                continue
            before, after = bands.sizes(band)
            first = at * native.CATEGORY_BITS
            once, sometimes, always = (
                count * size for count in classes[first : first + 3]
            )
            rows.append(
                AgesRow(
                    process,
                    band.start,
                    band.end,
                    band.mapping,
                    band.label,
                    after,
                    after - before,
                    pages[at] * size,
                    once,
                    sometimes,
                    always,
                )
            )
    rows.sort(key=lambda row: -row.written)
    return rows


def _by_band(
    regions: native.Columns, bands: Sequence[Band]
) -> tuple[native.Columns, array[int]]:
    """Cut regions at the borders of bands; where bands overlap, one gets the region."""
    ranges, index = _ranges_of(bands)
    joined, owners = native.join(regions, *ranges)
    return joined, array("q", [index[owner] if owner >= 0 else -1 for owner in owners])


def _ranges_of(bands: Sequence[Band]) -> tuple[Ranges, Sequence[int]]:
    """Return disjoint ranges, and the index of the band that each belongs to."""
    starts, ends, index = array("Q"), array("Q"), array("q")
    for at, band in enumerate(bands):
        low = max(band.start, ends[-1] if ends else 0)
        if low < band.end:
            starts.append(low)
            ends.append(band.end)
            index.append(at)
    return Ranges(starts, ends), index


def working_set(excerpt: Excerpt) -> ViewTable[WorkingSetRow]:
    """Return how many different bytes are written within windows of several lengths."""
    total = len(excerpt.by_tick)
    if not total:
        return ViewTable()
    curves = [
        (Unique(counts, len(excerpt.by_process()[process])), process)
        for process, counts in excerpt.page_counts.items()
    ]
    written = sum(
        curve.written * excerpt.recording.processes[process].target.page_size
        for curve, process in curves
    )
    rows: ViewTable[WorkingSetRow] = ViewTable()
    for window in _windows(total):
        size = sum(
            curve.in_window(window)
            * excerpt.recording.processes[process].target.page_size
            * min(1.0, curve.looks / total)
            for curve, process in curves
        )
        rows.append(
            WorkingSetRow(
                window,
                window * excerpt.seconds / total,
                round(size),
                size / written if written else 0.0,
            )
        )
    return rows


def _windows(total: int) -> list[int]:
    """Return 1, 2, 5, 10, 20, 50 … and the number of all looks."""
    windows = [
        step * 10**power
        for power in range(len(str(total)))
        for step in _WINDOWS
        if step * 10**power < total
    ]
    return [*windows, total]


class Unique:
    """The number of different pages that are written in windows of any length.

    Attributes:
        looks: The number of looks.
        written: The number of pages that were written in any look.
    """

    def __init__(self, counts: native.PageCounts, looks: int) -> None:
        """Count the stretches of looks in which each page was not written."""
        self.looks = looks
        self.written, stretches = counts.stretches()
        self._stretches = {
            length: count for length, count in enumerate(stretches) if length and count
        }

    def in_window(self, looks: int) -> float:
        """Return the mean number of different pages in all windows of some looks.

        A page is missing in each window that lies in a stretch in which the page was
        not written: in a stretch of N looks these are N - looks + 1 windows.
        """
        looks = min(looks, self.looks)
        windows = self.looks - looks + 1
        missing = sum(
            count * (length - looks + 1)
            for length, count in self._stretches.items()
            if length >= looks
        )
        return self.written - missing / windows


def heatmap(excerpt: Excerpt, slots: int = 60, rows: int = 20) -> ViewTable[HeatRow]:
    """Return the share of each piece of memory that was written, over time.

    Args:
        excerpt: The looks.
        slots: The largest number of slots of time.
        rows: The largest number of pieces of memory; each mapping that was written
            much has one.
    """
    columns = slots_of(excerpt, slots)
    bands = Bands(excerpt)
    pieces = _pieces(excerpt, bands, rows, len(columns))
    of_bands = _bands_of(excerpt, bands, pieces)
    for at, (looks, _) in enumerate(columns):
        number = Counter(look.process for look in looks)
        sums: Mapping[int, Sequence[int]]
        if of_bands is None:
            sums = _page_sums(excerpt, looks, pieces)
        else:
            sums = _band_sums(excerpt, bands, looks, of_bands)
        for process, mine in pieces.items():
            if not number[process]:
                continue
            for piece, total in zip(mine, sums[process], strict=True):
                piece.shares[at] = total / number[process] / (piece.end - piece.start)
    return ViewTable(piece for mine in pieces.values() for piece in mine)


def _bands_of(
    excerpt: Excerpt, bands: Bands, pieces: dict[int, list[HeatRow]]
) -> dict[int, list[int]] | None:
    """Return the band of each piece, by process, if each has all pages of its band.

    Then the counts of the looks tell how much of it was written. None: some have not,
    or some looks have pages in no mapping.
    """
    if not excerpt.selection.everything:
        return None
    found: dict[int, list[int]] = {process: [] for process in pieces}
    for process, mine in pieces.items():
        own = [at for at, band in enumerate(bands) if band.process == process]
        if any(bands[one].end > bands[at].start for one, at in itertools.pairwise(own)):
            return None
        starts = [bands[at].start for at in own]
        found[process] = [own[bisect_right(starts, one.start) - 1] for one in mine]
        if len({*found[process]}) < len(mine):
            return None
    if any(sum(look.counts.pages) != look.pages for look in excerpt.looks):
        return None
    return found


def _band_sums(
    excerpt: Excerpt,
    bands: Bands,
    looks: Sequence[RecordedLook],
    of_bands: dict[int, list[int]],
) -> dict[int, list[int]]:
    """Return the written bytes of bands, added up over looks, by process."""
    lost = excerpt.recording.lost  # they have counts, but no pages
    whole = [look for look in looks if look.position not in lost]
    pages = pages_by_band(excerpt, bands, whole)
    sizes = {
        process: excerpt.recording.processes[process].target.page_size
        for process in of_bands
    }
    return {
        process: [pages[band] * sizes[process] for band in mine]
        for process, mine in of_bands.items()
    }


def _page_sums(
    excerpt: Excerpt,
    looks: Sequence[RecordedLook],
    pieces: dict[int, list[HeatRow]],
) -> dict[int, array[int]]:
    """Return the written bytes of pieces, added up over looks, by process."""
    sums = {
        process: native.RangeSums(
            array("Q", [piece.start for piece in mine]),
            array("Q", [piece.end for piece in mine]),
        )
        for process, mine in pieces.items()
    }
    for process, unpacked in excerpt.unpacked(looks):
        if process in sums:
            sums[process].add(unpacked)
    return {process: one.bytes for process, one in sums.items()}


def _pieces(
    excerpt: Excerpt, bands: Bands, rows: int, slots: int
) -> dict[int, list[HeatRow]]:
    """Divide the written parts of bands into pieces: larger parts into more pieces."""
    extents = _extents(excerpt, bands)
    if not extents:
        return {}
    extents.sort(key=lambda extent: extent[1] - extent[2])
    extents = extents[:rows]
    total = sum(end - start for _, start, end in extents)
    spare = rows - len(extents)
    pieces: dict[int, list[HeatRow]] = {}
    for band, start, end in extents:
        size = excerpt.recording.processes[band.process].target.page_size
        pages = (end - start) // size
        count = min(pages, 1 + int(spare * (end - start) / total))
        edges = [start + pages * at // count * size for at in range(count + 1)]
        for low, high in itertools.pairwise(edges):
            pieces.setdefault(band.process, []).append(
                HeatRow(
                    band.process,
                    low,
                    high,
                    band.mapping,
                    band.label,
                    (high - low) // size,
                    [None] * slots,
                )
            )
    for mine in pieces.values():
        mine.sort(key=lambda piece: piece.start)
    return pieces


def _extents(excerpt: Excerpt, bands: Bands) -> list[tuple[Band, int, int]]:
    """Return the parts of bands between their first and their last written page."""
    mine = {
        process: [band for band in bands if band.process == process]
        for process in excerpt.by_process()
    }
    ranges = {process: _ranges_of(own) for process, own in mine.items()}
    sums = {process: native.RangeSums(*own) for process, (own, _) in ranges.items()}
    for process, unpacked in excerpt.unpacked(excerpt.looks):
        sums[process].add(unpacked)
    return [
        (mine[process][band], start, end)
        for process, (_, index) in ranges.items()
        for band, start, end in zip(
            index, sums[process].first, sums[process].last, strict=True
        )
        if start < end
    ]
