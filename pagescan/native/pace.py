"""How long calls may hold the target's mmap lock, and what they cost."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

MAX_STALL_NS = 200_000
"""The default of how long one call may hold the target's mmap lock."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
# The cost of a call depends on pages and page tables, so slices are numbers of pages.
# The times are those of pages of 4 KiB, on an AMD EPYC with Linux 6.18.
# A slower machine only takes some calls more.
# Each kind of call has its own speed, so each scan adapts its slices from the start:
# 4096 dense pages take 0.15 ms on the kernel's general path, and 0.3 ms in
# UFFDIO_WRITEPROTECT.
_FIRST_SLICE = 4096 * _PAGE
_SHORTEST_SLICE = 512 * _PAGE
# A dense slice after a long hole takes 0.1 ms on the kernel's fast path.
LONGEST_SLICE = 65536 * _PAGE
# For a call that protects: 20 us per 512 populated pages.
LONGEST_TO_PROTECT = 16384 * _PAGE


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
        """Count calls that this process made without a break, from a moment to now."""
        taken = time.perf_counter_ns() - begun_ns
        self.scan_ns += taken
        self.max_wait_ns = max(self.max_wait_ns, taken)
        self.ioctls += calls


def c_pace(pace: Pace, slice_max: int = LONGEST_SLICE) -> tuple[Any, ...]:
    """Return the first fields of struct ps_pace, in order; the last one is 0."""
    return (
        pace.max_stall_ns,
        pace.pause_ns,
        _FIRST_SLICE,
        _SHORTEST_SLICE,
        slice_max,
        pace.held_ns,
    )


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
