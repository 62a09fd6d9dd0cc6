"""Counts the pages of each mapping by category, for `maps`; scans selected mappings."""

import contextlib
from collections.abc import Container
from dataclasses import replace

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import from_oserror
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import PAGE_COUNTED, Category, Kind, Mapping
from pagescan.model.ranges import unlabelled
from pagescan.model.results import MappingCounts
from pagescan.native import Columns
from pagescan.scanner.protect import protect
from pagescan.scanner.query import Query
from pagescan.scanner.rules import PRIVATE, registered_rule
from pagescan.scanner.scanner import Scanner
from pagescan.scanner.spans import as_spans
from pagescan.target.kernel import known_categories, swap_in_use
from pagescan.target.maps import read
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.shared_files import file_of
from pagescan.target.smaps import smaps_field, smaps_fields


def scan_mappings(
    scanner: Scanner, selected: MappingSet, query: Query, uffd: int | None = None
) -> Batch:
    """Scan selected mappings; with a userfaultfd, write-protect in the same step."""
    if uffd is None:
        found = scanner.scan(selected, query)
    else:
        found = protect(scanner, selected, query, uffd)
    return joined(scanner, found, selected, query)


def joined(
    scanner: Scanner, found: Columns, selected: MappingSet, query: Query
) -> Batch:
    """Join the regions that a query has found with their mappings."""
    return Batch.join(
        found,
        selected,
        page_size=scanner.target.facts.page_size,
        returned=query.returned & known_categories(),
    )


def count_by_mapping(scanner: Scanner, selected: MappingSet) -> list[MappingCounts]:
    """Count the populated pages of each mapping; "written" is None where untracked.

    The files behind shared mappings are asked: page-table entries hide swapped pages.
    """
    return populated_by_mapping(scanner, selected)[0]


def populated_regions(scanner: Scanner, selection: Selection) -> Batch:
    """Return the populated regions of what a selection covers now, not by mapping.

    Their categories tell what `SharedOnce` needs to count the memory of several
    processes. Swapped pages of shared memory are not among them.
    """
    selected = selection.select(read(scanner.target))
    known = known_categories()
    populated = (Category.PRESENT | Category.SWAPPED) & known
    query = Query(any_of=populated, returned=(populated | Category.FILE) & known)
    return scan_mappings(scanner, MappingSet(selected), query)


def largest_mappings(
    scanner: Scanner, selection: Selection, most: int
) -> list[MappingCounts]:
    """Return the mappings of a selection with most in memory; others are not counted.

    Returns:
        Up to `most` mappings, ascending, with their present and their file pages.
    """
    from heapq import nlargest

    batch = populated_regions(scanner, selection)
    mappings, size = batch.mappings, batch.page_size
    pages, counts = native.tally(batch.columns(), batch.owners, size, len(mappings))
    places = {
        name: Category.parse(name).bit_length() - 1 for name in ("present", "file")
    }
    largest = nlargest(most, range(len(mappings)), key=pages.__getitem__)
    return [
        MappingCounts(
            mappings[at],
            mappings[at].length // size,
            mappings[at].length,
            {
                name: counts[at * native.CATEGORY_BITS + place]
                for name, place in places.items()
            },
        )
        for at in sorted(largest)
        if pages[at]
    ]


def populated_by_mapping(
    scanner: Scanner, selected: MappingSet
) -> tuple[list[MappingCounts], Batch]:
    """Return the rows of `count_by_mapping`, and the populated regions."""
    known = known_categories()
    counted = Category(0)
    for name in PAGE_COUNTED:
        counted |= Category.parse(name)
    query = Query(
        any_of=(Category.PRESENT | Category.SWAPPED | Category.GUARD) & known,
        returned=(counted | Category.WPALLOWED) & known,
    )
    batch = scan_mappings(scanner, selected, query)
    tracked = tracked_mappings(scanner, selected)
    gone = _written_and_gone(scanner, selected, tracked)
    swap = _shared_swap(scanner, selected)
    found = {row.mapping.start: row for row in batch.by_mapping()}
    size = scanner.target.facts.page_size
    nothing: dict[str, int | None] = dict.fromkeys(PAGE_COUNTED, 0)
    rows = []
    for mapping, (kind, _) in zip(selected, selected.keys, strict=True):
        start, end = mapping[:2]
        row = found.get(start)
        counts = {**nothing, **row.counts} if row else nothing.copy()
        if start in tracked:
            counts["written"] = (counts["written"] or 0) + gone.get(start, 0)
        else:
            counts["written"] = None
        if kind not in PRIVATE:
            counts["swapped"] = swap.get(start, 0)
        length = end - start
        rows.append(MappingCounts(mapping, length // size, length, counts))
    return rows, batch


def with_shares(scanner: Scanner, rows: list[MappingCounts]) -> list[MappingCounts]:
    """Return the rows of whole mappings with their figures from smaps.

    A part of a mapping has none. Huge pages of hugetlbfs count, too.

    Raises:
        PagescanError: smaps cannot be read.
    """
    target = scanner.target
    fields = [name for names in _SHARES.values() for name in names]
    try:
        fields.append(b"Size")
        found = smaps_fields(target.pid, fields, scanner.pace, scanner.meter)
    except OSError as error:
        raise from_oserror(
            error, doing=f"read smaps of {target}", pid=target.pid, call="read"
        ) from error
    made = []
    for row in rows:
        sizes = found.get(row.start, {})
        whole = sizes.get(b"Size") == row.mapping.length
        shares = {
            name: sum(sizes.get(field, 0) for field in names)
            for name, names in _SHARES.items()
        }
        made.append(replace(row, shares=shares if whole else {}))
    return made


_SHARES = {
    "private": (b"Private_Clean", b"Private_Dirty", b"Private_Hugetlb"),
    "shared": (b"Shared_Clean", b"Shared_Dirty", b"Shared_Hugetlb"),
    "pss": (b"Pss",),
}


def _written_and_gone(
    scanner: Scanner, selected: MappingSet, tracked: Container[int]
) -> dict[int, int]:
    """Return the written pages that were dropped or paged out, by mapping start.

    Their page-table entries are empty, so a count of populated pages misses them.
    """
    armed = MappingSet(
        mapping
        for mapping, (kind, _) in zip(selected, selected.keys, strict=True)
        if kind not in PRIVATE and mapping.start in tracked
    )
    query = Query(Category.WRITTEN, exclude=Category.PRESENT, returned=Category.WRITTEN)
    return {
        row.mapping.start: row.pages
        for row in scan_mappings(scanner, armed, query).by_mapping()
    }


def tracked_mappings(scanner: Scanner, selected: MappingSet) -> set[int]:
    """Return the starts of the armed mappings (WPALLOWED).

    It takes one call per mapping: the kernel skips an unarmed mapping as a whole, and
    stops at the first page of an armed one.
    """
    pairs = zip(selected, selected.keys, strict=True)
    judged = MappingSet(one for one, key in pairs if key[0] is not Kind.SPECIAL)
    # Each is a range of its own: neighbours are not joined.
    regions = scanner.scan_ranges(
        as_spans(unlabelled(judged.bounds)), [registered_rule()]
    )
    shares = native.shares(regions, *judged.bounds)
    return {judged[index].start for index in shares.ranges}


def _shared_swap(scanner: Scanner, selected: MappingSet) -> dict[int, int]:
    """Return the swapped pages of shared mappings by start.

    They come from the file behind each mapping, by cachestat(2), which takes no lock of
    the target. If a file may not be opened, smaps is read.
    """
    shared = [
        mapping
        for mapping, (kind, _) in zip(selected, selected.keys, strict=True)
        if kind is Kind.SHARED and not mapping.device[0]  # not on a disk
    ]
    if not shared or not swap_in_use():
        return {}
    swap = {}
    try:
        for mapping in shared:
            swap[mapping.start] = swapped_of_file(scanner.target, mapping)
    except OSError:
        with contextlib.suppress(OSError):
            size = scanner.target.facts.page_size
            found = smaps_field(scanner.target.pid, b"Swap", scanner.meter)
            return {start: length // size for start, length in found.items()}
    return swap


def swapped_of_file(target: Target, mapping: Mapping) -> int:
    """Return the swapped pages of the file behind a shared mapping, by cachestat(2).

    It takes no lock of the target.

    Raises:
        OSError: The file may not be opened, or the kernel does not know the call.
    """
    with file_of(target, mapping) as file:
        return native.swapped_pages(file, mapping.offset, mapping.length)
