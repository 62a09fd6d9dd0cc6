"""Scans many ranges with PAGEMAP_SCAN, in several threads where that is faster."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import os
from collections.abc import Sequence
from typing import Any

from pagescan.native.door import check, ffi, lib, u64
from pagescan.native.pace import (
    LONGEST_SLICE,
    Meter,
    Pace,
    c_pace,
    keeping_the_processor,
)
from pagescan.native.types import ALL_PAGES, Columns, Rule, Spans, Windows

_PAGE = os.sysconf("SC_PAGE_SIZE")
# Initial room for regions, small because most looks find few; more is made when needed.
# Each process of a group keeps that room.
_FEW_ROWS = 64
_ROWS = 4096
_TIMES = 4
# The remaining work must take longer: on an idle processor a thread begins in 0.05 ms.
_WORTH_A_THREAD_NS = 200_000


def scan_once(
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
    """A scan with all that the shim needs in place; `scan` may be called again.

    For scans of this process itself, where all memory that Python touches counts as
    written, `run` is one call of the shim; `take` returns the regions later.

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
        pace: Pace | None = None,
    ) -> None:
        """Prepare a scan; further arguments are those of `scan_once`.

        Args:
            pagemap: As for `scan_once`.
            parts: Ranges for one thread each; ascending.
            rules: The rules that the parts refer to.
            threads: Limit of threads.
            max_pages: Per part.
            join_gap: As for `scan_once`.
            room: Initial capacity in regions per part; None: small.
            pace: The pace of `run`; `scan` has its own.
        """
        # The shim has only their addresses.
        c_rules = ffi.new("struct ps_rule[]", [_c_rule(rule) for rule in rules])
        c_parts = ffi.new("struct ps_part[]", len(parts))
        self._held = (parts, c_rules, c_parts)
        self._parts = list(c_parts)
        self.rows = [Columns.empty() for _ in parts]
        for part, spans, rows in zip(self._parts, parts, self.rows, strict=True):
            part.starts, part.ends, part.which = (u64(column) for column in spans)
            part.ranges = len(spans.starts)
            _make_room(part.out, rows, room or _FEW_ROWS)
        self._windows: list[Windows] = []
        self._job = ffi.new("struct ps_job *")
        self._job.pagemap = pagemap
        self._job.threads = threads
        self._job.worth_ns = _WORTH_A_THREAD_NS
        self._job.parts = c_parts
        self._job.count = len(parts)
        self._job.rules = c_rules
        self._job.join_gap = join_gap
        self._job.max_pages = max_pages
        self._restart(pace or Pace(), LONGEST_SLICE)

    def scan(self, pace: Pace, meter: Meter, slice_max: int = LONGEST_SLICE) -> Columns:
        """Scan all parts from their start, and return the regions.

        Args:
            pace: How the target's mmap lock is spared; it adapts from call to call.
            meter: The cost is added to it.
            slice_max: Limit of bytes per call, however fast the calls are.

        Raises:
            OSError: As for `scan_once`.
        """
        self._restart(pace, slice_max)
        return self.take(pace, meter)

    def run(self) -> None:
        """Scan until the end, or until the room for rows is used up."""
        self._code = lib.ps_scan(self._job)
        while self._code == 1 and not any(map(_is_full, self._parts)):
            self._code = lib.ps_scan(self._job)

    def take(self, pace: Pace, meter: Meter) -> Columns:
        """Scan what `run` has left, if anything, and return the regions; only once.

        Raises:
            OSError: As for `scan_once`.
        """
        job, walked = self._job, 0
        try:
            while self._code:
                with keeping_the_processor(pace):
                    self._code = check(lib.ps_scan(job))
                for part, rows in zip(self._parts, self.rows, strict=True):
                    if self._code and part.out.length == part.out.capacity:
                        more = part.out.capacity * (_TIMES - 1)
                        _make_room(part.out, rows, min(_ROWS, more))
                for part, windows in zip(self._parts, self._windows, strict=False):
                    if self._code and part.windows.length == part.windows.capacity:
                        _make_window_room(part.windows, windows, _ROWS)
                if pace.progress is not None:
                    walked, before = job.cost.pages_walked, walked
                    pace.progress.advance((walked - before) * _PAGE)
        finally:
            meter.add(job.cost)
            pace.held_ns = job.pace.held_ns
        filled = [index for index, part in enumerate(self._parts) if part.out.length]
        return _concatenated([self._rows_of(index) for index in filled])

    def time_protection(self) -> None:
        """Let `windows` return the calls that protect, from the next scan on."""
        self._windows = [Windows.empty() for _ in self._parts]
        for part, windows in zip(self._parts, self._windows, strict=True):
            _make_window_room(part.windows, windows, _FEW_ROWS)

    def windows(self) -> Windows:
        """Return the calls of the last scan that protected memory, with their times."""
        found = Windows.empty()
        for part, columns in zip(self._parts, self._windows, strict=False):
            used = part.windows.length
            found.extend(Windows(*(column[:used] for column in columns)))
        return found

    def _restart(self, pace: Pace, slice_max: int) -> None:
        """Let the next call of the shim begin at the start of each part."""
        self._job.pace = c_pace(pace, slice_max)
        lib.ps_scan_begin(self._job)
        self._code = 1

    def _rows_of(self, index: int) -> Columns:
        """Return the regions of a part: copies, or its arrays if these are long.

        Long arrays are replaced by short ones, so that a part keeps little memory.
        """
        out, rows = self._parts[index].out, self.rows[index]
        used = out.length
        if used <= _ROWS:
            return Columns(*(column[:used] for column in rows))
        self.rows[index] = fresh = Columns.empty()
        out.length = out.capacity = 0
        _make_room(out, fresh, _FEW_ROWS)
        for column in rows:
            del column[used:]
        return rows


def _concatenated(lists: Sequence[Columns]) -> Columns:
    """Return ascending lists of regions as one, made of the arrays of the first."""
    if not lists:
        return Columns.empty()
    for others in lists[1:]:
        for column, more in zip(lists[0], others, strict=True):
            column.extend(more)
    return lists[0]


def _c_rule(rule: Rule) -> Rule:
    """Return the fields of struct ps_rule, in order: those of Rule are the same."""
    return rule._replace(check_markers=rule.check_markers and not rule.protect)


def _is_full(part: Any) -> bool:
    return bool(part.out.length == part.out.capacity)


def _make_window_room(out: Any, windows: Windows, least: int) -> None:
    """Make room for more calls behind the existing ones: at least twice as many."""
    extra = bytes(8 * max(least, len(windows.starts)))
    for column in windows:
        column.frombytes(extra)
    out.start, out.end, out.before, out.after = (u64(column) for column in windows)
    out.capacity = len(windows.starts)


def _make_room(out: Any, rows: Columns, least: int) -> None:
    """Make room for more rows behind the existing ones: at least twice as many."""
    extra = bytes(8 * max(least, len(rows.starts)))
    for column in rows:
        column.frombytes(extra)
    out.start, out.end, out.categories = (u64(column) for column in rows)
    out.capacity = len(rows.starts)
