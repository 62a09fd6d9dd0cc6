"""Gets and write-protects the pages that match a query, in one step: `scan --wp`."""

import errno
import itertools
from collections.abc import Iterator, Sequence

from pagescan import native
from pagescan.model.errors import UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import PAGE_SIZE, Category, Kind, Mapping
from pagescan.model.ranges import Ranges, first_bytes, length_of, unlabelled
from pagescan.native import ALL_PAGES, Columns, Masks, Rule
from pagescan.scanner.bits import is_gone, is_wanted, protectable, read_bits
from pagescan.scanner.query import Query
from pagescan.scanner.rules import query_rule
from pagescan.scanner.scanner import FEW_REGIONS, Scanner
from pagescan.scanner.spans import as_spans, spans_of
from pagescan.target.kernel import check_known, known_categories


def protect(
    scanner: Scanner, mappings: MappingSet, query: Query, uffd: int | None = None
) -> Columns:
    """Get and write-protect in one step the populated pages that match a query.

    A query is not one set of the kernel's masks once it is read by the rules. So the
    pages are listed first, and then each combination of bits in the list is asked for
    exactly, with PM_SCAN_WP_MATCHING, which gets and protects the pages of its answer
    in one step. A page that is swapped or dropped in between stays as it is, and is not
    returned. Holes are listed and not protected, except those of shared memory that
    were written and then dropped or paged out: they are listed, and then protected
    through the target's userfaultfd.

    Raises:
        UsageError: A limit of pages over hugetlb: the kernel protects whole huge pages
            only.
    """
    if query.max_pages is not None and any(
        kind is Kind.HUGETLB for kind, _ in mappings.kinds
    ):
        raise UsageError(
            "--max-pages cannot protect parts of hugetlb mappings",
            hint="name ranges without huge pages, or leave out --max-pages",
        )
    check_known(query.used)
    left = query.page_limit
    protected = Columns.empty()
    for part in _runs(mappings):
        kind, page_size = part.kinds[0]
        rule = query_rule(kind, query, page_size)
        if rule is not None and left:
            regions = _protect_part(scanner, part, rule, left, uffd)
            left -= min(left, length_of(regions) // PAGE_SIZE)
            protected = native.overlay(protected, regions, outside=True)
    return protected


def _runs(mappings: Sequence[Mapping]) -> Iterator[MappingSet]:
    """Yield neighbours in the list that are of one kind."""
    for _, run in itertools.groupby(
        mappings, key=lambda mapping: (mapping.kind, mapping.page_size)
    ):
        yield MappingSet(run)


def _protect_part(
    scanner: Scanner, part: MappingSet, rule: Rule, max_pages: int, uffd: int | None
) -> Columns:
    """Protect in neighbouring mappings of one kind; ascending."""
    seen = known_categories() & ~Category.SOFT_DIRTY
    seen |= Category.SOFT_DIRTY & rule.result_masks.mask
    spans = spans_of(part, {part.kinds[0]: 0})
    listing = scanner.scan_ranges(spans, [_unread(rule, seen)])
    labels = _labels(rule, set(listing.categories))
    if max_pages != ALL_PAGES or len(listing.starts) < FEW_REGIONS:
        listing = native.relabel(listing, {bits: bits for bits in labels})
        if max_pages != ALL_PAGES:
            listing = first_bytes(listing, max_pages * PAGE_SIZE)
        spans = as_spans(unlabelled(Ranges(*listing[:2])))
    holes = {bits: labels[bits] for bits in labels if not protectable(bits)}
    regions = native.relabel(listing, holes)
    if uffd is not None:
        gone = {bits: 0 for bits in labels if is_gone(rule, bits)}
        protect_regions(scanner, native.relabel(listing, gone), rule.align, uffd)
    # Protected pages are no longer written: the combinations without the bit come
    # first, so that no page is in two answers, unless it is written in between.
    for bits in sorted(labels, key=lambda bits: bits & Category.WRITTEN):
        if protectable(bits):
            exact = rule._replace(
                kernel_masks=Masks(mask=seen, inverted=seen & ~bits, returned=seen),
                protect=True,
            )
            more = scanner.scan_ranges(spans, [exact])
            regions = native.overlay(regions, more, outside=True)
    return regions


def _unread(rule: Rule, seen: int) -> Rule:
    """Return a rule that asks for the same pages, and returns the kernel's own bits."""
    return Rule(
        kernel_masks=rule.kernel_masks._replace(returned=seen),
        result_masks=Masks(returned=seen),
        align=rule.align,
        check_markers=rule.check_markers,
    )


def _labels(rule: Rule, listed: set[int]) -> dict[int, int]:
    """Return the combinations of bits that match a rule, and what is reported of each.

    A page that was not written when it was listed may be a moment later.
    """
    possible = {
        bits | more
        for bits in listed
        for more in (0, Category.WRITTEN if protectable(bits) else 0)
    }
    return {
        bits: read & rule.result_masks.returned
        for bits in possible
        if is_wanted(rule, read := read_bits(rule, bits))
    }


def protect_regions(
    scanner: Scanner, regions: Columns, align: int, uffd: int, *, lift: bool = False
) -> None:
    """Protect regions through the userfaultfd, holes too, or lift the protection.

    Raises:
        TargetError: The address space is gone.
    """
    for start, end in zip(regions.starts, regions.ends, strict=True):
        try:
            native.uffd_protect(
                uffd,
                start,
                end,
                align=align,
                pace=scanner.pace,
                meter=scanner.meter,
                protect=not lift,
            )
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise scanner.target.gone(error) from error
            # It was unmapped since: there is nothing to protect.
