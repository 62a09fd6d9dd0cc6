"""Counts the present memory of a watched target now and then: in all, or by mapping.

The count walks every page, so it takes no more than a small share of the time: between
two counts the earlier figures hold.
"""

import contextlib
import time
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import own_borders, wholes
from pagescan.model.memory import PAGE_SIZE, Category
from pagescan.model.results import Cost, MappingCounts, Output, PresentMemory
from pagescan.native import Columns
from pagescan.scanner.counts import count_by_mapping, populated_by_mapping
from pagescan.scanner.scanner import Scanner
from pagescan.session.watched import Terms
from pagescan.target import maps
from pagescan.target.process import Target
from pagescan.tracking.sample_units import count_pages

if TYPE_CHECKING:
    from pagescan.session.watched_group import WatchedGroup

_SHARE = 0.02  # of the time: a count walks every page
_SHARE_OF_GROUP = 0.005  # looks at 200 quiet processes take 0.01
_OFTEN = 0.9  # seconds


def seconds_to_next_count(took: float, share: float = _SHARE) -> float:
    """Return the seconds from the begin of a count of present pages to the next one.

    Args:
        took: What the last count took, in seconds: the longer, the more rarely.
        share: The part of the time that counts may take.
    """
    return max(_OFTEN, took / share)


class PresentCounter:
    """The present memory of the selection, and its growth since the first count.

    Attributes:
        memory: The figures of the last count; None: none was possible yet.
    """

    def __init__(self, *, by_mapping: bool = False) -> None:
        """Begin without a count; `by_mapping`: count each mapping's growth, too."""
        self.memory: PresentMemory | None = None
        self._by_mapping = by_mapping
        self._first: int | None = None
        self._present: Columns | None = None  # regions, at the first count
        self._growth: dict[int, int] = {}  # by the starts of mappings, ascending
        self._borders: set[int] = set()  # that were there before tracking
        self._due = 0.0

    def count(self, target: Target, terms: Terms) -> Cost:
        """Count if it is time; return the cost to the target."""
        if (begun := time.monotonic()) < self._due:
            return Cost()
        scanner = Scanner(target, terms.pace)
        with contextlib.suppress(PagescanError):  # the target has ended
            selected = terms.selection.select(maps.read(target))
            size = target.facts.page_size
            if self._by_mapping and self._present is None:
                rows, found = populated_by_mapping(scanner, selected)
                self._present = _present_of(found)
                self._borders = own_borders(
                    (row.mapping, row.counts["written"] is not None) for row in rows
                )
            else:
                rows = count_by_mapping(scanner, selected)
            present = [(row.counts["present"] or 0) * size for row in rows]
            self._first = sum(present) if self._first is None else self._first
            self.memory = PresentMemory(sum(present), sum(present) - self._first)
            if self._present is not None:
                mappings = [row.mapping for row in rows]
                first = count_pages(self._present, mappings, page_size=size)
                self._growth = {
                    mapping.start: now - then * size
                    for mapping, now, then in zip(mappings, present, first, strict=True)
                }
        took = time.monotonic() - begun
        self._due = begun + seconds_to_next_count(took)
        return scanner.take_cost()

    def rows_of(self, batch: Batch, output: Output) -> list[MappingCounts]:
        """Return the mappings of a look with their growth, as of the last count.

        It is what is present now, less what was present at these addresses at first.
        JSON has the mappings of the kernel; elsewhere the parts of one are one row.
        """
        if not output.is_json:
            return self._joined(batch)
        return [
            replace(row, growth=self._growth.get(row.start))
            for row in batch.by_mapping()
        ]

    def _joined(self, batch: Batch) -> list[MappingCounts]:
        """Return a row per mapping as its program knows it.

        Tracking divides a mapping that grows: its parts say nothing of its growth.
        """
        mappings = batch.mappings
        rows = {row.start: row for row in batch.by_mapping()}
        starts = list(self._growth)
        written = [at for at, one in enumerate(mappings) if one.start in rows]
        made: list[MappingCounts] = []
        for one, indices in wholes(mappings, written, self._borders):
            parts = [rows[mappings[at].start] for at in indices]
            known = starts[
                bisect_left(starts, one.start) : bisect_left(starts, one.end)
            ]
            made.append(
                MappingCounts(
                    one,
                    sum(part.pages for part in parts),
                    sum(part.bytes for part in parts),
                    {
                        name: sum(part.counts[name] or 0 for part in parts)
                        for name in parts[0].counts
                    },
                    new=parts[0].new and one.start == parts[0].start,
                    label=next((part.label for part in parts if part.label), None),
                    growth=sum(map(self._growth.__getitem__, known)) if known else None,
                )
            )
        return made


class GroupCounter:
    """The present memory of a group, and its growth since the first count.

    Memory that members share counts once. Members that come add theirs, and what a
    member had is no longer present when it has gone.

    Attributes:
        memory: The figures of the last count; None: none was made yet.
    """

    def __init__(self, group: "WatchedGroup") -> None:
        """Begin without a count."""
        self.memory: PresentMemory | None = None
        self._group = group
        self._first = 0
        self._due = 0.0

    def count(self) -> None:
        """Count if it is time; the cost is that of the members' next looks."""
        if (begun := time.monotonic()) < self._due:
            return
        self._group.count_memory()
        counted = self._group.populated
        present = counted.present * PAGE_SIZE if counted else 0
        if self.memory is None:
            self._first = present
        self.memory = PresentMemory(present, present - self._first)
        took = time.monotonic() - begun
        self._due = begun + seconds_to_next_count(took, _SHARE_OF_GROUP)


def _present_of(found: Batch) -> Columns:
    columns = found.columns()
    bits = {bits for bits in set(columns.categories) if bits & Category.PRESENT}
    return native.relabel(columns, dict.fromkeys(bits, 0))
