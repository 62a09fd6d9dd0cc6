"""Unregisters mappings when a session ends: in slices, whole, or not at all.

Linux before 6.17 may stop with a BUG in userfaultfd_unregister() when the call leaves
an unregistered mapping that is neither anonymous nor tmpfs nor hugetlb. It does if that
mapping could merge with an unregistered one below it, and has a close() of its own and
so must stay: SysV memory, files of fuse and 9p. It cannot be found out which files have
one. So files are never cut. A file that continues an unregistered mapping is left to
the last close of the userfaultfd, which has no such check. Other files are unregistered
from the top down, so that the mapping below is still registered.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from pagescan.native import uffd_is_registered
from pagescan.target.living import memory_dir

WHOLE = 1 << 62
"""A slice size in bytes that no mapping reaches."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_HUGE_PAGE = _PAGE * (_PAGE // 8)  # as in model/memory.py, which the keeper leaves out


class MapsLine(NamedTuple):
    """A line of /proc/PID/maps.

    Attributes:
        access: Its permissions, in any format.
        device: Major and minor number.
        page_size: Bytes of a hugetlb page; 0: pages of the usual size.
    """

    start: int
    end: int
    access: str | int
    offset: int
    device: tuple[int, int]
    inode: int
    name: str | bytes
    page_size: int


def unregister_all(
    rows: Sequence[MapsLine],
    tmpfs: Collection[tuple[int, int]],
    unregister: Callable[[MapsLine, int], None],
    pagemap: int,
) -> None:
    """Unregister all possible mappings; files first, while nothing has changed.

    Args:
        rows: All mappings of the target, ascending.
        tmpfs: The result of `tmpfs_of` for the target.
        unregister: Called with a mapping, and the number of bytes to which its slices
            are to be aligned; its OSError is ignored.
        pagemap: The target's pagemap.
    """
    for index in reversed(range(len(rows))):
        row, below = rows[index], rows[index - 1] if index else None
        if may_be_cut(row, tmpfs):
            continue
        with contextlib.suppress(OSError):
            if not (below and continues(row, below)) or uffd_is_registered(
                pagemap, below.start
            ):
                unregister(row, WHOLE)
    for row in rows:
        if may_be_cut(row, tmpfs):
            with contextlib.suppress(OSError):
                unregister(row, row.page_size or _HUGE_PAGE)


def may_be_cut(row: MapsLine, tmpfs: Collection[tuple[int, int]]) -> bool:
    """Whether it is anonymous, tmpfs or hugetlb, judged by its device, not its name."""
    if row.page_size or (row.device, row.inode) == ((0, 0), 0):
        return True
    sysv = row.name[:5] in ("/SYSV", b"/SYSV")  # on the device of memfd, but not tmpfs
    return row.device in tmpfs and not sysv


def continues(row: MapsLine, below: MapsLine) -> bool:
    """Whether the two could be one mapping, as far as maps shows."""
    length = below.end - below.start
    return (below.end, below.offset + length) == (row.start, row.offset) and (
        (below.access, below.device, below.inode) == (row.access, row.device, row.inode)
    )


def tmpfs_of(pid: int) -> set[tuple[int, int]]:
    """Return the devices of the tmpfs that a process sees, and of its memfds."""
    found = set()
    with contextlib.suppress(OSError):
        memory = os.memfd_create("pagescan")
        device = os.fstat(memory).st_dev
        os.close(memory)
        found.add((os.major(device), os.minor(device)))
    with contextlib.suppress(OSError), open(f"{memory_dir(pid)}/mountinfo", "rb") as it:
        for words in map(bytes.split, it):  # source: proc_pid_mountinfo(5)
            if words[words.index(b"-") + 1] == b"tmpfs":
                major, minor = words[2].split(b":")
                found.add((int(major), int(minor)))
    return found
