"""The parent of which a process still shares memory."""

from pagescan.target.proc_files import read_proc
from pagescan.target.process import parse_stat

_PF_FORKNOEXEC = 0x40  # include/linux/sched.h


def sharing_parent(pid: int) -> int | None:
    """Return the parent with which a process shares memory; None: with none.

    It shares none if it has called exec since its fork, or has ended.

    Raises:
        PagescanError: It cannot be looked at, and has not ended.
    """
    text = read_proc(pid, "stat")
    stat = parse_stat(text) if text else None
    return stat.parent if stat and stat.flags & _PF_FORKNOEXEC else None
