"""Arming: registers mappings with the userfaultfd and write-protects them, by kind.

Populated private memory is protected by the scan, entry by entry: a hole costs
nothing. Shared memory and hugetlb are protected whole (UFFDIO_WRITEPROTECT puts
markers into the holes): page tables are paid for them, up to a limit.
"""

import contextlib
import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pagescan import native
from pagescan.model.errors import from_oserror
from pagescan.model.mapping_set import Covers, MappingSet, bounds_of, wholes_of
from pagescan.model.memory import (
    HUGE_PAGE,
    NEVER_WRITABLE,
    PAGE_SIZE,
    Kind,
    Mapping,
    Untracked,
)
from pagescan.model.ranges import Ranges, unlabelled
from pagescan.model.units import format_size
from pagescan.native import Columns
from pagescan.scanner.protect import protect_regions
from pagescan.scanner.rules import (
    PRIVATE,
    new_memory_rule,
    one_rule,
    present_rule,
    protection_scan,
    stale_rule,
)
from pagescan.scanner.scanner import Scanner
from pagescan.scanner.spans import as_spans, spans_of
from pagescan.target.maps import open_maps, read
from pagescan.target.selection import Selection
from pagescan.tracking.growing_ends import End
from pagescan.tracking.huge_pages import HugePages, noticing
from pagescan.tracking.mapping_count import most_mappings

MAX_TABLES = 16 << 20
_ENTRY = 8  # bytes of page table per page
_DEV_MEMORY = ("/dev/shm/", "/dev/zero", "/dev/hugepages/")  # noqa: S108 - names only

_WHY = {
    errno.EBUSY: "another userfaultfd has it: the target's own or another session's",
    errno.EPERM: NEVER_WRITABLE,
    errno.EINVAL: "the kernel does not let this mapping be registered",
    errno.ENOMEM: "the target has reached its limit of mappings (vm.max_map_count)",
}
_NEAR_THE_LIMIT = "the target is near its limit of mappings: vm.max_map_count, less 5 %"


@dataclass(slots=True)
class Armed:
    """The state of a tracked target; its keeper stores it between commands.

    Attributes:
        selection: The user's selection; later mappings are compared with it.
        untracked: The parts of the selection that cannot be tracked, and why.
        tracked_bytes: Length of all registered memory.
        tables_left: Bytes of page tables that holes of shared memory may still cost.
        epoch: How often everything has been re-protected since arming.
        alike: Neighbouring mappings that looked alike before arming.
        huge: The huge pages among the memory when it was protected.
        ends: The growing ends, which are compared instead of registered.
    """

    selection: Selection
    untracked: list[Untracked] = field(default_factory=list)
    tracked_bytes: int = 0
    tables_left: int = MAX_TABLES
    epoch: int = 0
    alike: int = 0
    huge: HugePages = field(default_factory=HugePages)
    ends: list[End] = field(default_factory=list)


class Armer:
    """Registers and protects mappings of one target through its userfaultfd."""

    def __init__(self, scanner: Scanner, uffd: int, armed: Armed) -> None:
        """Work on `armed`, which is changed in place."""
        self.scanner = scanner
        self.uffd = uffd
        self.armed = armed
        self.mappings = 0  # the target's mappings, as far as known
        self._is_full = False

    def arm(self, mappings: Sequence[Mapping]) -> bool:
        """Register and protect the selected mappings; return whether any could be.

        PROT_NONE reservations are registered and not protected: parts that the target
        makes usable later are then registered, and stay one mapping with the rest.
        """
        chosen = self.armed.selection.select(mappings)
        self.mappings = len(mappings)
        reserved = MappingSet(mapping for mapping in chosen if mapping.reserved)
        populated = self.populated_outside(reserved)
        inhabited = set(native.shares(populated, *reserved.bounds).ranges)
        empty = {
            mapping.start: mapping
            for index, mapping in enumerate(reserved)
            if index not in inhabited
        }
        registered = self.register(
            [
                mapping
                for mapping in chosen
                if mapping.kind in PRIVATE or mapping.start not in empty
            ],
            mappings,
        )
        used = [mapping for mapping in registered if mapping.start not in empty]
        self.protect(used)
        self.protect_whole(used)
        return bool(registered)

    def register(
        self, mappings: Sequence[Mapping], listed: Sequence[Mapping]
    ) -> list[Mapping]:
        """Register mappings, without protection; return the registered ones.

        The others are added to `untracked`, with the reason.

        Args:
            mappings: Whole mappings, or parts of some.
            listed: All mappings of the target, as they were read.
        """
        if not mappings:
            return []
        known = len(self.armed.untracked)
        self._is_full = self.is_full()
        stale = self.stale(mappings)
        allowed = [mapping for mapping in mappings if self._is_allowed(mapping)]
        errors = self._register_all(allowed, listed)
        registered = []
        for mapping, error in zip(allowed, errors, strict=True):
            if error:
                self._leave_refused(mapping, error)
            else:
                registered.append(mapping)
        if more := self.armed.untracked[known:]:
            # A part that is left out now may have been left out before it grew.
            covers = Covers(more)
            earlier = self.armed.untracked[:known]
            kept = [item for item in earlier if item not in covers]
            self.armed.untracked[:] = kept + more
        if errno.EINVAL in errors:
            self.forget_unmapped(read(self.scanner.target))
        if stale.starts:
            self._lift(stale)
        return registered

    def stale(self, mappings: Iterable[Mapping]) -> Columns:
        """List pages of unregistered private memory that have the protection's bit.

        mremap(2) of registered memory next to other registered memory makes one mapping
        of both, and then the kernel unregisters all of it: without EVENT_REMAP it does
        so with what was moved. The bits of the neighbour stay, and a store does not
        clear them. Source: mremap_userfaultfd_prep() in fs/userfaultfd.c.
        """
        private = MappingSet(item for item in mappings if item.kind in PRIVATE)
        spans = spans_of(private, one_rule(private))
        return self.scanner.scan_ranges(spans, [stale_rule(registered=False)])

    def _lift(self, stale: Columns) -> None:
        """Lift these pages' protection, which hides their writes: they count as new."""
        spans = as_spans(unlabelled(Ranges(*stale[:2])))
        stale = self.scanner.scan_ranges(spans, [stale_rule(registered=True)])
        protect_regions(self.scanner, stale, HUGE_PAGE, self.uffd, lift=True)

    def protect(self, registered: Sequence[Mapping]) -> None:
        """Protect the populated pages of private mappings; remember huge pages."""
        spans, rules = protection_scan(MappingSet(registered))
        self.armed.huge.learn(self.scanner.scan_ranges(spans, noticing(rules)))

    def protect_whole(self, registered: Sequence[Mapping]) -> Columns:
        """Protect the shared and hugetlb ones among registered mappings, holes too.

        Returns:
            The pages that were populated before or after the protection was set, tagged
            as written: pages populated in between appear in one of the two lists.
        """
        shared = MappingSet(item for item in registered if item.kind not in PRIVATE)
        if not shared:
            return Columns.empty()
        before = self.populated(shared)
        self.armed.huge.learn_of(self.scanner, before)
        for mapping in shared:
            self._protect_whole(mapping)
        return native.overlay(before, self.populated(shared), outside=True)

    def populated(self, mappings: MappingSet) -> Columns:
        """List the present pages of shared mappings, tagged as written."""
        spans = spans_of(mappings, one_rule(mappings))
        return self.scanner.scan_ranges(spans, [present_rule()])

    def populated_outside(self, mappings: MappingSet) -> Columns:
        """List populated pages that are not registered: new memory.

        One general scan does it: the kernel skips registered mappings whole.
        """
        keys = [key for key in mappings.kinds if key[0] is not Kind.SPECIAL]
        indices = {key: index for index, key in enumerate(keys)}
        rules = [new_memory_rule(*key) for key in keys]
        # Most memory is skipped: a second thread would have nothing to do.
        found = self.scanner.scan_ranges(
            spans_of(mappings, indices, over_holes=True),
            rules,
            threads=1,
            kept_as=(mappings, "new memory"),
        )
        # A mapping that appeared in a hole is for the next look.
        return native.inside(found, *mappings.bounds) if found.starts else found

    def disarm(self, mappings: Iterable[Mapping]) -> None:
        """Unregister all mappings, files first; others may hold the fd as well.

        Parts that would crash Linux before 6.17 are left to the last close of the fd.
        """
        from pagescan.tracking.unregistering import MapsLine, tmpfs_of, unregister_all

        untracked = Covers(self.armed.untracked)
        mapped = list(mappings)
        by_row = {mapping.start: mapping for mapping in mapped}

        def unregister(row: MapsLine, align: int) -> None:
            mapping = by_row[row.start]
            if mapping not in untracked:
                self._unregister(mapping, align)

        rows = [MapsLine._make(mapping) for mapping in mapped]
        target = self.scanner.target
        with native.keeping_the_processor(self.scanner.pace):
            unregister_all(rows, tmpfs_of(target.pid), unregister, target.pagemap)

    def _unregister(self, mapping: Mapping, align: int) -> None:
        native.uffd_unregister(
            self.uffd,
            self.scanner.target.pagemap,
            mapping.start,
            mapping.end,
            align=align,
            pace=self.scanner.pace,
            meter=self.scanner.meter,
        )

    def is_full(self) -> bool:
        """Whether the target is too near its limit of mappings for more."""
        return self.mappings >= most_mappings()

    def unregister(self, part: Mapping) -> None:
        """Unregister a part of anonymous memory; the rest stays tracked."""
        with contextlib.suppress(OSError):
            self._unregister(part, HUGE_PAGE)

    def _is_allowed(self, mapping: Mapping) -> bool:
        """Whether a mapping may be registered; its page tables are paid for."""
        kind = mapping.kind
        if kind is Kind.SPECIAL or _is_device(mapping):
            self._leave_out(mapping, _WHY[errno.EINVAL])
            return False
        if self._is_full:
            self._leave_out(mapping, _NEAR_THE_LIMIT)
            return False
        if kind is Kind.SHARED:
            tables = self._tables_of_holes(mapping)
            if tables > self.armed.tables_left:
                self._leave_out(
                    mapping,
                    f"its holes would cost {format_size(tables)} of page tables,"
                    f" {format_size(self.armed.tables_left)} are left (--max-tables)",
                )
                return False
            self.armed.tables_left -= tables
        return True

    def _register_all(
        self, mappings: Sequence[Mapping], listed: Sequence[Mapping]
    ) -> list[int]:
        """Register mappings; return 0 or the errno of each."""
        if not mappings:
            return []
        parts = [
            native.Listed(
                part.start, part.end, whole.start, whole.end, part.inode, part.shared
            )
            for part, whole in zip(mappings, wholes_of(mappings, listed), strict=True)
        ]
        scanner = self.scanner
        maps = self._open_maps()
        try:
            with native.keeping_the_processor(scanner.pace):
                errors = native.uffd_register_parts(
                    self.uffd, maps, parts, pace=scanner.pace, meter=scanner.meter
                )
        finally:
            if maps >= 0:
                os.close(maps)
        self.armed.tracked_bytes += sum(
            mapping.length
            for mapping, error in zip(mappings, errors, strict=True)
            if not error and not mapping.reserved
        )
        return errors

    def _open_maps(self) -> int:
        """Return the open maps, to ask whether a mapping has changed; -1: do not ask.

        The selected part of a mapping stays a part, whatever becomes of the mapping.
        """
        if self.armed.selection.ranges:
            return -1
        try:
            return open_maps(self.scanner.target.pid)
        except OSError:
            return -1

    def _leave_refused(self, mapping: Mapping, code: int) -> None:
        """Leave out a mapping that the kernel does not register, for this errno."""
        error = OSError(code, os.strerror(code))
        if code not in _WHY:
            raise from_oserror(
                error,
                doing=f"register {mapping.label} of {self.scanner.target}",
                pid=self.scanner.target.pid,
                call="ioctl(UFFDIO_REGISTER)",
                range=(mapping.start, mapping.end),
            ) from error
        if not self.scanner.target.has_address_space():
            raise self.scanner.target.gone(error) from error
        if mapping.kind is Kind.SHARED:
            self.armed.tables_left += self._tables_of_holes(mapping)
        self._leave_out(mapping, _WHY[code])

    def _tables_of_holes(self, mapping: Mapping) -> int:
        """Return the most bytes of page tables that markers in its holes need."""
        present = self.populated(MappingSet([mapping]))
        pages = (sum(present.ends) - sum(present.starts)) // PAGE_SIZE
        return (mapping.length // PAGE_SIZE - pages) * _ENTRY

    def _protect_whole(self, mapping: Mapping) -> None:
        try:
            native.uffd_protect(
                self.uffd,
                mapping.start,
                mapping.end,
                align=mapping.page_size or HUGE_PAGE,
                pace=self.scanner.pace,
                meter=self.scanner.meter,
            )
        except OSError as error:
            if error.errno == errno.ESRCH:
                raise self.scanner.target.gone(error) from error
            # ENOENT: a part has been unmapped. The rest is not protected.
            self._leave_out(mapping, "it was unmapped in part while it was armed")

    def forget_unmapped(self, there: Sequence[Mapping]) -> None:
        """Forget untracked entries whose mapping has been unmapped."""
        starts, ends = bounds_of(there)

        def is_there(item: Untracked) -> bool:
            # the first that ends behind the start
            index = bisect_right(ends, item.start)
            return index < len(starts) and starts[index] < item.end

        self.armed.untracked[:] = filter(is_there, self.armed.untracked)

    def _leave_out(self, mapping: Mapping, why: str) -> None:
        self.armed.untracked.append(
            Untracked(mapping.start, mapping.end, mapping.label, why)
        )


def _is_device(mapping: Mapping) -> bool:
    """Whether it is device memory, which kernels before 6.12.105 allow to register."""
    return (
        mapping.name.startswith("/dev/")
        and not mapping.page_size
        and not mapping.name.startswith(_DEV_MEMORY)
    )
