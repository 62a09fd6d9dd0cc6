"""The pages that a session's consumer may not have yet, in a file beside its lock.

    PID.pages   a header with a checksum, the starts of the regions, their ends

It is written anew and renamed before a rearm is committed. If it is not there, or not
that of the session's epoch, nothing is known, and the next plan is complete.
"""

import contextlib
import os
import struct
import zlib
from array import array

from pagescan import native
from pagescan.native import Columns

_HEADER = struct.Struct("=8sQQQ")
_MAGIC = b"pending2"


def load(directory: int, pid: int, epoch: int) -> Columns | None:
    """Return the regions kept at an epoch; None: there are none to be relied on."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(f"{pid}.pages", flags, dir_fd=directory)
        with open(fd, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    magic, of, count, check = _HEADER.unpack_from(data)
    if (magic, of, len(data)) != (_MAGIC, epoch, _HEADER.size + 16 * count):
        return None
    if zlib.crc32(memoryview(data)[_HEADER.size :]) != check:
        return None
    middle = _HEADER.size + 8 * count
    starts, ends = array("Q"), array("Q")
    starts.frombytes(data[_HEADER.size : middle])
    ends.frombytes(data[middle:])
    return Columns(starts, ends, array("Q", bytes(8 * count)))


def store(directory: int, pid: int, epoch: int, regions: Columns) -> None:
    """Keep regions, in place of those before; OSError: those before are still there."""
    name = f"{pid}.pages"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(f"{name}.new", flags, 0o600, dir_fd=directory)
    try:
        with open(fd, "wb") as file:
            check = zlib.crc32(regions.ends, zlib.crc32(regions.starts))
            file.write(_HEADER.pack(_MAGIC, epoch, len(regions.starts), check))
            file.write(regions.starts)
            file.write(regions.ends)
        os.rename(f"{name}.new", name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(f"{name}.new", dir_fd=directory)
        raise


def both(one: Columns, other: Columns) -> Columns:
    """Return the pages that either list has."""
    return native.overlay(_plain(one), _plain(other), outside=True)


def _plain(regions: Columns) -> Columns:
    return Columns(regions.starts, regions.ends, array("Q", bytes(8 * len(regions[0]))))
