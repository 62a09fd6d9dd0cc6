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
from collections.abc import Iterable, Sequence

from pagescan import native
from pagescan.model.errors import UsageError, from_oserror
from pagescan.model.mapping_set import kinds_of
from pagescan.model.memory import HUGE_PAGE, PAGE_SIZE, Category, Kind, Mapping
from pagescan.model.ranges import Ranges, first_bytes, length_of, unlabelled
from pagescan.model.results import Cost
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
from pagescan.scanner.query import Query
from pagescan.scanner.rules import is_gone, is_wanted, protectable, read_bits, rule_for
from pagescan.scanner.spans import as_spans, spans_of, split
from pagescan.target.kernel import check_known, known_categories
from pagescan.target.process import Target, read_status

# Parts of a scan for each thread: the one that is done first takes another.
_PARTS = 8
# So many regions are scanned one by one: less is walked than by asking for all.
_FEW_REGIONS = 4096
# From so many bytes on, the kernel is asked how much of it is page tables.
_VAST = 16 << 30
_NO_END = 1 << 56
# A gap of so many bytes costs less to walk than another call does.
JOIN_GAP = 128 << 10


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
        meter.add(self.target.meter)
        self.target.meter = Meter()
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
                left -= min(left, length_of(columns) // PAGE_SIZE)
                found = native.overlay(found, columns, outside=True)
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
        seen |= Category.SOFT_DIRTY & rule.result_masks.mask
        plain = Masks(returned=seen)
        raw = Rule(
            kernel_masks=rule.kernel_masks._replace(returned=seen),
            result_masks=plain,
            align=rule.align,
            check_markers=rule.check_markers,
        )
        spans = spans_of(part, {(part[0].kind, part[0].page_size): 0})
        listing = self.run(spans, [raw])
        # What is not written yet may be in a moment.
        bits_seen = {
            bits | more
            for bits in set(listing.categories)
            for more in (0, Category.WRITTEN if protectable(bits) else 0)
        }
        wanted = {
            bits: read & rule.result_masks.returned
            for bits in bits_seen
            if is_wanted(rule, read := read_bits(rule, bits))
        }
        if max_pages != ALL_PAGES or len(listing.starts) < _FEW_REGIONS:
            listing = native.relabel(listing, {bits: bits for bits in wanted})
            if max_pages != ALL_PAGES:
                listing = first_bytes(listing, max_pages * PAGE_SIZE)
            spans = as_spans(unlabelled(Ranges(*listing[:2])))
        found = native.relabel(
            listing, {bits: wanted[bits] for bits in wanted if not protectable(bits)}
        )
        if uffd is not None:
            gone = {bits: 0 for bits in wanted if is_gone(rule, bits)}
            self.protect_regions(native.relabel(listing, gone), rule.align, uffd)
        # What is protected is no longer written: those without the bit come first, so
        # that no page is got twice; but for one that is written in between.
        for bits in sorted(wanted, key=lambda bits: bits & Category.WRITTEN):
            if protectable(bits):
                exact = rule._replace(
                    kernel_masks=Masks(mask=seen, inverted=seen & ~bits, returned=seen),
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
                    raise self.target.gone(error) from error
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
                raise self.target.gone(error) from error
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


def _runs(mappings: Iterable[Mapping]) -> Iterable[list[Mapping]]:
    """Yield neighbours in the list that are of one kind."""
    for _, run in itertools.groupby(
        mappings, key=lambda mapping: (mapping.kind, mapping.page_size)
    ):
        yield list(run)
