"""Sums regions over several processes: memory that they share counts once."""

from array import array

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.memory import CATEGORY_NAMES, Category, Mapping
from pagescan.model.results import Summary
from pagescan.native import Columns

_File = tuple[int, int, int]
"""The device and the inode of a file, or of shared memory."""


class SharedOnce:
    """The sum of the regions of several processes.

    A page of shared memory, or of a file that no process has written to privately,
    counts once, however many processes have it. Regions of one file are compared at
    their place in the file.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._pages = 0
        self._page_size = 0
        self._returned = Category(0)
        self._counts = [0] * native.CATEGORY_BITS
        self._files: dict[_File, tuple[int, Columns | None]] = {}
        """By file: what is added to an offset in it, and the regions so far."""

    def add(self, batch: Batch) -> None:
        """Add the regions of a process."""
        self._page_size = batch.page_size
        self._returned |= batch.returned
        columns = batch.columns()
        for mapping in _with_regions(batch):
            if not mapping.inode:
                continue
            bounds = array("Q", [mapping.start]), array("Q", [mapping.end])
            found = native.inside(columns, *bounds)
            if not mapping.shared:
                found = native.relabel(found, _of_the_file(found))
            if len(found.starts):
                columns = native.outside(columns, found.starts, found.ends)
                self._add_to_file(mapping, found)
        self._tally(columns)

    def _add_to_file(self, mapping: Mapping, found: Columns) -> None:
        key = (*mapping.device, mapping.inode)
        first = max(0, mapping.start - mapping.offset), None
        base, known = self._files.get(key, first)
        shift = base + mapping.offset - mapping.start
        if shift:
            found = _shifted(found, shift)
        if known is not None:
            found = native.overlay(known, found, outside=True)
        self._files[key] = base, found

    def _tally(self, columns: Columns) -> None:
        pages, counts = native.tally(columns, None, self._page_size, 1)
        self._pages += pages[0]
        for index, count in enumerate(counts):
            self._counts[index] += count

    def summary(self) -> Summary:
        """Return the sum; `regions` is unknown for a sum, and 0."""
        for _, found in self._files.values():
            if found is not None:
                self._tally(found)
        self._files.clear()
        return Summary(
            0,
            self._pages,
            self._pages * self._page_size,
            {
                name: self._counts[bit.bit_length() - 1]
                for bit, name in CATEGORY_NAMES
                if bit & self._returned
            },
        )


def _with_regions(batch: Batch) -> list[Mapping]:
    return [batch.mappings[owner] for owner in sorted(set(batch.owners)) if owner >= 0]


def _of_the_file(found: Columns) -> dict[int, int]:
    """Return the labels of pages that are the file's own, and no private copies."""
    return {bits: bits for bits in set(found.categories) if bits & Category.FILE}


def _shifted(found: Columns, shift: int) -> Columns:
    return Columns(
        array("Q", [start + shift for start in found.starts]),
        array("Q", [end + shift for end in found.ends]),
        found.categories,
    )
