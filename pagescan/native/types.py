"""Lists of regions, ranges and rules, as columns and tuples: the words of the door."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from typing import NamedTuple

CATEGORY_BITS = 16
"""Counts per mapping: one per bit that a category has, or may get in a later Linux."""
ALL_PAGES = (1 << 64) - 1
ZERO = array("Q", [0])


class Columns(NamedTuple):
    """Ascending regions, one column per fact; each is an array('Q') of equal length."""

    starts: array[int]
    ends: array[int]
    categories: array[int]

    @classmethod
    def empty(cls) -> Columns:
        """Return columns without rows."""
        return cls(array("Q"), array("Q"), array("Q"))


class Windows(NamedTuple):
    """Calls that protected memory; each column is an array('Q') of equal length.

    Attributes:
        starts: The first address that the call walked.
        ends: Exclusive.
        before: The clock (CLOCK_MONOTONIC, nanoseconds) before the call.
        after: The clock after it.
    """

    starts: array[int]
    ends: array[int]
    before: array[int]
    after: array[int]

    @classmethod
    def empty(cls) -> Windows:
        """Return columns without rows."""
        return cls(array("Q"), array("Q"), array("Q"), array("Q"))

    def extend(self, others: Windows) -> None:
        """Append the rows of other columns."""
        for column, more in zip(self, others, strict=True):
            column.extend(more)


class Shares(NamedTuple):
    """How much of some regions lies in each range.

    Attributes:
        ranges: Indices of the ranges that have a part of a region, ascending.
        lengths: Bytes of the regions in each of these.
        outside: Bytes of the regions that lie in no range.
    """

    ranges: array[int]
    lengths: array[int]
    outside: int


class Masks(NamedTuple):
    """The masks of PAGEMAP_SCAN, over PAGE_IS_* bits; source: PAGEMAP_SCAN(2const)."""

    mask: int = 0
    inverted: int = 0
    anyof: int = 0
    returned: int = 0


class Rule(NamedTuple):
    """The masks for one kind of mapping, and how its bits are read; see rules.py.

    Attributes:
        kernel_masks: The masks that the kernel gets.
        result_masks: Masks applied to the interpreted bits; `kernel_masks` must match
            at least the same pages.
        protect: Also write-protect what matches `kernel_masks`, in the same step.
        first_page: Stop at the first matching page of each range.
        whole_range: Make no call: the whole range is the answer.
        align: Slices end at multiples of this many bytes.
        written_all: A page is written only with all of these,
        written_any: one of these (0: no such condition),
        written_none: and none of these.
        empty_without: An entry with none of these is empty and counts as written,
            whatever the kernel reports (0: no such condition).
        marker_bits: Together with any of these, SWAPPED is a marker and not swap.
        ignored_bits: Bits without a meaning here.
        label: Bits set in every row of the answer.
        candidates: The answer may contain additional pages: it is scanned again.
        skip_holes: Only pages that are present or swapped, so that long holes are
            skipped.
        check_markers: SWAPPED may be a marker, so ask pagemap. Not with `protect`.
    """

    kernel_masks: Masks = Masks()
    result_masks: Masks = Masks()
    protect: bool = False
    first_page: bool = False
    whole_range: bool = False
    align: int = 1
    written_all: int = 0
    written_any: int = 0
    written_none: int = 0
    empty_without: int = 0
    marker_bits: int = 0
    ignored_bits: int = 0
    label: int = 0
    candidates: bool = False
    skip_holes: bool = False
    check_markers: bool = False


class Spans(NamedTuple):
    """Ascending, disjoint ranges, each with the index of its rule."""

    starts: array[int]
    ends: array[int]
    rules: array[int]
