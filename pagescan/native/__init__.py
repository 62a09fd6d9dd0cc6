"""The only door to C: typed wrappers around the shim, with one errno convention.

Every function raises `OSError` with the errno that the shim returned; `from_oserror` in
`pagescan.model.errors` explains it, given the step that failed. Addresses are bytes,
intervals half-open, columns are array('Q').
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import errno
import os
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pagescan.native import _shim
from pagescan.native._shim import ffi, lib

CATEGORY_BITS = 9
ALL_PAGES = (1 << 64) - 1

UFFD_FEATURES = 0x8000 | 0x2000 | 0x1000
"""WP_ASYNC, WP_UNPOPULATED, WP_HUGETLBFS_SHMEM: exact tracking needs them."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
# Initial room for regions, small because most looks find few; more is made when needed.
_FEW_ROWS = 256
_ROWS = 4096
_ROOM = array("Q", [0])
# Initial room for the result of cutting a list of regions; more is made when needed.
_MORE_ROWS = 64
MAX_STALL_NS = 200_000
"""The default of how long one call may hold the target's mmap lock."""

# The remaining work must take longer: on an idle processor a thread begins in 0.05 ms.
_WORTH_A_THREAD_NS = 200_000
# The cost of a call depends on pages and page tables, so slices are numbers of pages.
# The times are those of pages of 4 KiB.
# Each kind of call has its own speed, so each scan adapts its slices from the start:
# 4096 dense pages take 0.15 ms on the kernel's general path, and 0.3 ms in
# UFFDIO_WRITEPROTECT.
_FIRST_SLICE = 4096 * _PAGE
_SHORTEST_SLICE = 512 * _PAGE
# A dense slice after a long hole takes 0.1 ms on the kernel's fast path.
LONGEST_SLICE = 65536 * _PAGE
# For a call that protects: 20 us per 512 populated pages.
LONGEST_TO_PROTECT = 16384 * _PAGE
# For a call that unregisters: 43 us per 256 populated pages.
_FIRST_TO_UNREGISTER = 512 * _PAGE
_NS_TO_UNREGISTER = 195  # per page: 1024 pages in 200 us
# for a signal that the kernel delivered to another thread of this process
_WAIT_MS = 50
_SHORTEST_TURN = 0.1  # seconds


class Columns(NamedTuple):
    """Ascending regions, one column per fact; each is an array('Q') of equal length."""

    starts: array[int]
    ends: array[int]
    categories: array[int]

    @classmethod
    def empty(cls) -> Columns:
        """Return columns without rows."""
        return cls(array("Q"), array("Q"), array("Q"))


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


class Progress(Protocol):
    """The receiver of a scan's progress, called every 50 ms.

    It also receives the progress of writing a result, in rows instead of bytes.
    """

    def begin(self, total: int) -> None:
        """Begin with this many bytes to walk; 0: the work is over."""

    def advance(self, done: int) -> None:
        """Add this many bytes that were walked."""


@dataclass(slots=True)
class Pace:
    """How long one call may hold the target's mmap lock, and the pauses between calls.

    Attributes:
        max_stall_ns: Limit of one call, kept by adapting its length.
        pause_ns: Pause after a call has held the lock; 0: none.
        progress: The receiver of the progress.
    """

    max_stall_ns: int = MAX_STALL_NS
    # in a shorter pause a waiting thread would not be awake yet
    pause_ns: int = 100_000
    held_ns: int = 0
    progress: Progress | None = None


@dataclass(slots=True)
class Meter:
    """The cost of the calls so far."""

    scan_ns: int = 0
    max_wait_ns: int = 0
    ioctls: int = 0
    pages_walked: int = 0

    def add(self, cost: Any) -> None:
        """Add the cost that one call of the shim reports."""
        self.scan_ns += cost.scan_ns
        self.max_wait_ns = max(self.max_wait_ns, cost.max_wait_ns)
        self.ioctls += cost.ioctls
        self.pages_walked += cost.pages_walked

    def count(self, begun_ns: int, calls: int = 1) -> None:
        """Count calls that were made here, without a break, from a moment to now."""
        taken = time.perf_counter_ns() - begun_ns
        self.scan_ns += taken
        self.max_wait_ns = max(self.max_wait_ns, taken)
        self.ioctls += calls


class MapsRows(NamedTuple):
    """/proc/PID/maps, one row per line; every column is a list of int."""

    page_size_known: bool
    start: Sequence[int]
    end: Sequence[int]
    offset: Sequence[int]
    inode: Sequence[int]
    device: Sequence[int]
    flags: Sequence[int]
    name_at: Sequence[int]
    name_length: Sequence[int]
    page_size: Sequence[int]


class Attached(NamedTuple):
    """The result of `attach`, or its state when it failed.

    Attributes:
        method: What would have restored the thread: frame, slack, rop; plain: nothing.
        step: The step that failed: open, gadget, seccomp, seize, stop, exec, abi,
            dispatch, facts, table, call, take, arch; or done.
        allowed: Start and length of the exempt range of calls; (0, 0): everywhere.
    """

    uffd: int
    tid: int
    method: str
    step: str
    attempts: int
    left_fd: int
    stopped_ns: int
    allowed: tuple[int, int]
    error: int
    """A positive errno; 0: success."""


def _check(code: int) -> int:
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return code


def _u64(column: array[int]) -> Any:
    return ffi.from_buffer("uint64_t[]", column)


def _i64(column: array[int]) -> Any:
    return ffi.from_buffer("int64_t[]", column)


def _pace(pace: Pace, slice_max: int = LONGEST_SLICE) -> tuple[Any, ...]:
    """Return the fields of struct ps_pace, in order."""
    return (
        pace.max_stall_ns,
        pace.pause_ns,
        _FIRST_SLICE,
        _SHORTEST_SLICE,
        slice_max,
        pace.held_ns,
        ffi.NULL,
    )


def scan(
    pagemap: int,
    spans: Spans,
    rules: Sequence[Rule],
    *,
    max_pages: int = ALL_PAGES,
    join_gap: int = 0,
    pace: Pace,
    meter: Meter,
) -> Columns:
    """Scan ranges, each by its rule, and return the regions that match.

    Args:
        pagemap: An open /proc/PID/pagemap.
        spans: Page-aligned ranges.
        rules: The rules that `spans.rules` refers to.
        max_pages: Limit of pages.
        join_gap: Regions of equal categories closer than this many bytes become one.
        pace: How the target's mmap lock is spared; it adapts from call to call.
        meter: The cost is added to it.

    Raises:
        OSError: ESRCH, the address space is gone; EINVAL, the kernel does not know a
            category, or a huge page was cut.
    """
    prepared = PreparedScan(
        pagemap, [spans], rules, max_pages=max_pages, join_gap=join_gap
    )
    return prepared.scan(pace, meter)


class PreparedScan:
    """A scan prepared so that its `run` is one call of the shim.

    It is for scans that are repeated, and for scans of this process itself, where all
    memory that Python touches counts as written.

    Attributes:
        rows: The arrays to which the regions of each part are written.
    """

    def __init__(
        self,
        pagemap: int,
        parts: Sequence[Spans],
        rules: Sequence[Rule],
        *,
        threads: int = 1,
        max_pages: int = ALL_PAGES,
        join_gap: int = 0,
        room: int | None = None,
    ) -> None:
        """Prepare a scan; further arguments are those of `scan`.

        Args:
            pagemap: As for `scan`.
            parts: Ranges for one thread each; ascending.
            rules: The rules that the parts refer to.
            threads: Limit of threads.
            max_pages: Per part.
            join_gap: As for `scan`.
            room: Initial capacity in regions per part; None: small.
        """
        # The shim has only their addresses.
        c_rules = ffi.new("struct ps_rule[]", [_c_rule(rule) for rule in rules])
        c_parts = ffi.new("struct ps_part[]", len(parts))
        self._held = (parts, c_rules, c_parts)
        self._parts = list(c_parts)
        self.rows = [Columns.empty() for _ in parts]
        for part, spans, rows in zip(self._parts, parts, self.rows, strict=True):
            part.starts, part.ends, part.which = (_u64(column) for column in spans)
            part.ranges = len(spans.starts)
            _make_room(part.out, rows, room or _FEW_ROWS)
        self._job = ffi.new("struct ps_job *")
        self._job.pagemap = pagemap
        self._job.threads = threads
        self._job.worth_ns = _WORTH_A_THREAD_NS
        self._job.parts = c_parts
        self._job.count = len(parts)
        self._job.rules = c_rules
        self._job.join_gap = join_gap
        self._job.max_pages = max_pages
        self.begin(Pace())

    def begin(self, pace: Pace, slice_max: int = LONGEST_SLICE) -> None:
        """Restart: nothing scanned and nothing found."""
        self._job.pace = _pace(pace, slice_max)
        lib.ps_scan_begin(self._job)
        self._code = 1

    def run(self) -> None:
        """Scan until the end, or until the room for rows is used up."""
        self._code = lib.ps_scan(self._job)
        while self._code == 1 and not any(map(_is_full, self._parts)):
            self._code = lib.ps_scan(self._job)

    def scan(self, pace: Pace, meter: Meter, slice_max: int = LONGEST_SLICE) -> Columns:
        """Do the whole scan: begin, run, finish.

        Args:
            pace: How the target's mmap lock is spared; it adapts from call to call.
            meter: The cost is added to it.
            slice_max: Limit of bytes per call, however fast the calls are.

        Raises:
            OSError: As for `native.scan`.
        """
        self.begin(pace, slice_max)
        return self.finish(pace, meter)

    def finish(self, pace: Pace, meter: Meter) -> Columns:
        """Scan the rest, and return the regions; only once.

        Raises:
            OSError: As for `native.scan`.
        """
        job, walked = self._job, 0
        try:
            while self._code:
                self._code = _check(lib.ps_scan(job))
                if self._code:
                    for part, rows in zip(self._parts, self.rows, strict=True):
                        if _is_full(part):
                            _make_room(part.out, rows, _ROWS)
                if pace.progress is not None:
                    walked, before = job.cost.pages_walked, walked
                    pace.progress.advance((walked - before) * _PAGE)
        finally:
            meter.add(job.cost)
            pace.held_ns = job.pace.held_ns
        return self._take() if job.regions else Columns.empty()

    def _take(self) -> Columns:
        """Return the regions; short lists are copied, and their room is used again."""
        found = Columns.empty()
        for index, part in enumerate(self._parts):
            used, rows = part.out.length, self.rows[index]
            if used <= _ROWS:
                for column, row in zip(found, rows, strict=True):
                    column.extend(row[:used])
                continue
            self.rows[index] = fresh = Columns.empty()
            part.out.length = part.out.capacity = 0
            _make_room(part.out, fresh, _FEW_ROWS)
            for row in rows:
                del row[used:]
            if not found.starts:
                found = rows
                continue
            for column, row in zip(found, rows, strict=True):
                column.extend(row)
        return found


def _c_rule(rule: Rule) -> Rule:
    """Return the fields of struct ps_rule, in order: those of Rule are the same."""
    return rule._replace(check_markers=rule.check_markers and not rule.protect)


def _is_full(part: Any) -> bool:
    return bool(part.out.length == part.out.capacity)


def _make_room(out: Any, rows: Columns, least: int) -> None:
    """Make room for more rows behind the existing ones: at least twice as many."""
    extra = bytes(8 * max(least, len(rows.starts)))
    for column in rows:
        column.frombytes(extra)
    out.start, out.end, out.categories = (_u64(column) for column in rows)
    out.capacity = len(rows.starts)


def _columns(columns: Columns, capacity: int) -> Any:
    out = ffi.new("struct ps_columns *")
    buffers = [_u64(column) for column in columns]
    out.start, out.end, out.categories = buffers
    out.capacity = capacity
    out.length = len(columns.starts)
    return out


def address_of(buffer: object) -> int:
    """Return the address of a writable buffer."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(buffer, require_writable=True)))


def uffd_open() -> int:
    """Return a userfaultfd of this process: UFFD_USER_MODE_ONLY, close-on-exec."""
    return _check(lib.ps_uffd_open())


def uffd_api(uffd: int, features: int = UFFD_FEATURES) -> None:
    """Enable the features, once per userfaultfd; EINVAL: the kernel lacks one."""
    _check(lib.ps_uffd_api(uffd, features))


def uffd_register(uffd: int, start: int, end: int, meter: Meter | None = None) -> None:
    """Register mappings for write-protect; errnos as for UFFDIO_REGISTER(2const).

    It is one call, whose length does not depend on the size: no page is visited.
    """
    begun = time.perf_counter_ns()
    code = lib.ps_uffd_register(uffd, start, end)
    if meter is not None:
        meter.count(begun)
    _check(code)


def uffd_unregister(
    uffd: int,
    pagemap: int,
    start: int,
    end: int,
    *,
    align: int,
    pace: Pace,
    meter: Meter,
) -> None:
    """Undo `uffd_register` in one mapping: no protection and no bit remains there.

    It works in slices, and the mapping is two mappings in the meantime. Parts that were
    unmapped are skipped.
    """
    cost = ffi.new("struct ps_cost *")
    done = ffi.new("uint64_t *", start)
    most = max(_FIRST_TO_UNREGISTER, pace.max_stall_ns // _NS_TO_UNREGISTER * _PAGE)
    c_pace = ffi.new("struct ps_pace *", _pace(pace, most))
    c_pace.slice = _FIRST_TO_UNREGISTER
    try:
        while _check(
            lib.ps_uffd_unregister_slices(
                uffd, pagemap, done[0], end, align, c_pace, done, cost
            )
        ):
            pass
    finally:
        meter.add(cost)
        pace.held_ns = c_pace.held_ns


def uffd_is_registered(pagemap: int, start: int) -> bool:
    """Whether the mapping at an address is registered with any userfaultfd."""
    return bool(_check(lib.ps_uffd_is_registered(pagemap, start)))


def uffd_is_of(uffd: int, pagemap: int, start: int, end: int, meter: Meter) -> bool:
    """Whether a userfaultfd belongs to the address space that a pagemap shows.

    The whole mapping [start, end) is registered for a moment; OSError if it cannot be
    registered, or already is.
    """
    begun = time.perf_counter_ns()
    code = lib.ps_uffd_is_of(uffd, pagemap, start, end)
    meter.count(begun, calls=4)
    return bool(_check(code))


def uffd_protect(
    uffd: int,
    start: int,
    end: int,
    *,
    align: int,
    pace: Pace,
    meter: Meter,
    protect: bool = True,
) -> None:
    """Write-protect a registered range and its holes (by markers), or lift that.

    Protecting costs 8 bytes of page table per page of hole, so it is only for shared
    memory and hugetlb.
    """
    cost = ffi.new("struct ps_cost *")
    done = ffi.new("uint64_t *")
    c_pace = ffi.new("struct ps_pace *", _pace(pace))
    try:
        _check(
            lib.ps_uffd_protect(uffd, start, end, protect, align, c_pace, done, cost)
        )
    finally:
        meter.add(cost)
        pace.held_ns = c_pace.held_ns


class Collapse:
    """Makes split huge pages huge again, one mapping after another.

    Attributes:
        at: The address that it has reached.
        only_count: Whether to put nothing back, and count it as lost.
        restored: Bytes that are huge again.
        lost: Bytes that are populated, and not in a huge page.
        denied: The part of them that only lacks CAP_SYS_NICE.
    """

    def __init__(self, pagemap: int, pidfd: int, size: int) -> None:
        """Prepare it for a target.

        Args:
            pagemap: The target's open /proc/PID/pagemap.
            pidfd: The target's; -1: this process.
            size: Bytes of a huge page.
        """
        self._job = ffi.new("struct ps_collapse *")
        self._job.pagemap, self._job.pidfd, self._job.size = pagemap, pidfd, size
        self.only_count = False
        self.denied = 0

    def run(
        self,
        start: int,
        end: int,
        file: int,
        offset: int,
        pace: Pace,
        meter: Meter,
        interrupted: Callable[[], bool],
    ) -> bool:
        """Put back the huge pages of [start, end), a part of one mapping.

        Args:
            start: A multiple of the size.
            end: Exclusive; a part of a huge page is left out.
            file: The file behind shared memory; -1: private memory.
            offset: The offset of `start` in that file.
            pace: How the target's mmap lock is spared.
            meter: The cost is added to it.
            interrupted: Called every 50 ms; if True, the rest is only counted.

        Returns:
            Whether it was interrupted.

        Raises:
            OSError: ESRCH, the address space is gone.
        """
        job, stopped = self._job, False
        job.start = job.at = start
        job.end, job.file, job.offset = end, file, offset
        cost = ffi.new("struct ps_cost *")
        c_pace = ffi.new("struct ps_pace *", _pace(pace))
        try:
            while True:
                before = job.denied
                job.refused = job.refused or self.only_count
                more = _check(lib.ps_collapse(job, c_pace, cost))
                if not self.only_count:
                    self.denied += job.denied - before
                if not more:
                    return stopped
                if not stopped and interrupted():
                    self.only_count = stopped = True
        finally:
            meter.add(cost)
            pace.held_ns = c_pace.held_ns

    @property
    def at(self) -> int:
        """The address that it has reached."""
        return int(self._job.at)

    @property
    def restored(self) -> int:
        """Bytes that are huge again."""
        return int(self._job.restored)

    @property
    def lost(self) -> int:
        """Bytes that are populated, and not in a huge page."""
        return int(self._job.lost)


def swapped_pages(file: int, offset: int, length: int) -> int:
    """Return how many pages of a part of a shared-memory file are on swap.

    Raises:
        OSError: ENOSYS, the kernel has no cachestat(2); EPERM.
    """
    counts = ffi.new("uint64_t[2]")
    _check(lib.ps_file_pages(file, offset, length, counts, counts + 1))
    return int(counts[1])


def whole_units(regions: Columns, size: int, left_out: int | None = None) -> Columns:
    """Return the whole, aligned units of that many bytes inside ascending regions.

    Regions with the categories `left_out` are skipped.
    """
    none = ALL_PAGES if left_out is None else left_out
    rows = len(regions.starts)
    c_regions = _columns(regions, rows)
    return _fill(rows, lambda out: lib.ps_whole_units(c_regions, size, none, out))


@contextlib.contextmanager
def keeping_the_processor(pace: Pace) -> Iterator[None]:
    """Keep the processor for this thread during the block: SCHED_RR, if allowed.

    On a busy machine a thread that holds the target's mmap lock may lose its processor
    for 4 ms, and the target waits as long. It is for loops that pause and end soon.
    """
    before = os.sched_getscheduler(0)
    if not pace.pause_ns or before != os.SCHED_OTHER:
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:  # CAP_SYS_NICE, or RLIMIT_RTPRIO
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))


def parse_maps(text: bytes, maps: int = -1, meter: Meter | None = None) -> MapsRows:
    """Parse the text of /proc/PID/maps.

    Args:
        text: Whole lines.
        maps: The open file, for the page sizes (PROCMAP_QUERY, 6.11); -1: do not ask.
        meter: What asking costs is added here.

    Raises:
        OSError: EBADMSG, a line is malformed.
    """
    rows = text.count(b"\n") + 1
    columns = [array("Q", bytes(8 * rows)) for _ in range(9)]
    out = ffi.new("struct ps_maps *")
    (
        out.start,
        out.end,
        out.offset,
        out.inode,
        out.device,
        out.flags,
        out.name_at,
        out.name_length,
        out.page_size,
    ) = (_u64(column) for column in columns)
    out.capacity = rows
    code = lib.ps_maps_parse(ffi.from_buffer("char[]", text), len(text), maps, out)
    if meter is not None:
        meter.add(out.cost)
    known = maps >= 0 and code != -errno.ENOTTY
    if code != -errno.ENOTTY:
        _check(code)
    count = out.length
    return MapsRows(known, *(column[:count].tolist() for column in columns))


def join(
    regions: Columns, starts: array[int], ends: array[int]
) -> tuple[Columns, array[int]]:
    """Cut ascending regions at the borders of ascending ranges.

    Returns:
        The regions, and the index of the range of each: array('q'), -1 for none.
    """
    c_regions = _columns(regions, len(regions.starts))
    rows = len(regions.starts) + _MORE_ROWS
    while True:
        joined, out = _empty_rows(rows)
        owners = array("q", bytes(8 * rows))
        if not _ranged(lib.ps_join, c_regions, starts, ends, out, _i64(owners)):
            break
        rows = out.length
    for column in (*joined, owners):
        del column[out.length :]
    return joined, owners


def inside(regions: Columns, starts: array[int], ends: array[int]) -> Columns:
    """Return the parts of ascending regions that lie inside some ranges.

    Args:
        regions: Ascending and disjoint.
        starts: Starts of the ranges, ascending and disjoint: they may touch.
        ends: Ends of the ranges.
    """
    c_regions = _columns(regions, len(regions.starts))
    return _fill(
        len(regions.starts) + _MORE_ROWS,
        lambda out: _ranged(lib.ps_inside, c_regions, starts, ends, out),
    )


def outside(regions: Columns, starts: array[int], ends: array[int]) -> Columns:
    """Return the parts of ascending regions that lie outside all of some ranges.

    The arguments are those of `inside`.
    """
    c_regions = _columns(regions, len(regions.starts))
    return _fill(
        len(regions.starts) + _MORE_ROWS,
        lambda out: _ranged(lib.ps_outside, c_regions, starts, ends, out),
    )


def shares(regions: Columns, starts: array[int], ends: array[int]) -> Shares:
    """Measure the length of ascending regions in each of some ranges.

    The arguments are those of `inside`.
    """
    c_regions = _columns(regions, len(regions.starts))
    rows = min(len(starts), len(regions.starts) + _MORE_ROWS)
    out = ffi.new("struct ps_shares *")
    while True:
        indices, lengths = (_ROOM * rows for _ in range(2))
        out.ranges, out.bytes, out.capacity = _u64(indices), _u64(lengths), rows
        if not _ranged(lib.ps_shares, c_regions, starts, ends, out):
            break
        rows = out.length
    del indices[out.length :], lengths[out.length :]
    return Shares(indices, lengths, out.outside)


def overlay(under: Columns, over: Columns, *, outside: bool) -> Columns:
    """Lay ascending regions over others; in an overlap, take the upper categories.

    Args:
        under: The lower list.
        over: The upper list.
        outside: Whether to include the parts that only the upper list has.
    """
    lower, upper = (_columns(one, len(one.starts)) for one in (under, over))
    return _fill(
        len(under.starts) + len(over.starts) + _MORE_ROWS,
        lambda out: lib.ps_overlay(lower, upper, outside, out),
    )


def relabel(regions: Columns, labels: dict[int, int]) -> Columns:
    """Return regions with other categories; those without a new label are left out.

    Args:
        regions: Ascending and disjoint.
        labels: The new categories, by the old ones.
    """
    c_regions = _columns(regions, len(regions.starts))
    before, after = array("Q", labels), array("Q", labels.values())
    old, new = _u64(before), _u64(after)
    return _fill(
        len(regions.starts),
        lambda out: lib.ps_relabel(c_regions, old, new, len(before), out),
    )


def _empty_rows(capacity: int) -> tuple[Columns, Any]:
    """Return rows to be filled, and a struct ps_columns that refers to them."""
    rows = Columns(*(_ROOM * capacity for _ in range(3)))
    out = _columns(rows, capacity)
    out.length = 0
    return rows, out


def _ranged(
    function: Callable[..., int],
    regions: Any,
    starts: array[int],
    ends: array[int],
    *out: Any,
) -> int:
    """Call a function of the shim with regions and ranges."""
    return _check(function(regions, _u64(starts), _u64(ends), len(starts), *out))


def _fill(rows: int, function: Callable[[Any], int]) -> Columns:
    """Return the rows that a function of the shim writes.

    Args:
        rows: Room for the first try: most lists are hardly cut.
        function: Takes a struct ps_columns; returns 1 if it needs `length` rows of
            room.
    """
    while True:
        result, out = _empty_rows(rows)
        if not _check(function(out)):
            break
        rows = out.length
    for column in result:
        del column[out.length :]
    return result


def tally(
    regions: Columns, owners: array[int] | None, page_size: int, mappings: int
) -> tuple[array[int], array[int]]:
    """Count pages by mapping, and by mapping and category bit.

    Returns:
        Pages, one number per mapping; counts, CATEGORY_BITS per mapping, lowest bit
        first.
    """
    pages = array("Q", bytes(8 * mappings))
    counts = array("Q", bytes(8 * mappings * CATEGORY_BITS))
    c_owners = ffi.NULL if owners is None else _i64(owners)
    _check(
        lib.ps_tally(
            _columns(regions, len(regions.starts)),
            c_owners,
            page_size,
            mappings,
            _u64(pages),
            _u64(counts),
        )
    )
    return pages, counts


def _enumerator(enum: str, value: int) -> str:
    name: str = ffi.typeof(enum).elements[value]
    return name.rpartition("_")[2].lower()


def can_attach() -> bool:
    """Whether `attach` exists for this processor."""
    return bool(lib.ps_can_attach())


def attach(
    pid: int,
    *,
    start_time: int = 0,
    allowed: tuple[int, int] = (0, 0),
    seconds: float = 2,
    by_thread: bool = False,
) -> Attached:
    """Take a userfaultfd out of a live process; never raises: see `error`.

    Signals are handled in the meantime as usual; an exception from a handler ends the
    attach.

    Args:
        pid: The process.
        start_time: The required start time; otherwise ESRCH: the pid was reused. 0:
            any.
        allowed: Start and length of the range from which a system call may be made; by
            default everywhere.
        seconds: Limit of the whole attach; threads that do not stop are tried in turn.
        by_thread: A thread of this process does the work; nothing can end it early, and
            a waitpid(-1) of another thread disturbs it.
    """
    until = time.monotonic() + seconds
    call = ffi.new("struct ps_attach *")
    call.pid, call.start_time, call.by_thread = pid, start_time, by_thread
    call.allowed_start, call.allowed_length = allowed
    attempts = stopped_ns = 0
    while True:
        left = until - time.monotonic()
        call.timeout_ms = int(left * 1000)
        code = _operate(call)
        attempts += call.attempts
        stopped_ns += call.stopped_ns
        call.turn += 1
        if code != -errno.EAGAIN or until - time.monotonic() < _SHORTEST_TURN:
            break
    return Attached(
        call.uffd,
        call.tid,
        _enumerator("enum ps_method", call.method),
        _enumerator("enum ps_step", call.step),
        attempts,
        call.left_fd,
        stopped_ns,
        (call.allowed_start, call.allowed_length),
        max(0, -code),
    )


def _operate(call: Any) -> int:
    """Run one surgeon; kill it if a signal's handler raises an exception."""
    theatre = ffi.new("struct ps_theatre **")
    code = int(lib.ps_attach_begin(call, theatre))
    if code < 0:
        call.uffd, call.attempts, call.stopped_ns = -1, 0, 0
        return code
    try:
        while not lib.ps_attach_wait(theatre[0], _WAIT_MS):
            pass
    except BaseException:
        lib.ps_attach_end(theatre[0], call)
        if call.uffd >= 0:
            os.close(call.uffd)
        raise
    return int(lib.ps_attach_end(theatre[0], call))


def launch(
    path: bytes,
    argv: Sequence[bytes],
    environment: Sequence[bytes],
    stdio: tuple[int, int, int],
) -> tuple[int, int, int]:
    """Start a program and leave it stopped before its first instruction.

    Returns:
        Its pid: a child of this process, in a group stop until SIGCONT. And the
        descriptor and pid of its guard, also a child: the guard kills the program when
        the descriptor is closed, and ends when a byte is written to it.
    """
    words = [ffi.new("char[]", word) for word in argv]
    variables = [ffi.new("char[]", word) for word in environment]
    guard = ffi.new("struct ps_guard *")
    pid = _check(
        lib.ps_launch(
            path,
            ffi.new("char *[]", [*words, ffi.NULL]),
            ffi.new("char *[]", [*variables, ffi.NULL]),
            *stdio,
            guard,
        )
    )
    return pid, guard.fd, guard.pid


def library() -> str:
    """Return the path of the shared object with the C functions."""
    return str(_shim.__file__)


class Watch:
    """The writes to private anonymous memory, by pagescan_writewatch.h.

    Each method is one call, from any thread; addresses are bytes. The memory must stay
    mapped.
    """

    __slots__ = ("_c", "_likely", "_page")

    def __init__(self, address: int, size: int) -> None:
        """Watch existing memory of `size` bytes; the last page counts whole."""
        self._c = ffi.new("struct pagescan_watch *")
        self._likely = 64
        _check(lib.pagescan_watch_adopt(self._c, ffi.cast("void *", address), size))
        self._page = int(self._c.page)

    def get(
        self, start: int, size: int, *, reset: bool, limit: int = ALL_PAGES
    ) -> array[int]:
        """Return the addresses of up to `limit` written pages.

        Raises:
            OSError: EINVAL, not a part of the memory; ESRCH, this is a forked child;
                EPERM, a part is no longer watched.
        """
        end = start + size
        # Not one element per page of the memory: the list is as long as the last one
        # was, and grows if that was too short.
        room = min(limit, size // self._page + 2, self._likely)
        pages: array[int] = _ROOM * room
        have = 0
        while True:
            at, _ = pages.buffer_info()
            have += _check(
                lib.ps_watch_get(
                    self._c, reset, start, end - start, at + 8 * have, room - have
                )
            )
            if have < room or room == limit:
                break
            start = pages[-1] + self._page
            if start >= end:
                break
            room = min(limit, 4 * room)
            pages.extend(_ROOM * (room - have))
        del pages[have:]
        self._likely = max(have + 1, 64)
        return pages

    def reset(self, start: int, size: int) -> None:
        """Forget the writes to a part; errors as for `get`."""
        _check(lib.ps_watch_reset(self._c, start, size))
