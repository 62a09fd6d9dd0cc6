"""An open process, protected against confusion with a later one of the same pid."""

import contextlib
import errno
import fcntl
import os
import re
import select
from functools import cache
from typing import NamedTuple, Self

from pagescan import native
from pagescan.model.errors import (
    AccessDeniedError,
    NoSuchTargetError,
    TargetError,
    UnsuitableTargetError,
    from_oserror,
)
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import TargetFacts
from pagescan.model.units import escape
from pagescan.target.causes import has_filter
from pagescan.target.living import (
    executable,
    has_address_space,
    is_exiting,
    memory_dir,
    program_name,
)

PF_KTHREAD = 0x00200000  # include/linux/sched.h


class Stat(NamedTuple):
    """The fields of /proc/PID/stat; source: proc_pid_stat(5)."""

    name: str
    state: str
    flags: int
    start_time: int
    parent: int


def read_stat(pid: int) -> Stat:
    """Read /proc/PID/stat; FileNotFoundError, ProcessLookupError: it is gone."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return parse_stat(file.read())


def parse_stat(text: bytes) -> Stat:
    """Return the fields of the text of /proc/PID/stat.

    An empty name becomes that of the program, or the pid if that is hidden. The start
    time is the machine's, whatever the time namespace of this process.
    """
    # The name may contain any character, also ")": the last one is the end.
    head, _, tail = text.rpartition(b")")
    fields = tail.split()
    first, _, comm = head.partition(b"(")
    pid = int(first)
    name = os.fsdecode(comm) or program_name(pid) or str(pid)
    start_time = int(fields[19]) - time_offset()
    return Stat(name, fields[0].decode(), int(fields[6]), start_time, int(fields[1]))


@cache
def time_offset() -> int:
    """Return what this time namespace adds to a start time, in clock ticks.

    Source: time_namespaces(7); 0 in the initial one.
    """
    try:
        with open("/proc/self/timens_offsets") as file:
            rows = dict(line.split(None, 1) for line in file)
        seconds, nanoseconds = map(int, rows["boottime"].split())
    except (OSError, KeyError, ValueError):
        return 0
    return round((seconds + nanoseconds / 1e9) * os.sysconf("SC_CLK_TCK"))


def read_status(pid: int) -> dict[str, str]:
    """Read /proc/PID/status as a dict; the values are stripped."""
    with open(f"/proc/{pid}/status", errors="surrogateescape") as file:
        text = file.read()
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


class Target:
    """An open process: its pagemap, a pidfd, and the facts that identify it.

    A context manager. Closing it closes the descriptors and changes nothing else.

    Attributes:
        facts: Pid, name, exe, start time, page size.
        pagemap: /proc/PID/pagemap of the current address space, opened read-only.
        pidfd: Becomes readable when the process has ended.
        meter: What calls cost it that are no scans: reading its mappings, attaching,
            registering. `Scanner.take_cost` counts them with its own.
        tracee: The tracer of a program that this process has started: an attach goes
            through it. None: another process.
    """

    def __init__(self, facts: TargetFacts, pidfd: int, pagemap: int) -> None:
        """Take over the descriptors; only `open` calls this."""
        self.facts = facts
        self.pidfd = pidfd
        self.pagemap = pagemap
        self.meter = native.Meter()
        self.tracee: native.Tracee | None = None

    @classmethod
    def open(cls, pid: int, *, start_time: int | None = None) -> Self:
        """Open a process, so that it can be looked at.

        Args:
            pid: Its process id in this pid namespace.
            start_time: The required start time, from an earlier look.

        Raises:
            NoSuchTargetError: No process has that pid, or a later process has it.
            UnsuitableTargetError: A thread id, a kernel thread, a zombie.
            AccessDeniedError: The kernel does not let this user read its memory map.
        """
        check_proc()
        with contextlib.ExitStack() as undo:
            pidfd = above_stdio(open_pidfd(pid))
            undo.callback(os.close, pidfd)
            stat = suitable_stat(pid)
            if start_time is not None and stat.start_time != start_time:
                raise NoSuchTargetError(
                    f"process {pid} is gone; its pid belongs to {stat.name!r} now",
                    pid=pid,
                )
            pagemap = above_stdio(_open_pagemap(pid, stat))
            undo.pop_all()
        facts = TargetFacts(pid, stat.name, executable(pid), stat.start_time, PAGE_SIZE)
        return cls(facts, pidfd, pagemap)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.facts.pid

    def __str__(self) -> str:
        return f"{self.facts.pid} ({escape(self.facts.name)})"

    def exited(self) -> bool:
        """Whether the process has ended (it may still be a zombie)."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def has_address_space(self) -> bool:
        """Whether the address space that was opened still exists: no exec, no exit."""
        return has_address_space(self.pagemap)

    def check_alive(self) -> None:
        """Raise the error of `gone` unless the address space still exists."""
        if not has_address_space(self.pagemap):
            raise self.gone()

    def gone(self, error: OSError | None = None) -> TargetError:
        """Return the error that tells how the address space ended.

        Args:
            error: The failure that has shown it, if there was one.
        """
        code = error.errno if error else None
        if self.exited() or is_exiting(self.pid):
            return NoSuchTargetError(
                f"process {self} has ended", pid=self.pid, errno=code
            )
        return UnsuitableTargetError(
            f"process {self} runs another program by now (exec)",
            hint=f"start over with: pagescan arm {self.pid}",
            pid=self.pid,
            errno=code,
        )

    def close(self) -> None:
        """Close the descriptors; a second call has no effect."""
        for name in ("pidfd", "pagemap"):
            fd = getattr(self, name)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_pidfd(pid: int) -> int:
    """Return a pidfd; refuse the id of a thread, and one that is not used."""
    try:
        return os.pidfd_open(pid)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in (
            errno.ESRCH,
            errno.EINVAL,
            errno.ENOENT,  # 6.15 and later, for a thread id
        ):
            raise from_oserror(
                error, doing=f"open process {pid}", call="pidfd_open"
            ) from error
        raise _no_such(pid, error) from error


def above_stdio(fd: int) -> int:
    """Return a duplicate above 2 of a descriptor that may be 0, 1 or 2.

    A host that has closed those would write into it, or open another file in its place.
    """
    if fd > 2:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)


def check_proc() -> None:
    """Raise unless /proc shows the processes that pids of this process name.

    Raises:
        NoSuchTargetError: /proc is not mounted, or belongs to another PID namespace.
    """
    try:
        shown = os.readlink("/proc/self")
    except OSError:
        shown = None
    if shown == str(os.getpid()):
        return
    if not os.path.exists("/proc/version"):
        raise NoSuchTargetError(
            "/proc is not mounted: no process can be looked at",
            hint="mount -t proc proc /proc",
        )
    raise NoSuchTargetError(
        "/proc belongs to another PID namespace: a pid means another process there",
        hint="unshare --mount-proc, or mount -t proc proc /proc in this namespace",
    )


def _no_such(pid: int, error: Exception) -> TargetError:
    """Return the error for a pid without a process: a thread's id, or unused."""
    code = error.errno if isinstance(error, OSError) else None
    with contextlib.suppress(OSError, KeyError, ValueError):
        leader = int(read_status(pid)["Tgid"])
        if leader != pid:
            return UnsuitableTargetError(
                f"{pid} is a thread, not a process",
                hint=f"its process is {leader}",
                pid=pid,
                errno=code,
            )
    return NoSuchTargetError(f"no process with pid {pid}", pid=pid, errno=code)


def suitable_stat(pid: int) -> Stat:
    """Return the facts of a process; refuse a kernel thread and a zombie."""
    try:
        stat = read_stat(pid)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise _hidden(pid) or _no_such(pid, error) from error
    except PermissionError as error:
        raise _hidden(pid) or denied(pid, f"look at {pid}", "open", error) from error
    except OSError as error:  # of this process: no descriptor, no memory
        raise from_oserror(
            error, doing=f"look at {pid}", pid=pid, call="open"
        ) from error
    if stat.flags & PF_KTHREAD:
        raise UnsuitableTargetError(
            f"{pid} ({stat.name}) is a kernel thread: it has no memory of its own",
            pid=pid,
        )
    if stat.state in "ZXx" and memory_dir(pid) == f"/proc/{pid}":
        raise UnsuitableTargetError(
            f"{pid} ({stat.name}) is a zombie: it has ended, its memory is gone",
            pid=pid,
        )
    return stat


def _hidden(pid: int) -> AccessDeniedError | None:
    """Return the error for an existing process that /proc hides."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it exists, and belongs to another user
    how = _mount_option("hidepid")
    if how in (None, "0", "off"):
        return None
    return AccessDeniedError(
        f"cannot look at {pid}: /proc hides other users' processes (hidepid={how})",
        hint="run as root, or in the group that the mount option gid names",
        pid=pid,
    )


def _mount_option(name: str) -> str | None:
    """Return a mount option of the visible /proc; source: /proc/self/mounts."""
    value = None
    with contextlib.suppress(OSError), open("/proc/self/mounts") as mounts:
        for line in mounts:
            place, kind, options = line.split()[1:4]
            if (place, kind) == ("/proc", "proc"):
                found = re.search(rf"\b{name}=(\w+)", options)
                value = found[1] if found else None
    return value


def _open_pagemap(pid: int, stat: Stat) -> int:
    try:
        return os.open(f"{memory_dir(pid)}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise denied(pid, f"look at {pid} ({stat.name})", "open", error) from error
        raise from_oserror(
            error, doing=f"look at {pid} ({stat.name})", pid=pid, call="open"
        ) from error


def denied(
    pid: int, doing: str, call: str, error: OSError | None = None
) -> AccessDeniedError:
    """Return the error for denied access: whose process it is, and a remedy."""
    why, hint = "the kernel does not let this user trace it", "run as root"
    with contextlib.suppress(OSError, KeyError, ValueError, IndexError):
        uids = {int(uid) for uid in read_status(pid)["Uid"].split()}
        mine = os.geteuid()
        if has_filter() and (mine == 0 or uids == {mine}):
            why = "a seccomp filter around pagescan may forbid it, as in a container"
            hint = "run it outside, or with --security-opt seccomp=unconfined"
        elif mine == 0:
            why = "it has capabilities that this process lacks"
            hint = "run as root outside the container, with CAP_SYS_PTRACE"
        elif uids != {mine}:
            owner = ", ".join(str(uid) for uid in sorted(uids))
            why = f"it belongs to uid {owner}, and this user is uid {mine}"
            who = "root" if uids == {0} else f"root or as uid {owner}"
            hint = f"run as {who}; see PERMISSIONS in pagescan(1)"
        elif os.stat(f"/proc/{pid}/status").st_uid != mine:
            why = "it is not dumpable: setuid, or it protects itself (prctl)"
        else:
            level = yama_scope()
            if level != "0":
                why = f"Yama restricts tracing (ptrace_scope is {level})"
                hint = "run as root, or: sysctl kernel.yama.ptrace_scope=0"
    code = error.errno if error else None
    return AccessDeniedError(
        f"cannot {doing}: {why}", hint=hint, pid=pid, call=call, errno=code
    )


def yama_scope() -> str:
    """Return how far Yama restricts tracing, from "0" (not at all) to "3"."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            return file.read().strip()
    except OSError:
        return "0"


def tracer_of(pid: int) -> tuple[int, str] | None:
    """Return pid and name of the process that traces a process; None: no tracer.

    Raises:
        PagescanError: /proc/PID/status does not tell: that is not taken for a no.
    """
    try:
        tracer = int(read_status(pid)["TracerPid"])
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has ended, which other code reports
    except OSError as error:
        raise from_oserror(
            error, doing=f"see whether {pid} is traced", pid=pid, call="open"
        ) from error
    except (KeyError, ValueError) as error:
        raise UnsuitableTargetError(
            f"/proc/{pid}/status does not say whether the process is traced"
        ) from error
    if not tracer:
        return None
    with contextlib.suppress(OSError):
        return tracer, read_stat(tracer).name
    return tracer, "hidden"
