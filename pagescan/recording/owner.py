"""Marks the file of a recorder that runs, so that nothing else replaces it."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

from pagescan.model.errors import PagescanError


def mark(fd: int) -> None:
    """Hold a recording for as long as its descriptor is open.

    The lock is flock's: SQLite locks with fcntl, and neither sees the other.
    """
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def check_unmarked(path: str) -> None:
    """Refuse a file into which a recorder that runs is writing.

    Raises:
        PagescanError: It names the pid of the recorder, if it can be seen here.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        pid = _holder(os.fstat(fd))
        who = f"recorder {pid}" if pid else "a recorder"
        raise PagescanError(
            f"{who} is writing {path}",
            hint="choose another file with -o"
            + (f", or end that recording: kill -INT {pid}" if pid else ""),
            call="flock",
            errno=error.errno,
        ) from error
    except OSError:
        return
    finally:
        os.close(fd)


def _holder(status: os.stat_result) -> int | None:
    """Return the pid that holds the lock of a file, by /proc/locks; None: unseen."""
    inode = f":{status.st_ino}"
    with suppress(OSError), open("/proc/locks", encoding="ascii") as file:
        for line in file:
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(inode) and int(words[4]) > 0:
                return int(words[4])
    return None
