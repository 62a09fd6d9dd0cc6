"""The userfaultfd: registered, protected, and let go again."""

import errno
import itertools
import os
import sys
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from pagescan.native.door import check, ffi, lib
from pagescan.native.pace import Meter, Pace, c_pace, keeping_the_processor

UFFD_FEATURES = 0x8000 | 0x2000 | 0x1000
"""WP_ASYNC, WP_UNPOPULATED, WP_HUGETLBFS_SHMEM: exact tracking needs them."""
UFFD_FORKS = 2
"""EVENT_FORK: each fork of the process waits until `read_fork` has read its event."""

_MESSAGE = 32  # bytes of struct uffd_msg: the event, and at 8 arg.fork.ufd
_EVENT_FORK = 0x13
_PAGE = os.sysconf("SC_PAGE_SIZE")
# For a call that unregisters: 43 us per 256 populated pages, where pace.py's times were
# measured.
_FIRST_TO_UNREGISTER = 512 * _PAGE
_NS_TO_UNREGISTER = 195  # per page: 1024 pages in 200 us


def uffd_open() -> int:
    """Return a userfaultfd of this process: UFFD_USER_MODE_ONLY, close-on-exec."""
    return check(lib.ps_uffd_open())


def uffd_api(uffd: int, features: int = UFFD_FEATURES) -> None:
    """Enable the features, once per userfaultfd; EINVAL: the kernel lacks one."""
    check(lib.ps_uffd_api(uffd, features))


def read_fork(uffd: int) -> int:
    """Read the event of a fork, which goes on then; return the child's userfaultfd.

    Raises:
        OSError: EAGAIN, no event waits; EMFILE, no descriptor is free: the fork waits.
    """
    message = os.read(uffd, _MESSAGE)
    if message[0] != _EVENT_FORK:
        raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
    child = int.from_bytes(message[8:12], sys.byteorder)
    os.set_inheritable(child, False)
    return child


def uffd_register(uffd: int, start: int, end: int, meter: Meter | None = None) -> None:
    """Register mappings for write-protect; errnos as for UFFDIO_REGISTER(2const).

    It is one call, whose length does not depend on the size: no page is visited.
    """
    cost = ffi.new("struct ps_cost *")
    code = lib.ps_uffd_register_timed(uffd, start, end, cost)
    if meter is not None:
        meter.add(cost)
    check(code)


class Listed(NamedTuple):
    """Memory to register: a part of a mapping that /proc/PID/maps has listed.

    Attributes:
        start: Its first address.
        end: The address behind it.
        low: The mapping's first address.
        high: The address behind the mapping.
        inode: The mapping's inode.
        shared: Whether the mapping is shared.
    """

    start: int
    end: int
    low: int
    high: int
    inode: int
    shared: bool


def uffd_register_parts(
    uffd: int, maps: int, parts: Sequence[Listed], *, pace: Pace, meter: Meter
) -> list[int]:
    """Register memory that the target may have changed since it was listed.

    The kernel is asked for each mapping right before (PROCMAP_QUERY, 6.11). If one has
    changed, it is registered whole: with a border in it, mremap(2) of it would fail.

    Args:
        uffd: The userfaultfd.
        maps: The open /proc/PID/maps; -1: do not ask.
        parts: What to register.
        pace: Where to pause.
        meter: The cost is added to it.

    Returns:
        For each part 0, or the errno of UFFDIO_REGISTER(2const); EINVAL: no such memory
        is there any more.
    """
    cost = ffi.new("struct ps_cost *")
    done = ffi.new("uint64_t *")
    paced = ffi.new("struct ps_pace *", c_pace(pace))
    columns = array("Q", itertools.chain.from_iterable(parts))
    listed = ffi.from_buffer("struct ps_listed[]", columns)
    errors = [0] * len(parts)
    more = 1
    try:
        while more:
            more = lib.ps_uffd_register_parts(
                uffd, maps, listed, len(parts), paced, done, cost
            )
            if more < 0:
                errors[done[0]] = -more
                done[0] += 1
    finally:
        meter.add(cost)
        pace.held_ns = paced.held_ns
    return errors


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
    paced = ffi.new("struct ps_pace *", c_pace(pace, most))
    paced.slice = _FIRST_TO_UNREGISTER
    try:
        while check(
            lib.ps_uffd_unregister_slices(
                uffd, pagemap, done[0], end, align, paced, done, cost
            )
        ):
            pass
    finally:
        meter.add(cost)
        pace.held_ns = paced.held_ns


def uffd_is_registered(pagemap: int, start: int) -> bool:
    """Whether the mapping at an address is registered with any userfaultfd."""
    return bool(check(lib.ps_uffd_is_registered(pagemap, start)))


def uffd_is_of(uffd: int, pagemap: int, start: int, end: int, meter: Meter) -> bool:
    """Whether a userfaultfd belongs to the address space that a pagemap shows.

    The whole mapping [start, end) is registered for a moment; OSError if it cannot be
    registered, or already is.
    """
    cost = ffi.new("struct ps_cost *")
    code = lib.ps_uffd_is_of(uffd, pagemap, start, end, cost)
    meter.add(cost)
    return bool(check(code))


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
    paced = ffi.new("struct ps_pace *", c_pace(pace))
    try:
        with keeping_the_processor(pace):
            check(
                lib.ps_uffd_protect(uffd, start, end, protect, align, paced, done, cost)
            )
    finally:
        meter.add(cost)
        pace.held_ns = paced.held_ns
