"""Divides mappings into cells, and says how much of each was written, and when.

Only populated pages count: they lie one behind the other, without the holes between
them. So a reservation of which little is used does not hide what is in use.
"""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import sub
from typing import NamedTuple

from pagescan import native
from pagescan.native import Columns
from pagescan.render.live_view.ages import NEVER, Ages, part_of


class Cell(NamedTuple):
    """A part of some mappings.

    Attributes:
        age: The newest class of age of its pages.
        share: The part of its pages with this age, 0 to 1; 0: no page was written.
    """

    age: int = NEVER
    share: float = 0.0


class PageMap:
    """The populated pages of some mappings, and the cells that they are divided into.

    Attributes:
        pages: The number of pages.
    """

    def __init__(
        self,
        ranges: Sequence[tuple[int, int]],
        populated: Columns | None,
        ages: Ages,
        page_size: int,
    ) -> None:
        """Collect the pages.

        Args:
            ranges: The mappings, ascending: start and end.
            populated: The populated pages of the target; None: not counted yet.
            ages: When pages were written.
            page_size: Bytes per page.
        """
        self._ages = ages
        self._size = page_size
        self._written = ages.within(ranges) if ranges else Columns.empty()
        if not ranges:
            runs = Columns.empty()
        elif populated is None:
            starts, ends = (array("Q", column) for column in zip(*ranges, strict=True))
            runs = Columns(starts, ends, array("Q", bytes(8 * len(ranges))))
        else:
            known = part_of(populated, ranges)
            # Pages written after the count are populated, too.
            unlabelled = dict.fromkeys(set(self._written.categories), 0)
            new = native.relabel(self._written, unlabelled)
            runs = native.overlay(known, new, outside=True)
            starts, ends = (array("Q", column) for column in zip(*ranges, strict=True))
            runs = native.inside(runs, starts, ends)
        self._starts = runs.starts
        lengths = map(sub, runs.ends, runs.starts)
        self._behind = list(accumulate(length // page_size for length in lengths))
        self.pages = self._behind[-1] if self._behind else 0

    def address(self, page: int) -> int:
        """Return the address of a page, which is counted without the holes."""
        run = bisect_right(self._behind, page)
        before = self._behind[run - 1] if run else 0
        return self._starts[run] + (page - before) * self._size

    def borders(self, first: int, pages: int, count: int) -> list[tuple[int, int]]:
        """Divide some pages into cells; return the first page of each, and its end.

        If there are fewer pages than requested cells, there are fewer cells.
        """
        if not (count := min(count, pages)):
            return []
        edges = [first + index * pages // count for index in range(count + 1)]
        return list(pairwise(edges))

    def range_of(self, low: int, high: int) -> tuple[int, int]:
        """Return the first address of the pages [low, high), and the last one's end."""
        return self.address(low), self.address(high - 1) + self._size

    def cells(self, first: int, pages: int, count: int) -> list[Cell]:
        """Return the cells that some pages are divided into."""
        borders = self.borders(first, pages, count)
        if not borders:
            return []
        ranges = [self.range_of(low, high) for low, high in borders]
        starts, ends = (array("Q", column) for column in zip(*ranges, strict=True))
        cells = [Cell()] * len(borders)
        for age, stamps in enumerate(self._ages.classes()):
            if not stamps:
                continue
            regions = native.relabel(self._written, stamps)
            found = native.shares(regions, starts, ends)
            for index, length in zip(found.ranges, found.lengths, strict=True):
                if cells[index].age == NEVER:
                    low, high = borders[index]
                    whole = (high - low) * self._size
                    cells[index] = Cell(age, min(1.0, length / whole))
        return cells

    def strip(self, width: int) -> list[Cell]:
        """Return exactly `width` cells for all pages; few pages take several each."""
        cells = self.cells(0, self.pages, width)
        if not cells:
            return [Cell()] * width
        return [cells[index * len(cells) // width] for index in range(width)]

    def written(self, low: int, high: int) -> tuple[int, float | None]:
        """Return how many of the pages [low, high) were written, and the last time."""
        start, end = self.range_of(low, high)
        found = native.shares(self._written, array("Q", [start]), array("Q", [end]))
        return sum(found.lengths) // self._size, self._ages.last_write(start, end)
