"""The scan of many ranges, in slices that spare the target's mmap lock.

The rules (`scanner.rules`) decide, for each kind of mapping, what to ask the kernel and
how to read its answer.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

from pagescan.model.errors import from_oserror
from pagescan.model.mapping_set import MappingSet, NamedScan
from pagescan.model.memory import HUGE_PAGE, PAGE_SIZE
from pagescan.model.ranges import length_of
from pagescan.model.results import Cost
from pagescan.native import (
    ALL_PAGES,
    LONGEST_SLICE,
    LONGEST_TO_PROTECT,
    Columns,
    Meter,
    Pace,
    PreparedScan,
    Rule,
    Spans,
    Windows,
)
from pagescan.scanner.query import Query
from pagescan.scanner.rules import query_rule
from pagescan.scanner.spans import spans_of, split
from pagescan.target.kernel import check_known
from pagescan.target.process import Target, read_status

# Parts of a scan per thread: a thread that is done with its part takes the next one.
_PARTS = 8
# Up to this many regions are scanned one by one, which walks less than one scan of all.
FEW_REGIONS = 4096
# For longer ranges, the kernel is asked how much of them has page tables.
_VAST = 16 << 30
_NO_END = 1 << 56
# Walking a gap of up to this many bytes costs less than another call.
JOIN_GAP = 128 << 10


class Observer(Protocol):
    """Is told when pages are protected, to find out who wrote them before."""

    def look_begins(self) -> None:
        """A look begins: nothing has been protected yet."""

    def protected(self, windows: Windows) -> None:
        """Pages were protected by these calls."""

    def look_ends(self) -> None:
        """The look has found all its pages."""


class Keeper(Protocol):
    """Keeps prepared scans between looks, as a `MappingSet` does."""

    scans: dict[str, NamedScan]
    """The scans by name."""


class Scanner:
    """Scans of one target: keeps the pace from call to call, and counts the cost.

    Attributes:
        target: Whose address space.
        pace: How its mmap lock is spared.
        meter: What all scans cost so far.
        observer: Told of the calls that protect pages; None: nobody asks.
    """

    def __init__(
        self, target: Target, pace: Pace | None = None, *, threads: int | None = None
    ) -> None:
        """Look at an open target; by default with a thread per processor, at most 4."""
        self.target = target
        self.threads = threads or min(4, len(os.sched_getaffinity(0)))
        self.pace = pace or Pace()
        self.observer: Observer | None = None
        self.meter = Meter()

    def take_cost(self, stopped_ns: int = 0) -> Cost:
        """Return the cost since the previous call, and start counting from zero."""
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

    def scan(self, mappings: MappingSet, query: Query) -> Columns:
        """Return the regions that match a query, ascending, not cut at mappings."""
        check_known(query.used)
        rules = {
            key: rule
            for key in mappings.kinds
            if (rule := query_rule(key[0], query, key[1])) is not None
        }
        indices = {key: index for index, key in enumerate(rules)}
        limit = query.page_limit
        spans = spans_of(mappings, indices)
        return self.scan_ranges(spans, list(rules.values()), max_pages=limit)

    def scan_ranges(
        self,
        spans: Spans,
        rules: Sequence[Rule],
        *,
        max_pages: int = ALL_PAGES,
        join_gap: int = 0,
        threads: int | None = None,
        kept_as: tuple[Keeper, str] | None = None,
    ) -> Columns:
        """Scan ranges, each by its rule; errors become TargetError.

        Args:
            spans: The ranges.
            rules: The rules that the ranges refer to.
            max_pages: The most pages in the answer.
            join_gap: Regions closer than this many bytes become one.
            threads: The most threads; None: as many as the scanner may have.
            kept_as: What keeps the prepared scan, and its name there.
        """
        if not spans.starts:
            return Columns.empty()
        threads = 1 if max_pages != ALL_PAGES else threads or self.threads
        timed = self.observer is not None and any(rule.protect for rule in rules)
        question = (
            spans, self.target.pagemap, tuple(rules), max_pages, join_gap, threads,
            timed,
        )  # fmt: skip
        scan = _taken(kept_as, question) or _prepared(*question)
        with self._told(length_of(spans)):
            regions = scan.scan(self.pace, self.meter, self._longest(spans, rules))
        self._tell(scan)
        # Kernels before 6.12.117 answer with no regions instead of ESRCH.
        if not regions.starts and not self.target.has_address_space():
            raise self.target.gone()
        if kept_as is not None:
            keeper, name = kept_as
            keeper.scans[name] = NamedScan(question, scan)
        return regions

    def _tell(self, scan: PreparedScan) -> None:
        if self.observer is not None:
            self.observer.protected(scan.windows())

    @contextlib.contextmanager
    def _told(self, length: int) -> Iterator[None]:
        """Report the progress of a scan, and turn its errors into the target's."""
        progress = self.pace.progress
        if progress is not None:
            progress.begin(length)
        try:
            yield
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

    def _longest(self, spans: Spans, rules: Sequence[Rule]) -> int:
        """Return the most bytes that one call may walk."""
        protects = any(rule.protect for rule in rules)
        longest = LONGEST_TO_PROTECT if protects else LONGEST_SLICE
        few = self._has_few_tables(spans, longest // HUGE_PAGE)
        return _NO_END if few else longest

    def _has_few_tables(self, spans: Spans, few: int) -> bool:
        """Whether spans are all but empty: then one call may walk what is reserved.

        What takes time is page tables, and huge pages that have none. Where there are
        not more of them than in one slice that is dense, no call needs another end.
        """
        reach = spans.ends[-1] - spans.starts[0]
        many = len(spans.starts) > FEW_REGIONS  # each is a call of its own
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


def _parts_of(spans: Spans, rules: Sequence[Rule], threads: int) -> list[Spans]:
    """Divide ranges among threads, at whole huge pages."""
    if threads <= 1:
        return [spans]
    align = max(HUGE_PAGE, *(rule.align for rule in rules))
    return split(spans, _PARTS * threads, align)


def _prepared(
    spans: Spans,
    pagemap: int,
    rules: Sequence[Rule],
    max_pages: int,
    join_gap: int,
    threads: int,
    timed: bool,
) -> PreparedScan:
    """Prepare a scan that answers a question; `timed`: with each call's clock."""
    scan = PreparedScan(
        pagemap,
        _parts_of(spans, rules, threads),
        rules,
        threads=threads,
        max_pages=max_pages,
        join_gap=join_gap,
    )
    if timed:
        scan.time_protection()
    return scan


def _taken(
    kept_as: tuple[Keeper, str] | None, question: tuple[object, ...]
) -> PreparedScan | None:
    """Take a prepared scan out, so that nobody else uses it, nor a failed one again."""
    if kept_as is None:
        return None
    keeper, name = kept_as
    kept = keeper.scans.pop(name, None)
    return kept.scan if kept is not None and kept.question == question else None
