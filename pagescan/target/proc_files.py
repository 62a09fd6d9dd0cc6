"""Looks at processes that may go at any moment: an end is no other failure."""

import contextlib
import errno
import os
from collections.abc import Iterator

from pagescan.model.errors import PagescanError, TargetError, from_oserror

_GONE = (errno.ENOENT, errno.ESRCH)
_HIDDEN = (errno.EACCES, errno.EPERM)
_COMMAND_LINE = 4096


def command_words(pid: int) -> list[str]:
    """Return the command line of a process, as far as 4 KiB of it go."""
    text = read_proc(pid, "cmdline", _COMMAND_LINE) or b""
    return os.fsdecode(text.rstrip(b"\0")).split("\0")


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
        if error.errno in (*_GONE, *_HIDDEN):
            return None
        raise from_oserror(error, doing=f"read {path}", call="open", pid=pid) from error


@contextlib.contextmanager
def if_it_lives(
    pid: int, *, doing: str, call: str, or_hidden: bool = False
) -> Iterator[None]:
    """Run a block that may find that a process has ended: it then ends early.

    Any other failure is no end of the process, and is raised with its facts.

    Args:
        pid: The process.
        doing: The step, as in "cannot <doing>".
        call: The system call that the block makes.
        or_hidden: A process that is hidden from this user ends the block, too.

    Raises:
        PagescanError: The block failed, and the process has not ended.
    """
    try:
        yield
    except TargetError:
        return
    except PagescanError:
        raise
    except OSError as error:
        if error.errno not in (*_GONE, *(_HIDDEN if or_hidden else ())):
            raise from_oserror(error, doing=doing, pid=pid, call=call) from error
