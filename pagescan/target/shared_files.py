"""Opens files behind shared memory that are in memory: memfd, System V, shm.

It opens them through map_files, and only regular files of these file systems: opening
another file, a device or one of a FUSE, could wait, or have an effect.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from functools import lru_cache

from pagescan.model.memory import Kind, Mapping
from pagescan.target.process import Target


@contextlib.contextmanager
def file_of(target: Target, mapping: Mapping) -> Iterator[int]:
    """Open the file behind shared memory, as a context manager.

    Yields:
        A descriptor; -1: the file may not be opened, or is on disk.
    """
    fd = -1
    if mapping.kind is Kind.SHARED:
        span = f"{mapping.start:x}-{mapping.end:x}"
        name = f"/proc/{target.pid}/map_files/{span}"
        with contextlib.suppress(OSError):
            fd = _open_in_memory(name)
    try:
        yield fd
    finally:
        if fd >= 0:
            os.close(fd)


def _open_in_memory(name: str) -> int:
    """Open a regular file of a file system in memory; touch no other file."""
    path = os.open(name, os.O_PATH | os.O_CLOEXEC)
    try:
        facts = os.fstat(path)
        if not stat.S_ISREG(facts.st_mode) or facts.st_dev not in devices_in_memory():
            return -1
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{path}", flags)
    finally:
        os.close(path)


@lru_cache(maxsize=1)
def devices_in_memory() -> frozenset[int]:
    """Return the devices of memfd, System V, anonymous shared memory, and shm."""
    devices = set()
    fd = os.memfd_create("pagescan")
    devices.add(os.fstat(fd).st_dev)
    os.close(fd)
    with contextlib.suppress(OSError):
        devices.add(os.stat("/dev/shm").st_dev)  # noqa: S108 - its device only
    return frozenset(devices)
