"""Finds the process that a user names: by its pid, or by a name that it has."""

import os
import re
from typing import NamedTuple

from pagescan.model.errors import (
    NoSuchTargetError,
    TargetError,
    UsageError,
    from_oserror,
)
from pagescan.model.units import escape
from pagescan.target.living import program_name
from pagescan.target.process import PF_KTHREAD, check_proc, read_stat

_PID_DIGITS = 18
_LISTED = 20
_WIDTH = 60
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_WORDS = {
    "self": "a shell's own pid is $$: pagescan maps $$",
    "all": "did you mean --all?",
}
"""Words that are no TARGET, and what to write in place of them."""
_OURS = ("pagescan", "pagescan.pyz")


class Named(NamedTuple):
    """A process and its names."""

    start_time: int
    pid: int
    names: frozenset[str]
    ours: bool
    """Whether the process belongs to this user."""
    parent: int
    """The pid of the process that started it, or has taken its place."""


def find_pid(
    text: str, *, oldest: bool = False, tree: bool = False, options: str = ""
) -> int:
    """Return the pid that TARGET names: a pid, or a name that one process has.

    A name is the kernel's (15 bytes) or the basename of the executable. Processes of
    pagescan itself never match. Processes of other users match only if none of this
    user's does; for root all processes count alike.

    Args:
        text: TARGET.
        oldest: If several match, take the oldest.
        tree: If several match, and one of them is the ancestor of all others, take it.
        options: The options that the hint may name, as in "--oldest --tree".

    Raises:
        NoSuchTargetError: No process has the name; its details list those with such a
            command line, the oldest first.
        TargetError: Several processes match; its details list them, the oldest first.
        UsageError: The text is empty.
    """
    if text.isascii() and text.isdigit():
        if len(text) > _PID_DIGITS:
            raise NoSuchTargetError(f"no process with pid {text[:_PID_DIGITS]}…")
        return int(text)
    if not text:
        raise UsageError("an empty TARGET names no process")
    check_proc()
    everyone = sorted(named_processes())
    matches = [named for named in everyone if text in named.names]
    if os.geteuid():
        matches = [named for named in matches if named.ours] or matches
    if not matches:
        raise _no_such(text, everyone, options)
    if len(matches) == 1 or oldest:
        return matches[0].pid
    root = _root(matches, everyone)
    if tree and root is not None:
        return root
    hint = "give the pid of one of them"
    if "--tree" in options and root is not None:
        hint = f"they are one tree: --tree takes all of them, --oldest only {root}"
    elif "--oldest" in options:
        hint += f", or take the oldest, {matches[0].pid}, with --oldest"
    raise TargetError(
        f"{len(matches)} processes are named {text!r}, the oldest first",
        hint=hint,
        details=_listed([named.pid for named in matches]),
    )


def _root(matches: list[Named], everyone: list[Named]) -> int | None:
    """Return the pid of the process that is the ancestor of all others; None: none is.

    Args:
        matches: The processes.
        everyone: All processes.
    """
    parents = {named.pid: named.parent for named in everyone}
    pids = {named.pid for named in matches}
    roots = []
    for pid in pids:
        above = parents[pid]
        while above in parents and above not in pids:
            above = parents[above]
        if above not in pids:
            roots.append(pid)
    return roots[0] if len(roots) == 1 else None


def _no_such(text: str, everyone: list[Named], options: str) -> NoSuchTargetError:
    """Return the error for a name that no process has."""
    certain = _certainly_meant(text)
    started = [named.pid for named in everyone if text in _basenames(named.pid)]
    if certain or not started:
        hint = certain or _meant(text) or name_meant(text, everyone)
        if "--tree" in options and set(text) & set("*|^$+"):
            hint = f"a name has no wildcards: did you mean --match '{_regex(text)}'?"
        return NoSuchTargetError(f"no process is named {text!r}", hint=hint)
    return NoSuchTargetError(
        f"no process is named {text!r}, but it is in a command line",
        hint=f"give the pid, as in ps -e; {started[0]} is the oldest one",
        details=_listed(started),
    )


def _listed(pids: list[int]) -> list[str]:
    """Return a line per process: its pid and its command line."""
    shown = pids[:_LISTED]
    width = max(len(str(pid)) for pid in shown)
    lines = [f"  {pid:>{width}}  {_command_line(pid)}".rstrip() for pid in shown]
    if len(pids) > _LISTED:
        lines.append(f"  … and {len(pids) - _LISTED} more")
    return lines


def _certainly_meant(text: str) -> str | None:
    """Return the hint for a TARGET that can be no process, though one may name it.

    Of a recording, that is the process that writes it.
    """
    if found := re.fullmatch(r"/proc/(\d+)(/.*)?", text):
        return f"did you mean {found[1]}?"
    if text.endswith(".pagescan") and os.path.isfile(text):
        return _hint_to_report(text)
    return _WORDS.get(text)


def _hint_to_report(text: str) -> str:
    return (
        f"TARGET is a process; a recording: pagescan report {text}, or pagescan"
        " diff OLD NEW"
    )


def _meant(text: str) -> str | None:
    """Return a hint for a TARGET that is no process; None: no hint."""
    if os.path.isfile(text) and not os.access(text, os.X_OK):
        return _hint_to_report(text)
    import shutil

    name, program = os.path.basename(text), shutil.which(text)
    if name and name != text:
        return f"TARGET is a pid, or a name as in ps -e: {name!r}"
    return f"to start it: pagescan watch -- {text}" if program else None


def name_meant(text: str, everyone: list[Named]) -> str | None:
    """Return the hint for a name that is nearly that of a process; None: no hint."""
    from difflib import get_close_matches

    names = sorted({name for named in everyone for name in named.names})
    wanted = text.lower()
    near = [name for name in names if name.lower() == wanted]
    if not near and len(text) > 2:
        near = [name for name in names if name.lower().startswith(wanted)]
    near = near or get_close_matches(text, names, 3, 0.75)
    if not near:
        return None
    return f"did you mean {' or '.join(repr(escape(name)) for name in near[:3])}?"


def _regex(text: str) -> str:
    """Return the regular expression of a pattern with the wildcard *."""
    return re.sub(r"(?<!\.)\*", ".*", text).removesuffix(".*")


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
    """Return all visible pids, ascending.

    Raises:
        PagescanError: This process has no descriptor left, or no memory.
    """
    try:
        names = os.listdir("/proc")
    except OSError as error:
        raise from_oserror(error, doing="list the processes", call="open") from error
    return sorted(int(name) for name in names if name.isdigit())


def named_processes() -> list[Named]:
    """Return the processes that a name may mean: all but kernel threads and pagescan.

    A process that ends at that moment is left out.
    """
    from pagescan.target.proc_files import if_it_lives  # a pid needs no search

    user = os.geteuid()
    found = []
    for pid in processes():
        doing = f"look at {pid}"
        with if_it_lives(pid, doing=doing, call="open", or_hidden=True):
            stat = read_stat(pid)
            if stat.flags & PF_KTHREAD or stat.state in "ZX":
                continue
            program = program_name(pid)
            if pid == os.getpid() or is_pagescan(_words(pid), program):
                continue
            names = frozenset({stat.name, program} - {""})
            ours = os.stat(f"/proc/{pid}").st_uid == user
            found.append(Named(stat.start_time, pid, names, ours, stat.parent))
    return found


def _words(pid: int) -> list[str]:
    from pagescan.target.proc_files import command_words  # as above

    return command_words(pid)


def _basenames(pid: int) -> list[str]:
    """Return the words of a command line without their folders.

    What sudo or timeout hand to pagescan is left out: it names the target, as the user
    wrote it.
    """
    words = [os.path.basename(word) for word in _words(pid)]
    return next((words[:at] for at, word in enumerate(words) if word in _OURS), words)


def _command_line(pid: int) -> str:
    """Return the command line of a process as one short, escaped line."""
    line = escape(" ".join(_words(pid)).strip())
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
