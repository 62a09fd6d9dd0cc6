"""Why something failed: the causes that errno and a look at the machine tell."""

import os
import signal

_ENDING = 5.0  # seconds that a child of ours may take to end, when it has failed


def oom_kills() -> int:
    """Return how many processes of our cgroup were killed for want of memory.

    Source: memory.events in cgroup-v2.rst; 0 where there is none.
    """
    try:
        with open("/proc/self/cgroup") as file:
            path = next(line for line in file if line.startswith("0::"))[3:].strip()
        with open(f"/sys/fs/cgroup{path}/memory.events") as file:
            return int(dict(line.split() for line in file)["oom_kill"])
    except (OSError, StopIteration, KeyError, ValueError):
        return 0


def how_it_ended(pid: int, before: int) -> str:
    """Reap a child that has failed; say how it ended.

    Args:
        pid: The child.
        before: What `oom_kills` was when it was started.
    """
    status = _reaped(pid)
    if status is None:
        return "nobody knows how it ended"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended with exit code {code}"
    if code == -signal.SIGKILL and oom_kills() > before:
        return "the kernel killed it for want of memory"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    by = ", for want of memory or by somebody" if code == -signal.SIGKILL else ""
    return f"it was killed by {name}{by}"


def _reaped(pid: int) -> int | None:
    import select

    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_ENDING * 1000):
            return None
        return os.waitpid(pid, os.WNOHANG)[1]
    except ChildProcessError:  # the host has reaped it
        return None
    finally:
        os.close(pidfd)
