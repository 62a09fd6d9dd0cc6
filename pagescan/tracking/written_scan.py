"""Finds the written pages of registered mappings, in two stages."""

import os
from itertools import chain

from pagescan import native
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category
from pagescan.model.ranges import whole_pages
from pagescan.native import Columns, Rule
from pagescan.scanner.protect import protect_regions
from pagescan.scanner.scanner import JOIN_GAP, Scanner
from pagescan.scanner.spans import as_spans
from pagescan.scanner.stages import look_stages
from pagescan.tracking.huge_pages import HugePages


class WrittenScan:
    """Scans one target for written pages."""

    def __init__(self, scanner: Scanner, uffd: int, huge: HugePages) -> None:
        """Scan with a scanner; protected huge pages are added to `huge`."""
        self.scanner = scanner
        self._uffd = uffd
        self._huge = huge

    def scan(self, mappings: MappingSet, *, rearm: bool, returned: Category) -> Columns:
        """Scan in two stages: candidates by the kernel's fast path, then categories."""
        spans, stages = look_stages(mappings, rearm=rearm, returned=returned)
        candidates, gone = stages.candidates, stages.gone
        found = self.scanner.scan_ranges(
            spans, candidates, join_gap=JOIN_GAP, kept_as=(mappings, "candidates")
        )
        if rearm:  # before they are protected, because the next store splits them
            files = [rule.label for rule in candidates if rule.whole_range]
            self._huge.learn_of(self.scanner, found, *files)
        # First, because a store after this protection shows in the following scan.
        dropped = self._protect_dropped(found, gone) if gone else Columns.empty()
        written = self.scanner.scan_ranges(as_spans(found), stages.exact)
        if dropped.starts:
            written = native.overlay(dropped, written, outside=True)
        return self.without_own(written, found, written)

    def _protect_dropped(self, found: Columns, gone: dict[int, Rule]) -> Columns:
        """Get, and then protect, the candidates that are empty entries.

        They were written, and then dropped or paged out. A store between the two steps
        is in this answer.
        """
        dropped = Columns.empty()
        for label, rule in gone.items():
            asked = native.relabel(found, {label: 0})  # the only rule
            empty = self.scanner.scan_ranges(as_spans(asked), [rule])
            protect_regions(self.scanner, empty, rule.align, self._uffd)
            dropped = native.overlay(dropped, empty, outside=True)
        return dropped

    def without_own(self, found: Columns, *buffers: Columns) -> Columns:
        """Leave out the pages that only this look has written, in its own process.

        A page filled by one of the look's arrays contains no other object. Pages shared
        with other objects are reported, because leaving them out could be a miss.
        """
        if self.scanner.target.pid != os.getpid():
            return found
        size = self.scanner.target.facts.page_size
        own = whole_pages(chain.from_iterable(buffers), size)
        return native.outside(found, *own)
