"""Reads files of /proc/PID of processes that may go at any moment."""

import errno
import os

from pagescan.model.errors import from_oserror

_GONE = (errno.ENOENT, errno.ESRCH)
_HIDDEN = (errno.EACCES, errno.EPERM)


def read_proc(pid: int, name: str, limit: int = 1 << 16) -> bytes | None:
    """Return the first bytes of /proc/PID/NAME; None: it is gone, or hidden from us.

    Raises:
        PagescanError: This process has no descriptor left, or no memory: that must not
            pass for a process that has gone.
    """
    path = f"/proc/{pid}/{name}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, limit)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _GONE or error.errno in _HIDDEN:
            return None
        raise from_oserror(error, doing=f"read {path}", call="open", pid=pid) from error
