"""Finds out why something failed, from errno and from a look at the machine."""

import contextlib
import errno
import os
import re
import signal
import stat
from collections.abc import Iterator

_ENDING = 5.0  # seconds that a failed child of this process may take to end


def oom_kills() -> int:
    """Return how many processes of this cgroup were killed for lack of memory.

    Source: memory.events in cgroup-v2.rst, memory.oom_control in cgroup-v1/memory.rst;
    0 if there is no such file.
    """
    for folder in _cgroups(os.getpid()):
        for name in ("memory.events", "memory.oom_control"):
            _, _, count = _text(f"{folder}/{name}").rpartition("oom_kill ")
            if count:
                return int(count.split()[0])
    return 0


def how_it_ended(pid: int, before: int) -> str:
    """Reap a child that has failed; return how it ended, in words.

    Args:
        pid: The child.
        before: The value of `oom_kills` when the child was started.
    """
    status = _reaped(pid)
    if status is None:
        return "how it ended is unknown"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it ended with exit code {code}"
    if code == -signal.SIGKILL and oom_kills() > before:
        return "the kernel killed it for lack of memory"
    by = ", for lack of memory or by another process" if code == -signal.SIGKILL else ""
    return f"it was killed by {signal_name(-code)}{by}"


def signal_name(number: int) -> str:
    """Return the name of a signal, as in "SIGKILL"."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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


def check_descriptors(count: int) -> None:
    """Raise OSError (EMFILE, ENFILE) unless that many descriptors are free.

    Used where the failing step would not report the reason itself.
    """
    made: list[int] = []
    try:
        while len(made) < count:
            made.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    finally:
        for fd in made:
            os.close(fd)


def has_filter() -> bool:
    """Whether this process has a seccomp filter; source: Seccomp in status."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return any(line.split() == ["Seccomp:", "2"] for line in status)
    return False


def why_it_stands(pid: int) -> tuple[str, str] | None:
    """Return why a process does not run, and a remedy; None: no reason is visible."""
    for folder in _cgroups(pid):
        if "frozen 1" in _text(f"{folder}/cgroup.events") or "FROZEN" in _text(
            f"{folder}/freezer.state"
        ):
            return (
                "does not run: its cgroup is frozen, as a paused container is",
                f"thaw it first: {folder}",
            )
        quota = _quota(folder)
        throttled = re.search(r"nr_throttled ([1-9]\d*)", _text(f"{folder}/cpu.stat"))
        if quota and throttled:
            share, path = quota
            return (
                f"is throttled: its cgroup may use {share:.2g} % of a processor",
                f"raise its quota for the attach: {path}",
            )
    return None


def _quota(folder: str) -> tuple[float, str] | None:
    """Return what a cgroup may use of a processor, in percent, and what says so."""
    path = f"{folder}/cpu.max"
    if found := re.match(r"(\d+) (\d+)", _text(path)):
        return 100 * int(found[1]) / int(found[2]), path
    path = f"{folder}/cpu.cfs_quota_us"  # cgroup v1
    quota, period = _text(path), _text(f"{folder}/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return 100 * int(quota) / int(period), path
    return None


def _cgroups(pid: int) -> Iterator[str]:
    """Yield a process's cgroup folders and their parents, in all hierarchies."""
    places = []
    for line in _text("/proc/self/mounts").splitlines():
        place, kind, options = line.split()[1:4]
        if kind in ("cgroup", "cgroup2"):
            places.append((place, kind, options.split(",")))
    for line in _text(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for place, kind, mounted in places:
            unified = kind == "cgroup2" and not controllers
            if not unified and not set(controllers.split(",")) & {*mounted} - {""}:
                continue
            while path not in ("", "/"):
                yield f"{place}{path}"
                path = os.path.dirname(path)


def _text(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def why_not_run(path: str, code: int) -> str:
    """Return why a program cannot be run, from its errno and a look at its file."""
    why = os.strerror(code).lower()
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return why
    needs = _interpreter(head)
    if code == errno.ENOENT and needs and not os.path.exists(needs):
        return f"its interpreter {needs!r} is missing"
    if code == errno.EACCES and needs and not os.access(needs, os.X_OK):
        return f"its interpreter {needs!r} may not be run"
    if code == errno.EACCES and os.statvfs(path).f_flag & os.ST_NOEXEC:
        return "its file system is mounted with noexec"
    if code == errno.ENOEXEC:
        elf = head.startswith(b"\x7fELF")
        return (
            "it is a program for another processor, or a damaged one"
            if elf
            else "it is neither a program nor a script that begins with #!"
        )
    return why


def _interpreter(head: bytes) -> str | None:
    """Return the interpreter of a program: of its #! line, or its dynamic linker."""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n")[0].split(None, 1)
        return os.fsdecode(words[0]) if words else None
    if head[:6] != b"\x7fELF\x02\x01":
        return None
    begin = int.from_bytes(head[32:40], "little")
    size = int.from_bytes(head[54:56], "little")
    for at in range(int.from_bytes(head[56:58], "little")):
        entry = head[begin + at * size :][:56]
        if int.from_bytes(entry[:4], "little") == 3:  # PT_INTERP
            offset = int.from_bytes(entry[8:16], "little")
            return os.fsdecode(head[offset:].split(b"\0")[0]) or None
    return None


def rights_lost(path: str) -> str | None:
    """Return the remark that a program runs without its additional rights, or None.

    A program that is traced at its exec does not get them. Source: ptrace(2) and
    execve(2). A tracing root takes none away.
    """
    if not os.geteuid():
        return None
    with contextlib.suppress(OSError):
        facts = os.stat(path)
        if facts.st_mode & stat.S_ISUID and facts.st_uid != os.geteuid():
            what = f"set-user-ID of uid {facts.st_uid}"
        elif facts.st_mode & stat.S_ISGID and facts.st_mode & stat.S_IXGRP:
            what = f"set-group-ID of gid {facts.st_gid}"
        elif "security.capability" in os.listxattr(path):
            what = "a program with capabilities of its own"
        else:
            return None
        return f"{path} is {what}: it runs without these rights while it is traced"
    return None
