"""Opens the files that a target maps or names; trusts none of them.

A file is looked up with O_PATH, which has no effect on it; it is opened only if it is a
regular file and, where it was found by its name, the file that is mapped.

A file system that a process serves (FUSE) may never answer, not even a look-up. So no
file on it is touched. If the target belongs to another user and has such mounts, no
symbolic link is followed, since it could lead into one of them.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from typing import Self

from pagescan import native
from pagescan.model.memory import Mapping
from pagescan.target.living import memory_dir

LONGEST_FILE = 8 << 30
"""Bytes; a longer file is not read. Chrome with its debug information has 4 GiB."""
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class CodeFiles:
    """The files of one process, seen through its own root directory."""

    def __init__(self, pid: int) -> None:
        """Open the root directory of the process, if this user may."""
        self.pid = pid
        self.root = -1
        with contextlib.suppress(OSError):
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self.root = os.open(f"{memory_dir(pid)}/root", flags)

    def _served(self) -> tuple[set[tuple[int, int]], list[bytes]]:
        """Return devices and mount points of the file systems that a process serves."""
        devices, places = set(), []
        with open(f"{memory_dir(self.pid)}/mountinfo", "rb") as mounts:
            for line in mounts:
                fields = line.split()
                kind = fields[fields.index(b"-") + 1]
                if kind.startswith(b"fuse"):
                    major, _, minor = fields[2].partition(b":")
                    devices.add((int(major), int(minor)))
                    places.append(_unescaped(fields[4]))
        return devices, places

    def _may_touch(self, mapping: Mapping) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return mapping.device not in self._served()[0]
        return False

    def open_mapped(self, mapping: Mapping) -> int:
        """Open the file behind a mapping for reading; -1: impossible.

        The link in map_files is the mapped file itself, also if it was deleted; that
        needs a capability. Without it the file is found by its name, and compared.
        """
        if not self._may_touch(mapping):
            return -1
        folder = memory_dir(self.pid)
        if folder != f"/proc/{self.pid}":  # a thread: it has no map_files
            return self._by_name(mapping)
        link = f"{folder}/map_files/{mapping.start:x}-{mapping.end:x}"
        try:
            path = os.open(link, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1  # the mapping is gone: its name may be another file's by now
        except OSError:
            return self._by_name(mapping)
        return _open_found(path)

    def _by_name(self, mapping: Mapping) -> int:
        name = os.fsencode(mapping.name)
        if not name.startswith(b"/"):
            return -1
        path = self._look_up(name, links=False)
        if path >= 0 and not _is_same(os.fstat(path), mapping):
            os.close(path)
            return -1
        return _open_found(path)

    def open_named(self, name: bytes, *, owners: frozenset[int] | None = None) -> int:
        """Open a regular file by its path below the process's root; -1: not found.

        Args:
            name: An absolute path.
            owners: The uids that may own the file; None: any. With it no symbolic link
                is followed.
        """
        path = self._look_up(name, links=owners is None)
        if path >= 0 and owners is not None and os.fstat(path).st_uid not in owners:
            os.close(path)
            return -1
        return _open_found(path)

    @contextlib.contextmanager
    def directory(self, name: bytes) -> Iterator[int]:
        """Look up a directory below the process's root; no link is followed.

        The block has an O_PATH descriptor of it; -1: it is not safe, or not there.
        """
        fd = self._look_up(name, links=False)
        try:
            yield fd
        finally:
            if fd >= 0:
                os.close(fd)

    def _look_up(self, name: bytes, *, links: bool) -> int:
        """Return an O_PATH descriptor; -1: not found, or not safe to look up."""
        with contextlib.suppress(OSError, ValueError):
            _, served = self._served()
            below = any(name.startswith(place.rstrip(b"/") + b"/") for place in served)
            if self.root < 0 or b"\0" in name or below:
                return -1
            ours = os.stat(memory_dir(self.pid)).st_uid in (0, os.geteuid())
            follow = links and (ours or not served)
            return native.open_in_root(self.root, name, follow=follow)
        return -1

    def close(self) -> None:
        """Close the root directory; a second call has no effect."""
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_own(name: str) -> int:
    """Open a regular file of this machine by its path; -1: it does not exist."""
    try:
        path = os.open(name, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return -1
    return _open_found(path)


def _unescaped(place: bytes) -> bytes:
    r"""Return a path of mountinfo as it is: there a space is \040; source: proc(5)."""
    return re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), place)


def _is_same(facts: os.stat_result, mapping: Mapping) -> bool:
    """Tell whether a file is the mapped one.

    Btrfs and overlayfs give one device in maps and another in stat(2); both are then
    anonymous devices, which have no major number.
    """
    if facts.st_ino != mapping.inode:
        return False
    device = (os.major(facts.st_dev), os.minor(facts.st_dev))
    return device == mapping.device or device[0] == mapping.device[0] == 0


def _open_found(path: int) -> int:
    """Open the file of an O_PATH descriptor for reading, and close that; -1: failed."""
    if path < 0:
        return -1
    try:
        facts = os.fstat(path)
        regular = stat.S_ISREG(facts.st_mode) and facts.st_size <= LONGEST_FILE
        return os.open(f"/proc/thread-self/fd/{path}", _READ) if regular else -1
    except OSError:
        return -1
    finally:
        os.close(path)
