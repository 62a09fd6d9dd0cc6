"""How long calls may hold the target's mmap lock, and what they cost."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

MAX_STALL_NS = 200_000
"""The default of how long one call may hold the target's mmap lock."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
# The cost of a call depends on pages and page tables, so slices are numbers of pages.
# The times are those of pages of 4 KiB, on an AMD EPYC with Linux 6.18.
# A slower machine only takes some calls more.
# Each kind of call has its own speed, so each scan adapts its slices from the start:
# 4096 dense pages take 0.15 ms on the kernel's general path, and 0.3 ms in
# UFFDIO_WRITEPROTECT, whose first call has to be short enough, too.
_FIRST_SLICE = 2048 * _PAGE
_SHORTEST_SLICE = 512 * _PAGE
# Even such a slice takes 20 us, or 1 us where it is empty. Under a lower limit no slice
# would ever become longer: 15 TiB without a page would take 8 million calls.
_SHORTEST_STALL_NS = 50_000
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


class Pace:  # no dataclass: a keeper of sessions would load 1.4 MB for it
    """How long one call may hold the target's mmap lock, and the pauses between calls.

    Attributes:
        max_stall_ns: Limit of one call, kept by adapting its length; a limit below
            50 us is as one of 50 us.
        pause_ns: Pause after a call has held the lock; 0: none.
        held_ns: How long calls have held it since the last pause.
        progress: The receiver of the progress.
    """

    __slots__ = ("held_ns", "max_stall_ns", "pause_ns", "progress")

    def __init__(
        self,
        max_stall_ns: int = MAX_STALL_NS,
        # in a shorter pause a waiting thread would not be awake yet
        pause_ns: int = 100_000,
        held_ns: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self.max_stall_ns = max_stall_ns
        self.pause_ns = pause_ns
        self.held_ns = held_ns
        self.progress = progress


class Meter:
    """The cost of the calls so far."""

    __slots__ = ("ioctls", "max_wait_ns", "pages_walked", "scan_ns")

    def __init__(self) -> None:
        self.scan_ns = 0
        self.max_wait_ns = 0
        self.ioctls = 0
        self.pages_walked = 0

    def add(self, cost: Any) -> None:
        """Add the cost that one call of the shim reports."""
        self.scan_ns += cost.scan_ns
        self.max_wait_ns = max(self.max_wait_ns, cost.max_wait_ns)
        self.ioctls += cost.ioctls
        self.pages_walked += cost.pages_walked


def _first_slice(max_stall_ns: int) -> int:
    """Return the first slice under a limit: the usual one, half of it, or the shortest.

    Slices double and halve, and have to end at the borders of huge pages: a slice that
    did not would never be walked whole, and so never become longer.
    """
    share = max_stall_ns / MAX_STALL_NS
    if share > 0.75:
        return _FIRST_SLICE
    return _FIRST_SLICE // 2 if share > 0.375 else _SHORTEST_SLICE


def c_pace(pace: Pace, slice_max: int = LONGEST_SLICE) -> tuple[Any, ...]:
    """Return the first fields of struct ps_pace, in order; the last one is 0."""
    return (
        max(pace.max_stall_ns, _SHORTEST_STALL_NS),
        pace.pause_ns,
        _first_slice(pace.max_stall_ns),
        _SHORTEST_SLICE,
        slice_max,
        pace.held_ns,
    )


@contextlib.contextmanager
def keeping_the_processor(pace: Pace) -> Iterator[None]:
    """Keep the processor for this thread during the block: SCHED_RR, if allowed.

    On a busy machine a thread that holds the target's mmap lock may lose its processor
    for 4 ms and more, and the target waits as long. It is for calls that take the lock:
    they pause, or end soon. Nothing else belongs into the block, because all other
    threads have to wait for it.
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
