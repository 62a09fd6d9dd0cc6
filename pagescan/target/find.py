"""Finds the process that a user names: by its pid, or by a name that it has."""

import contextlib
import os
import re
from typing import NamedTuple

from pagescan.model.errors import NoSuchTargetError, TargetError
from pagescan.model.units import escape
from pagescan.target.process import PF_KTHREAD, check_proc, executable, read_stat

_PID_DIGITS = 18
_LISTED = 20
_WIDTH = 60
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_OURS = ("pagescan", "pagescan.pyz")


class Named(NamedTuple):
    """A process and its names."""

    start_time: int
    pid: int
    names: frozenset[str]
    ours: bool
    """Whether the process belongs to this user."""


def find_pid(text: str, *, oldest: bool = False) -> int:
    """Return the pid that TARGET names: a pid, or a name that one process has.

    A name is the kernel's (15 bytes) or the basename of the executable. Processes of
    pagescan itself never match. Processes of other users match only if none of this
    user's does; for root all processes count alike.

    Args:
        text: TARGET.
        oldest: If several match, take the oldest.

    Raises:
        NoSuchTargetError: No process has the name.
        TargetError: Several processes match; the message lists them, the oldest first.
    """
    if text.isascii() and text.isdigit():
        if len(text) > _PID_DIGITS:
            raise NoSuchTargetError(f"no process with pid {text[:_PID_DIGITS]}…")
        return int(text)
    check_proc()
    matches = sorted(named for named in named_processes() if text in named.names)
    if os.geteuid():
        matches = [named for named in matches if named.ours] or matches
    if not matches:
        hint = "a shell's own pid is $$: pagescan maps $$" if text == "self" else None
        raise NoSuchTargetError(f"no process is named {text!r}", hint=hint)
    if len(matches) == 1 or oldest:
        return matches[0].pid
    listed = "; ".join(
        f"{named.pid} {_command_line(named.pid)}".rstrip()
        for named in matches[:_LISTED]
    )
    more = "; …" if len(matches) > _LISTED else ""
    raise TargetError(
        f"{len(matches)} processes are named {text!r}, the oldest first:"
        f" {listed}{more}",
        hint="give the pid of one of them, or take the oldest with --oldest",
    )


def pid_of(target: int | str | None) -> int:
    """Return the pid of a target as the library takes it.

    Args:
        target: A pid; a name, as the commands take it; None: this process.

    Raises:
        NoSuchTargetError: No process has the name.
        TargetError: Several have.
    """
    if target is None:
        return os.getpid()
    return find_pid(target) if isinstance(target, str) else target


def processes() -> list[int]:
    """Return all visible pids, ascending."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def named_processes() -> list[Named]:
    """Return the processes that a name may mean: all but kernel threads and pagescan.

    A process that ends at that moment is left out.
    """
    user = os.geteuid()
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            stat = read_stat(pid)
            if stat.flags & PF_KTHREAD or stat.state in "ZX":
                continue
            program = os.path.basename(executable(pid) or "").removesuffix(" (deleted)")
            if pid == os.getpid() or is_pagescan(_words(pid), program):
                continue
            names = frozenset({stat.name, program} - {""})
            ours = os.stat(f"/proc/{pid}").st_uid == user
            found.append(Named(stat.start_time, pid, names, ours))
    return found


def _words(pid: int) -> list[str]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return os.fsdecode(file.read(4096)).split("\0")


def _command_line(pid: int) -> str:
    """Return the command line of a process as one short, escaped line."""
    try:
        line = escape(" ".join(_words(pid)).strip())
    except OSError:
        return ""
    half = _WIDTH // 2
    return line if len(line) <= _WIDTH else f"{line[:half]}…{line[-half:]}"


def is_pagescan(words: list[str], program: str) -> bool:
    """Whether a process is a pagescan command or keeper: a Python that runs pagescan.

    The words are interpreted as Python does; a mere word "pagescan" is not enough.
    """
    if not _PYTHON.fullmatch(program):
        return False
    at = 1
    while at < len(words) and words[at].startswith("-"):
        word = words[at]
        if word.startswith(("-W", "-X", "--")):
            at += 2 if word in ("-W", "-X", "--check-hash-based-pycs") else 1
            continue
        flags, module, attached = word[1:].partition("m")
        if "c" in flags:
            return False
        if module:
            name = attached or "".join(words[at + 1 : at + 2])
            return name.split(".")[0] == "pagescan"
        at += 1
    return at < len(words) and os.path.basename(words[at]) in _OURS
