"""Stores lists of pages that a session still owes its reader, in files beside its lock.

    PID.pages   pages that the last acknowledged checkpoint may lack
    PID.found   the result of looks that rearmed, until their output is complete
    PID.huge    memory that was in huge pages when it was protected

Each file has a header with a checksum, the starts of the regions, and their ends;
PID.found also has their categories. A file is replaced, by renaming a new one, before a
rearm is committed. If PID.pages is missing or belongs to another epoch, the next plan
is complete.
"""

import contextlib
import os
import struct
import zlib
from array import array

from pagescan.native import Columns

_HEADER = struct.Struct("=8sQQQ")
_PAGES, _FOUND, _HUGE = b"pending2", b"found001", b"huge0001"
_COLUMNS = {_PAGES: 2, _FOUND: 3, _HUGE: 2}
_SUFFIX = {_PAGES: "pages", _FOUND: "found", _HUGE: "huge"}


def load(directory: int, pid: int, epoch: int) -> Columns | None:
    """Return the pages that a checkpoint of that epoch may lack; None: unknown."""
    loaded = _load(directory, pid, _PAGES)
    return loaded[1] if loaded is not None and loaded[0] == epoch else None


def store(directory: int, pid: int, epoch: int, regions: Columns) -> None:
    """Store the pages that a checkpoint may lack; OSError: the old list remains."""
    _store(directory, pid, _PAGES, epoch, regions)


def load_found(directory: int, pid: int) -> tuple[int, Columns]:
    """Return the epoch and the result of looks whose output is not complete."""
    return _load(directory, pid, _FOUND) or (0, Columns.empty())


def store_found(directory: int, pid: int, epoch: int, regions: Columns) -> None:
    """Store the result of a look; OSError: the old list remains."""
    if regions.starts:
        _store(directory, pid, _FOUND, epoch, regions)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{pid}.found", dir_fd=directory)


def load_huge(directory: int, pid: int) -> Columns | None:
    """Return the memory that was in huge pages when protected; None: unknown."""
    loaded = _load(directory, pid, _HUGE)
    return loaded[1] if loaded is not None else None


def store_huge(directory: int, pid: int, units: Columns) -> None:
    """Store the memory that was in huge pages; OSError: the old list remains."""
    _store(directory, pid, _HUGE, 0, units)


def _load(directory: int, pid: int, magic: bytes) -> tuple[int, Columns] | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(f"{pid}.{_SUFFIX[magic]}", flags, dir_fd=directory)
        with open(fd, "rb") as file:
            data = file.read()
    except OSError:
        return None
    if len(data) < _HEADER.size:
        return None
    is_of, epoch, count, check = _HEADER.unpack_from(data)
    columns = _COLUMNS[magic]
    if (is_of, len(data)) != (magic, _HEADER.size + 8 * columns * count):
        return None
    if zlib.crc32(memoryview(data)[_HEADER.size :]) != check:
        return None
    found = [array("Q", bytes(8 * count)) for _ in range(3)]
    for at in range(columns):
        begin = _HEADER.size + 8 * count * at
        found[at] = array("Q", data[begin : begin + 8 * count])
    return epoch, Columns(*found)


def _store(
    directory: int, pid: int, magic: bytes, epoch: int, regions: Columns
) -> None:
    name = f"{pid}.{_SUFFIX[magic]}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{name}.new", dir_fd=directory)  # of a command that was killed
    fd = os.open(f"{name}.new", flags, 0o600, dir_fd=directory)
    try:
        os.fchmod(fd, 0o600)  # whatever the caller's umask
        columns = regions[: _COLUMNS[magic]]
        check = 0
        for column in columns:
            check = zlib.crc32(column, check)
        with open(fd, "wb") as file:
            file.write(_HEADER.pack(magic, epoch, len(regions.starts), check))
            for column in columns:
                file.write(column)
        os.rename(f"{name}.new", name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(f"{name}.new", dir_fd=directory)
        raise
