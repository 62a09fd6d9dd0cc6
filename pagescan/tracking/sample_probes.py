"""What `doctor` tries for `who` and `cow`: memory for the samples of page faults."""

import contextlib
import mmap
import os

from pagescan import native
from pagescan.model.errors import AccessDeniedError
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import format_size
from pagescan.target.wp_async import check_fork_events

_WANTED_RING = 4 << 20


def fork_events() -> str:
    """Ask for the events of forks on an own userfaultfd, which has no memory."""
    check_fork_events()
    return "a fork can be held until it has been looked at: cow --exact"


def ring_memory() -> str:
    """Map a ring of the size that `who` wants, for one processor."""
    fd = native.open_faults(0, 0, children=True, user_only=True)
    size = _WANTED_RING
    try:
        while size >= PAGE_SIZE:
            with contextlib.suppress(PermissionError):
                mmap.mmap(fd, size + PAGE_SIZE).close()
                break
            size //= 2
    finally:
        os.close(fd)
    if size < _WANTED_RING:
        raise AccessDeniedError(
            f"a ring may have {format_size(size)} of {format_size(_WANTED_RING)}:"
            " samples may be lost while much is written",
            call="mmap",
        )
    return f"{format_size(size)} per processor"
