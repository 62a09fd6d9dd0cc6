"""The scan of many ranges: what is asked of the kernel, and how its answer is read.

WRITTEN is the inverse of the uffd-wp bit, and nothing else: an empty entry, the zero
page and a guard marker have it too, and on some kernels a hole has it and on others
not. So whether a page is written is decided by a rule for each kind of mapping:

    private anonymous   WRITTEN, WPALLOWED, PRESENT or SWAPPED, not PFNZERO, not GUARD
    private file        the same, and not FILE: a written page is a private copy
    shared, hugetlb     WPALLOWED, and WRITTEN or neither PRESENT nor SWAPPED: every
                        entry was given a marker when armed, so that an empty one is a
                        page that was written and then dropped or paged out. Linux 6.7
                        to 6.12.102 and 6.13 to 6.17 do not say WRITTEN of it, except
                        where nothing else is asked for; of hugetlb, no kernel does.

SWAPPED is left out where it is a marker: in shared memory, hugetlb, under GUARD, and
where a protected page of a private file was dropped.
"""

import errno
import itertools
import os
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pagescan import native
from pagescan.chosen import kinds_of, length_of, spans_of
from pagescan.errors import UsageError, from_oserror
from pagescan.kernel import (
    check_known,
    known_categories,
    or_empty,
    swap_in_use,
)
from pagescan.model import (
    DEFAULT_RETURNED,
    NO_CATEGORY,
    Category,
    Cost,
    Kind,
    Mapping,
)
from pagescan.native import (
    ALL_PAGES,
    LONGEST_SLICE,
    LONGEST_TO_PROTECT,
    Columns,
    Masks,
    Meter,
    Pace,
    PreparedScan,
    Rule,
    Spans,
)
from pagescan.parallel import split
from pagescan.target import PAGE_SIZE, Target, read_status

POPULATED = Category.PRESENT | Category.SWAPPED
# Slices end on whole huge pages: a cut through one would split it when it is protected.
HUGE_PAGE = 2 << 20
# Parts of a scan for each thread: the one that is done first takes another.
_PARTS = 8
# So many regions are scanned one by one: less is walked than by asking for all.
_FEW_REGIONS = 4096
# From so many bytes on, the kernel is asked how much of it is page tables.
_VAST = 16 << 30
_NO_END = 1 << 56
# A gap of so many bytes costs less to walk than another call does.
JOIN_GAP = 128 << 10

_UNWRITTEN = {
    Kind.ANON: Category.PFNZERO | Category.GUARD,
    Kind.PRIVATE_FILE: Category.PFNZERO | Category.GUARD | Category.FILE,
    Kind.SHARED: Category.GUARD,
    Kind.HUGETLB: NO_CATEGORY,
    Kind.SPECIAL: NO_CATEGORY,
}
_CLEAR = {
    Kind.ANON: Category.FILE,  # never set, and costs a look-up a page to be asked for
    Kind.PRIVATE_FILE: NO_CATEGORY,
    Kind.SHARED: Category.SWAPPED,
    Kind.HUGETLB: Category.SWAPPED,
    Kind.SPECIAL: Category.WPALLOWED | Category.WRITTEN,
}
PRIVATE = frozenset({Kind.ANON, Kind.PRIVATE_FILE})
# What an empty entry may have of the kernel's bits.
_OF_EMPTY = Category.WPALLOWED | Category.WRITTEN | Category.HUGE


@dataclass(frozen=True, slots=True)
class Query:
    """Which pages are wanted and what is said of them: the four masks of PAGEMAP_SCAN.

    Attributes:
        require: All of these (category_mask).
        any_of: At least one of these, if there are any (category_anyof_mask).
        exclude: None of these (category_inverted, and in category_mask).
        returned: What is reported, and what neighbours are joined on (return_mask).
        max_pages: Stop after so many pages; None: no limit.
        raw: The kernel's own bits, without the rules for each kind of mapping.

    Examples:
        >>> from pagescan import Category, Query
        >>> private = Query(require=Category.PRESENT, exclude=Category.FILE)
        >>> private.max_pages is None
        True
    """

    require: Category = NO_CATEGORY
    any_of: Category = NO_CATEGORY
    exclude: Category = NO_CATEGORY
    returned: Category = DEFAULT_RETURNED
    max_pages: int | None = None
    raw: bool = False

    @property
    def used(self) -> Category:
        """Every category that the masks name."""
        return self.require | self.any_of | self.exclude | self.returned

    @property
    def masks(self) -> Masks:
        """The same as the kernel's structure has it."""
        return Masks(
            mask=self.require | self.exclude,
            inverted=self.exclude,
            anyof=self.any_of,
            returned=self.returned,
        )


def rule_for(
    kind: Kind, query: Query, page_size: int = 0, *, in_use: bool | None = None
) -> Rule | None:
    """Return what to ask in mappings of a kind; None if nothing there can match.

    Args:
        kind: Of the mappings.
        query: What is wanted.
        page_size: Of their huge pages, in bytes; 0: they have none.
        in_use: Whether there is swap; None: the kernel is asked if that matters.
    """
    swap = bool(kind is Kind.PRIVATE_FILE and query.used & Category.SWAPPED)
    if swap and in_use is None:
        in_use = swap_in_use()
    return _rule_for(kind, query, page_size, swap, bool(swap and in_use))


@lru_cache(maxsize=256)  # the same for each look
def _rule_for(
    kind: Kind, query: Query, page_size: int, swap: bool, in_use: bool
) -> Rule | None:
    align = page_size or HUGE_PAGE
    if query.raw:
        return Rule(asked=query.masks, wanted=query.masks, align=align)
    clear = _CLEAR[kind]
    if query.require & clear or (query.any_of and not query.any_of & ~clear):
        return None
    known = known_categories()
    unwritten = _UNWRITTEN[kind] & known if query.used & Category.WRITTEN else 0
    guard = Category.GUARD & known if query.used & Category.SWAPPED else 0
    # Reading a page may clear WRITTEN, SWAPPED and `clear`, and never sets a bit: so
    # required bits may be required of the kernel too, and of the excluded ones those
    # that are never cleared.
    exclude = query.exclude & ~(clear | Category.WRITTEN | Category.SWAPPED)
    require = query.require
    any_of = query.any_of
    if require & Category.WRITTEN:
        require |= Category.WPALLOWED
        exclude |= unwritten
        if not any_of and kind in PRIVATE:
            any_of = POPULATED
    if require & Category.SWAPPED:
        exclude |= guard
    needed = query.used | unwritten | guard
    empty_without = NO_CATEGORY
    if query.used & Category.WRITTEN:
        needed |= Category.WPALLOWED | POPULATED
        empty_without = NO_CATEGORY if kind in PRIVATE else POPULATED
    # A dropped page leaves a marker here. Without swap there is nothing else; with it,
    # pagemap tells the two apart.
    if swap and not in_use:
        guard |= Category.WPALLOWED
        needed |= Category.WPALLOWED
    cleared = clear & Category.FILE
    asked = Masks(
        mask=require | exclude,
        inverted=exclude,
        anyof=any_of & ~cleared,
        returned=needed & ~cleared,
    )
    return Rule(
        asked=asked if kind in PRIVATE else _or_empty(asked),
        wanted=query.masks,
        align=align,
        written_all=Category.WPALLOWED,
        written_any=POPULATED if kind in PRIVATE else 0,
        written_none=unwritten,
        empty_without=empty_without,
        unswapped=guard,
        clear=clear,
        markers=swap,
    )


def _or_empty(asked: Masks) -> Masks:
    """Widen masks to empty entries, where those that are written are asked for."""
    required = asked.mask & ~asked.inverted
    if required & ~_OF_EMPTY or (asked.anyof and not asked.anyof & _OF_EMPTY):
        return asked  # no empty entry can be wanted
    if required & Category.WRITTEN:
        return or_empty(asked)
    return asked._replace(anyof=0) if asked.anyof & Category.WRITTEN else asked


def empty_only(rule: Rule) -> Rule:
    """Return the part of a rule for written pages that `of_populated` leaves out."""
    asked, wanted = rule.asked, rule.wanted
    return rule._replace(
        asked=asked._replace(
            mask=asked.mask | POPULATED, inverted=asked.inverted | POPULATED, anyof=0
        ),
        wanted=wanted._replace(
            mask=wanted.mask | Category.PRESENT,
            inverted=wanted.inverted | Category.PRESENT,
        ),
    )


def of_populated(rule: Rule) -> Rule:
    """Return a rule for written pages less the empty entries: those stay as they are.

    The scan must not protect those of hugetlb: it makes no marker of them, and before
    6.12.97 and from 6.13 to 6.17 the kernel would wait for itself.
    """
    asked = rule.asked
    return rule._replace(
        asked=asked._replace(
            mask=asked.mask | Category.WRITTEN,
            inverted=asked.inverted & ~Category.PRESENT,
            anyof=0,
        )
    )


class Scanner:
    """Scans of one target: keeps the pace from call to call, and counts the cost.

    Attributes:
        target: Whose address space.
        pace: How its mmap lock is spared.
        meter: What all scans cost so far.
    """

    def __init__(
        self, target: Target, pace: Pace | None = None, *, threads: int | None = None
    ) -> None:
        """Look at an open target; by default a thread a processor, at most four."""
        self.target = target
        self.threads = threads or min(4, len(os.sched_getaffinity(0)))
        self.pace = pace or Pace()
        self.meter = Meter()

    def take_cost(self, stopped_ns: int = 0) -> Cost:
        """Return what was counted since the last call of this, and start anew."""
        meter, self.meter = self.meter, Meter()
        return Cost(
            stopped_ns,
            meter.scan_ns,
            meter.max_wait_ns,
            meter.ioctls,
            meter.pages_walked,
        )

    def scan(self, mappings: Sequence[Mapping], query: Query) -> Columns:
        """Return the regions that a query wants, ascending, not cut at mappings."""
        check_known(query.used)
        rules = {
            key: rule
            for key in kinds_of(mappings)
            if (rule := rule_for(key[0], query, key[1])) is not None
        }
        limit = ALL_PAGES if query.max_pages is None else query.max_pages
        return self._run(mappings, rules, max_pages=limit)

    def protect(
        self, mappings: Sequence[Mapping], query: Query, uffd: int | None = None
    ) -> Columns:
        """Get and write-protect in one step the populated pages that a query wants.

        A query is no single set of the kernel's masks once it is read by the rules. So
        the pages are looked up first, and then each combination of bits that was found
        is asked for exactly, with PM_SCAN_WP_MATCHING: what is returned of them was got
        and protected in one step. A page that is swapped or dropped in between stays as
        it is, and is not returned. Holes are listed and not protected, but for those of
        shared memory that were written and then dropped or paged out: they are listed,
        and then protected through the target's userfaultfd.

        Raises:
            UsageError: A limit of pages over hugetlb: the kernel protects whole huge
                pages only.
        """
        if query.max_pages is not None and any(
            mapping.kind is Kind.HUGETLB for mapping in mappings
        ):
            raise UsageError(
                "--max-pages cannot protect parts of hugetlb mappings",
                hint="name ranges without huge pages, or leave out --max-pages",
            )
        check_known(query.used)
        left = ALL_PAGES if query.max_pages is None else query.max_pages
        found = Columns.empty()
        for part in _runs(mappings):
            rule = rule_for(part[0].kind, query, part[0].page_size)
            if rule is not None and left:
                columns = self._protect_part(part, rule, left, uffd)
                left -= min(left, _pages(columns))
                _extend(found, columns, 0, len(columns.starts))
        return found

    def _protect_part(
        self,
        part: Sequence[Mapping],
        rule: Rule,
        max_pages: int,
        uffd: int | None,
    ) -> Columns:
        """Protect in neighbouring mappings of one kind; ascending."""
        seen = known_categories() & ~Category.SOFT_DIRTY
        seen |= Category.SOFT_DIRTY & rule.wanted.mask
        plain = Masks(returned=seen)
        raw = rule._replace(
            asked=rule.asked._replace(returned=seen), wanted=plain, clear=0,
            written_all=0, written_any=0, written_none=0, empty_without=0, unswapped=0,
        )  # fmt: skip
        spans = spans_of(part, {(part[0].kind, part[0].page_size): 0})
        listing = self.run(spans, [raw])
        # What is not written yet may be in a moment.
        bits_seen = {
            bits | more
            for bits in set(listing.categories)
            for more in (0, Category.WRITTEN if protectable(bits) else 0)
        }
        wanted = {
            bits: read & rule.wanted.returned
            for bits in bits_seen
            if is_wanted(rule, read := read_bits(rule, bits))
        }
        if max_pages != ALL_PAGES or len(listing.starts) < _FEW_REGIONS:
            listing = _first_pages(listing, wanted, max_pages)
            spans = Spans(*listing[:2], array("Q", bytes(8 * len(listing.starts))))
        found = _of_these(
            listing, {bits: wanted[bits] for bits in wanted if not protectable(bits)}
        )
        if uffd is not None:
            gone = {bits: 0 for bits in wanted if is_gone(rule, bits)}
            self.protect_regions(_of_these(listing, gone), rule.align, uffd)
        # What is protected is no longer written: those without the bit come first, so
        # that no page is got twice; but for one that is written in between.
        for bits in sorted(wanted, key=lambda bits: bits & Category.WRITTEN):
            if protectable(bits):
                exact = rule._replace(
                    asked=Masks(mask=seen, inverted=seen & ~bits, returned=seen),
                    protect=True,
                )
                found = native.overlay(found, self.run(spans, [exact]), outside=True)
        return found

    def protect_regions(self, regions: Columns, align: int, uffd: int) -> None:
        """Protect again what was armed, written and then dropped, holes too.

        Raises:
            TargetError: The address space is gone.
        """
        for start, end in zip(regions.starts, regions.ends, strict=True):
            try:
                native.uffd_protect(
                    uffd, start, end, align=align, pace=self.pace, meter=self.meter
                )
            except OSError as error:
                if error.errno == errno.ESRCH:
                    raise self.target.gone() from error
                # It was unmapped meanwhile: there is nothing to protect.

    def _run(
        self,
        mappings: Sequence[Mapping],
        rules: dict[tuple[Kind, int], Rule],
        *,
        max_pages: int = ALL_PAGES,
    ) -> Columns:
        indices = {key: index for index, key in enumerate(rules)}
        return self.run(
            spans_of(mappings, indices), list(rules.values()), max_pages=max_pages
        )

    def run(
        self,
        spans: Spans,
        rules: Sequence[Rule],
        *,
        max_pages: int = ALL_PAGES,
        join_gap: int = 0,
        threads: int | None = None,
        kept: dict[tuple[object, ...], PreparedScan] | None = None,
    ) -> Columns:
        """Scan spans by rules; errors become those of the target.

        Args:
            spans: What is scanned, ascending.
            rules: What the spans refer to.
            max_pages: How many pages at most.
            join_gap: Regions closer than so many bytes become one.
            threads: At most; None: as many as the scanner may have.
            kept: Where what the shim needs is taken from, if the same was asked before
                of the same spans, and put for the next time.

        Raises:
            TargetError: The address space is gone.
        """
        if not spans.starts:
            return Columns.empty()
        threads = 1 if max_pages != ALL_PAGES else threads or self.threads
        asked = (
            id(spans),
            self.target.pagemap,
            tuple(rules),
            max_pages,
            join_gap,
            threads,
        )
        # Taken out: no one else may use it, and it is not used again if this fails.
        scan = kept.pop(asked, None) if kept is not None else None
        if scan is None:
            align = max(HUGE_PAGE, *(rule.align for rule in rules))
            scan = PreparedScan(
                self.target.pagemap,
                split(spans, _PARTS * threads, align) if threads > 1 else [spans],
                rules,
                threads=threads,
                max_pages=max_pages,
                join_gap=join_gap,
            )
        progress = self.pace.progress
        if progress is not None:
            progress.begin(length_of(spans))
        try:
            protects = any(rule.protect for rule in rules)
            longest = LONGEST_TO_PROTECT if protects else LONGEST_SLICE
            if self._has_few_tables(spans, longest // HUGE_PAGE):
                longest = _NO_END
            found = scan.scan(self.pace, self.meter, longest)
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise self.target.gone() from error
            raise from_oserror(
                error,
                doing=f"scan {self.target}",
                pid=self.target.pid,
                call="ioctl(PAGEMAP_SCAN)",
            ) from error
        finally:
            if progress is not None:
                progress.begin(0)
        # Kernels before 6.12.117 answer with no regions instead of ESRCH.
        if not found.starts and not self.target.has_address_space():
            raise self.target.gone()
        if kept is not None:
            kept[asked] = scan
        return found

    def _has_few_tables(self, spans: Spans, few: int) -> bool:
        """Whether spans are all but empty: then one call may walk what is reserved.

        What takes time is page tables, and huge pages that have none. Where there are
        not more of them than in one slice that is dense, no call needs another end.
        """
        reach = spans.ends[-1] - spans.starts[0]
        many = len(spans.starts) > _FEW_REGIONS  # each is a call of its own
        if reach < _VAST or many or length_of(spans) < _VAST:
            return False
        try:
            status = read_status(self.target.pid)
            tables, resident, huge = (
                int(status[key].split()[0]) << 10
                for key in ("VmPTE", "VmRSS", "HugetlbPages")
            )
        except (OSError, LookupError):  # it has ended, as the scan will say
            return False
        return tables // PAGE_SIZE + (resident + huge) // HUGE_PAGE <= few


def read_bits(rule: Rule, bits: int) -> int:
    """Read the kernel's bits by a rule, as the shim does for each region."""
    if rule.empty_without and not bits & rule.empty_without:
        bits |= Category.WRITTEN
    written = (
        bits & rule.written_all == rule.written_all
        and (not rule.written_any or bits & rule.written_any)
        and not bits & rule.written_none
    )
    if not written:
        bits &= ~Category.WRITTEN
    if bits & rule.unswapped:
        bits &= ~Category.SWAPPED
    return bits & ~rule.clear


def is_wanted(rule: Rule, bits: int) -> bool:
    """Whether pages whose bits were read so are what the rule wants."""
    masks = rule.wanted
    bits ^= masks.inverted
    return bits & masks.mask == masks.mask and not (
        masks.anyof and not bits & masks.anyof
    )


def protectable(bits: int) -> bool:
    """Whether a page may be write-protected by the scan: populated and registered."""
    return bool(
        bits & Category.WPALLOWED and bits & POPULATED and not bits & Category.GUARD
    )


def is_gone(rule: Rule, bits: int) -> bool:
    """Whether a page was written, in shared memory, and is in no page table now."""
    empty = bool(rule.empty_without) and not bits & rule.empty_without
    return empty and bool(read_bits(rule, bits) & Category.WRITTEN)


def _runs(mappings: Iterable[Mapping]) -> Iterable[list[Mapping]]:
    """Yield neighbours in the list that are of one kind."""
    for _, run in itertools.groupby(
        mappings, key=lambda mapping: (mapping.kind, mapping.page_size)
    ):
        yield list(run)


def _of_these(listing: Columns, said: dict[int, int]) -> Columns:
    """Return the regions of some categories, with what is said of them instead."""
    found = Columns.empty()
    if said:
        for start, end, bits in zip(*listing, strict=True):
            if bits in said:
                _append(found, start, end, said[bits])
    return found


def _first_pages(listing: Columns, wanted: Container[int], max_pages: int) -> Columns:
    """Return the regions of wanted categories, so many pages of them."""
    found = Columns.empty()
    for start, end, bits in zip(*listing, strict=True):
        if bits in wanted and max_pages:
            pages = min(max_pages, (end - start) // PAGE_SIZE)
            _append(found, start, start + pages * PAGE_SIZE, bits)
            max_pages -= pages
    return found


def _pages(columns: Columns) -> int:
    return (sum(columns.ends) - sum(columns.starts)) // PAGE_SIZE


def _append(columns: Columns, start: int, end: int, bits: int) -> None:
    for column, value in zip(columns, (start, end, bits), strict=True):
        column.append(value)


def merge(one: Columns, other: Columns) -> Columns:
    """Merge two lists of ascending regions that do not overlap each other."""
    if not one.starts or not other.starts:
        return one if one.starts else other
    merged = Columns.empty()
    lists, cursors = (one, other), [0, 0]
    while cursors[0] < len(one.starts) and cursors[1] < len(other.starts):
        low = 0 if one.starts[cursors[0]] < other.starts[cursors[1]] else 1
        border = lists[1 - low].starts[cursors[1 - low]]
        stop = bisect_left(lists[low].starts, border, cursors[low])
        _extend(merged, lists[low], cursors[low], stop)
        cursors[low] = stop
    for columns, cursor in zip(lists, cursors, strict=True):
        _extend(merged, columns, cursor, len(columns.starts))
    return merged


def _extend(merged: Columns, columns: Columns, start: int, stop: int) -> None:
    for target, source in zip(merged, columns, strict=True):
        target.extend(source[start:stop])


def as_spans(columns: Columns) -> Spans:
    """Read the categories of regions as the index of the rule to scan them by next."""
    return Spans(*columns)
