"""Finds out by trying which features this kernel has.

Nothing is concluded from a version number. Every probe works on this process's own
memory or on a child of its own, and leaves nothing behind.
"""

import contextlib
import errno
import functools
import mmap
import os
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pagescan import native
from pagescan.model.errors import KernelUnsupportedError, PagescanError, from_oserror
from pagescan.model.memory import (
    CATEGORY_NAMES,
    HUGE_PAGE,
    NO_CATEGORY,
    PAGE_SIZE,
    Category,
)
from pagescan.native import Columns, Masks, Meter, Pace, Rule, Spans
from pagescan.target import wp_async

PAGES_TRIED = 16
# larger than any address space; a sum of two fits in 64 bits
_NO_SPACE_BEYOND = 1 << 57
MADV_PAGEOUT = 21  # mmap has no name for it


class UnknownError(Exception):
    """A probe could not find out; the message has the reason."""


@functools.cache
def known_categories() -> Category:
    """Return the categories that the running kernel knows, found by trying.

    Raises:
        KernelUnsupportedError: The kernel has no PAGEMAP_SCAN at all.
    """
    known = NO_CATEGORY
    with own_pagemap() as pagemap:
        for bit in Category:
            rule = Rule(kernel_masks=Masks(returned=bit))
            try:
                scan_own(pagemap, 0, PAGE_SIZE, rule)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    continue
                raise from_oserror(
                    error,
                    doing="use PAGEMAP_SCAN (Linux 6.7)",
                    call="ioctl(PAGEMAP_SCAN)",
                ) from error
            known |= bit
    return known


def check_known(categories: Category) -> None:
    """Refuse categories that the running kernel does not know."""
    for bit, name in CATEGORY_NAMES:
        if bit & categories & ~known_categories():
            raise KernelUnsupportedError(
                f"this kernel has no category {name!r}",
                hint="pagescan doctor lists its features",
            )


@functools.cache
def user_space_end() -> int:
    """Return the end of this process's address space, found by trying.

    It is 2^47 on most x86-64, 2^56 with five levels of page tables, 2^48 or 2^52 on
    arm64. The kernel refuses a range that goes beyond it; if a kernel does not, no
    mapping lies there.
    """
    with own_pagemap() as pagemap:
        return end_of_accepted(functools.partial(_accepts, pagemap))


def end_of_accepted(accepts: Callable[[int], bool]) -> int:
    """Return the highest page end that is accepted, given that all lower ones are."""
    low, high = 1, _NO_SPACE_BEYOND // PAGE_SIZE + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accepts(middle * PAGE_SIZE) else (low, middle)
    return low * PAGE_SIZE


def _accepts(pagemap: int, end: int) -> bool:
    try:
        scan_own(
            pagemap,
            end - PAGE_SIZE,
            end,
            Rule(kernel_masks=Masks(returned=Category.PRESENT)),
        )
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return False
    return True


class EmptyEntries(NamedTuple):
    """When the scan reports empty entries of shared memory as WRITTEN, found by trying.

    Attributes:
        beside_others: Also if other categories are asked for (the kernel's slow path).
            False from Linux 6.7 to 6.12.102 and from 6.13 to 6.17. Entries that are not
            reported are not protected either.
        without_table: Also if there is no page table, when only WRITTEN is asked for
            (the fast path). False up to 6.17. From 6.14 on, MADV_DONTNEED frees the
            tables that it has emptied.
    """

    beside_others: bool
    without_table: bool


@functools.cache
def named_empty_entries() -> EmptyEntries:
    """Drop a page of own shared memory, with its page table, and scan for it."""
    size = HUGE_PAGE  # what one page table maps
    fast = Masks(mask=Category.WRITTEN, returned=Category.WRITTEN)
    slow = fast._replace(returned=Category.WRITTEN | Category.PRESENT)
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    try:
        with (
            mmap.mmap(-1, 2 * size, flags=flags) as memory,
            own_uffd() as uffd,
            own_pagemap() as pagemap,
        ):

            def names_the_first(asked: Masks) -> bool:
                found = scan_own(
                    pagemap, start, start + PAGE_SIZE, Rule(kernel_masks=asked)
                )
                return bool(found.starts)

            offset = -native.address_of(memory) % size
            start = native.address_of(memory) + offset
            native.uffd_register(uffd, start, start + size)
            memory[offset] = memory[offset + PAGE_SIZE] = 1
            memory.madvise(mmap.MADV_DONTNEED, offset, PAGE_SIZE)
            beside_others = names_the_first(slow)
            memory.madvise(mmap.MADV_DONTNEED, offset, size)
            return EmptyEntries(beside_others, names_the_first(fast))
    except (OSError, PagescanError):
        return EmptyEntries(beside_others=False, without_table=False)


def swap_in_use() -> bool:
    """Whether pages can be on swap; source: proc_swaps(5)."""
    with open("/proc/swaps", "rb") as swaps:
        return len(swaps.readlines()) > 1


@contextlib.contextmanager
def own_pagemap() -> Iterator[int]:
    """Open this process's own pagemap, and close it at the end."""
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def own_uffd() -> Iterator[int]:
    """Open a userfaultfd of this process, and close it at the end."""
    uffd = wp_async.open_own()
    try:
        yield uffd
    finally:
        os.close(uffd)


def scan_own(pagemap: int, start: int, end: int, rule: Rule) -> Columns:
    """Scan one range of this process with one rule, without pauses."""
    spans = Spans(array("Q", [start]), array("Q", [end]), array("Q", [0]))
    return native.scan_once(
        pagemap, spans, [rule], pace=Pace(pause_ns=0), meter=Meter()
    )


def read_setting(path: str) -> str:
    """Return the text of a file of /proc or /sys."""
    with open(path) as file:
        return file.read()


@functools.lru_cache(maxsize=1)
def huge_page_size() -> int:
    """Return the size of a transparent huge page in bytes; 0: unsupported."""
    try:
        return int(read_setting("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"))
    except (OSError, ValueError):
        return 0
