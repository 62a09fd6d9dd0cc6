"""How many processes can be tracked at a time: the limit of descriptors."""

import contextlib
import resource

MOST = 1000
"""The most tracked processes: a fork bomb must not use up all descriptors."""
_SPARE, _PER_MEMBER = 64, 6  # descriptors


def room() -> tuple[int, str]:
    """Raise this process's limit of descriptors; return how many members it allows.

    Returns:
        The most members, and the reason for the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    allowed = (soft - _SPARE) // _PER_MEMBER
    if allowed >= MOST:
        return MOST, f"a group has at most {MOST:,} tracked processes"
    return max(1, allowed), (
        f"the limit of {soft} descriptors allows {max(1, allowed)} tracked processes"
        " (ulimit -n)"
    )
