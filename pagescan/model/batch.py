"""`Batch`: the regions of one look, joined with their mappings; pure, no I/O.

It holds three columns of 64-bit integers, and a fourth with the mapping of each region.
Objects, one per region, are made only for the regions that a caller reads one by one.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping as Dict, Sequence
from dataclasses import dataclass, field
from operator import sub
from typing import Any

from pagescan import native
from pagescan.model.frame import Frame
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import (
    CATEGORY_NAMES,
    DEFAULT_RETURNED,
    PAGE_COUNTED,
    Category,
    Mapping,
    Region,
)
from pagescan.model.results import MappingCounts, Summary
from pagescan.model.units import format_size, plural


@dataclass(slots=True, repr=False)
class Batch(Frame):
    """The regions that a look found: ascending, disjoint, maximal; one column per fact.

    Attributes:
        starts: array('Q') of addresses; a buffer that numpy takes without a copy.
        ends: array('Q'), exclusive.
        bits: array('Q'): of a look, PAGE_IS_* bits, and only those in `returned`; of a
            checkpoint's plan, an `Action`.
        owners: array('q') of indices into `mappings`; -1: the mapping is gone.
        mappings: The mappings that the owners refer to, ascending.
        new: Indices of the mappings that appeared after arming.
        page_size: Bytes per page.
        returned: The categories that were asked for.
        labels: What mappings are for, by their starts, as far as rules know it.

    Examples:
        >>> import pagescan
        >>> batch = pagescan.scan(4242, ["[stack]"])
        >>> memoryview(batch.starts).format, len(batch) == len(batch.starts)
        ('Q', True)
    """

    starts: array[int]
    ends: array[int]
    bits: array[int]
    owners: array[int]
    mappings: Sequence[Mapping]
    page_size: int
    new: frozenset[int] = frozenset()
    returned: Category = DEFAULT_RETURNED
    labels: Dict[int, str] = field(default_factory=dict)

    @classmethod
    def join(
        cls,
        columns: native.Columns,
        mappings: MappingSet,
        *,
        page_size: int,
        new: frozenset[int] = frozenset(),
        returned: Category = DEFAULT_RETURNED,
    ) -> Batch:
        """Make a batch: cut ascending regions at the borders of mappings."""
        joined, owners = native.join(
            columns,
            *mappings.bounds,
        )
        return cls(
            joined.starts,
            joined.ends,
            joined.categories,
            owners,
            mappings,
            page_size,
            new,
            returned,
        )

    def above(self, below: native.Columns) -> Batch:
        """Return this batch joined with the regions below it, where it has none itself.

        Regions below it that are in no mapping any more are left out.
        """
        mappings = MappingSet(self.mappings)
        mapped = native.inside(below, *mappings.bounds)
        return type(self).join(
            native.overlay(mapped, self.columns(), outside=True),
            mappings,
            page_size=self.page_size,
            new=self.new,
            returned=self.returned,
        )

    @classmethod
    def empty(cls, like: Batch) -> Batch:
        """Return a batch without regions; page size and categories as in `like`."""
        return cls.join(
            native.Columns.empty(),
            MappingSet(),
            page_size=like.page_size,
            returned=like.returned,
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        counts = self.summary()
        names = ", ".join(f"{name} {n:,}" for name, n in counts.categories.items())
        size = format_size(counts.bytes)
        return (
            f"<Batch: {plural(counts.regions, 'region')}, "
            f"{plural(counts.pages, 'page')} ({size}): {names}>"
        )

    def label_of(self, owner: int) -> str | None:
        """Return what the mapping with an index is for; None: no rule knows it."""
        return self.labels.get(self.mappings[owner].start) if owner >= 0 else None

    def table(self) -> dict[str, Sequence[Any]]:
        """Return the regions as columns of scalars, one row per region.

        start, end, pages and bytes are integers; each returned category is a column of
        booleans; mapping, perms, label and new are those of the region's mapping.
        """
        size = self.page_size
        lengths = list(map(sub, self.ends, self.starts))
        columns: dict[str, Sequence[Any]] = {
            "start": self.starts,
            "end": self.ends,
            "pages": [length // size for length in lengths],
            "bytes": lengths,
        }
        for bit, name in CATEGORY_NAMES:
            if bit & self.returned:
                mask = int(bit)
                columns[name] = [bool(bits & mask) for bits in self.bits]
        names = [*(mapping.label for mapping in self.mappings), None]
        perms = [*(mapping.perms for mapping in self.mappings), None]
        columns["mapping"] = [names[owner] for owner in self.owners]  # -1: the last
        columns["perms"] = [perms[owner] for owner in self.owners]
        columns["label"] = [self.label_of(owner) for owner in self.owners]
        columns["new"] = [owner in self.new for owner in self.owners]
        return columns

    @property
    def categories(self) -> array[int]:
        """The column `bits` of a look: PAGE_IS_* bits per region."""
        return self.bits

    def regions(self) -> Iterator[Region]:
        """Yield the regions as objects, ascending."""
        size = self.page_size
        mappings = self.mappings
        for start, end, bits, owner in zip(
            self.starts, self.ends, self.bits, self.owners, strict=True
        ):
            yield Region(
                start,
                end,
                (end - start) // size,
                Category(bits),
                mappings[owner] if owner >= 0 else None,
                owner in self.new,
            )

    def pages(self) -> Iterator[Region]:
        """Yield every page as a region of its own, ascending."""
        size = self.page_size
        for region in self.regions():
            for start in range(region.start, region.end, size):
                yield Region(
                    start,
                    start + size,
                    1,
                    region.categories,
                    region.mapping,
                    region.new,
                )

    def summary(self) -> Summary:
        """Return the totals: regions, pages, bytes, and pages per returned category."""
        pages, counts = native.tally(self.columns(), None, self.page_size, 1)
        return Summary(
            regions=len(self),
            pages=pages[0],
            bytes=pages[0] * self.page_size,
            categories={
                name: counts[bit.bit_length() - 1]
                for bit, name in CATEGORY_NAMES
                if bit & self.returned
            },
        )

    def by_mapping(self) -> list[MappingCounts]:
        """Return the pages per category of each mapping that has a region here.

        A batch does not know what is tracked: `written` is 0 where nothing is, too.
        `maps()` tells the two apart, with None.
        """
        total = len(self.mappings)
        pages, counts = native.tally(self.columns(), self.owners, self.page_size, total)
        width = native.CATEGORY_BITS
        places = [
            (name, bit.bit_length() - 1)
            for bit, name in CATEGORY_NAMES
            if name in PAGE_COUNTED and bit & self.returned
        ]
        return [
            MappingCounts(
                mapping,
                pages[index],
                pages[index] * self.page_size,
                {name: counts[index * width + place] for name, place in places},
                new=index in self.new,
                label=self.label_of(index),
            )
            for index, mapping in enumerate(self.mappings)
            if pages[index]
        ]

    def columns(self) -> native.Columns:
        """Return starts, ends and categories as one tuple, without a copy."""
        return native.Columns(self.starts, self.ends, self.bits)
