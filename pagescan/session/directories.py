"""Finds the directories of sessions, and checks that only this user has access."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pagescan.model.errors import PagescanError
from pagescan.target.process import above_stdio


def directories() -> list[str]:
    """Return the possible session directories of this user, the preferred one first."""
    uid = os.geteuid()
    if uid == 0:
        return ["/run/pagescan"]
    places = [
        f"/run/user/{uid}/pagescan",
        f"/tmp/pagescan-{uid}",  # noqa: S108 - used only if it is ours alone
    ]
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):  # the specification says to ignore a relative one
        places.insert(0, os.path.join(runtime, "pagescan"))
    return list(dict.fromkeys(places))


def open_directory(*, create: bool = False) -> int:
    """Return a descriptor of the preferred session directory; make it if necessary.

    Raises:
        PagescanError: None of them belongs to this user with mode 0700, and is no link.
    """
    reasons = []
    for path in directories():
        try:
            if create:
                _make_own(path)
            return open_own(path)
        except OSError as error:
            reasons.append(f"{path} ({(error.strerror or str(error)).lower()})")
    raise PagescanError(
        f"no directory for sessions: {', '.join(reasons)}",
        hint="one of them must belong to this user, with mode 0700, and be no link",
    )


def _make_own(path: str) -> None:
    """Make a directory if it is missing, with mode 0700 whatever the umask."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)


def open_own(path: str) -> int:
    """Open a directory; PermissionError if another user can enter it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = above_stdio(os.open(path, flags))
    facts = os.fstat(fd)
    if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) & 0o077 == 0:
        return fd
    os.close(fd)
    raise PermissionError(errno.EACCES, "not this user's alone", path)


def preferred_directory() -> str:
    """Return the path of the directory for new sessions of this user."""
    for path in directories():
        with contextlib.suppress(OSError):
            os.close(open_own(path))
            return path
    return directories()[0]
