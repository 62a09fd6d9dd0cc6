"""The locks of sessions, and their directories: takes, lists and reads them.

A session is two files in a directory that only its owner can enter, and further ones as
needed:

    PID.lock    the facts, as JSON; locked (flock) while its holder lives
    PID.sock    the keeper's socket; `watch` and `track()` have none
    PID.pages   pages that the last checkpoint may lack; see pending.py
    PID.found   the result of a look that rearmed, until its output is complete
    PID.huge    memory that was in huge pages when it was protected
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Self

from pagescan.model.errors import PagescanError, SessionError, from_oserror
from pagescan.model.units import format_time
from pagescan.session.files import (
    MESSAGE_LIMIT,
    SUFFIXES,
    facts_of,
    lock_inode,
    remove_files,
    write_facts,
)
from pagescan.session.record import Session
from pagescan.target.process import above_stdio

_A_MOMENT = 1.0  # seconds until a reader releases a lock, or a writer is done


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
        PagescanError: None of them belongs to this user with mode 0700, and is no link;
            or there are too many open files.
    """
    reasons = []
    for path in directories():
        try:
            if create:
                _make_own(path)
            return open_own(path)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise from_oserror(
                    error, doing=f"open the sessions' directory {path}", call="open"
                ) from error
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


class Lock:
    """The lock file of one target; the process that tracks the target holds the lock.

    Attributes:
        directory: Descriptor of its directory.
        fd: The locked file; the lock goes with its last duplicate.
    """

    def __init__(self, directory: int, fd: int, pid: int) -> None:
        """Take over the descriptors; only `take` calls this."""
        self.directory = directory
        self.fd = fd
        self.pid = pid

    @classmethod
    def take(cls, pid: int) -> Self:
        """Lock a target for this process.

        Raises:
            SessionError: The target is tracked already; the message names the session.
        """
        for file in lock_files(pid):
            if not file.held:
                file.remove()  # in whichever directory a dead holder has left them
            elif other := file.read():
                raise tracked_already(other)
        directory = open_directory(create=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        deadline = time.monotonic() + _A_MOMENT
        while True:
            try:
                fd = above_stdio(os.open(f"{pid}.lock", flags, 0o600, dir_fd=directory))
            except OSError as error:
                os.close(directory)
                raise from_oserror(
                    error, doing=f"make the lock file of {pid}", call="open"
                ) from error
            if not _try_lock(fd):
                session = _read(fd)
                os.close(fd)
                if time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                os.close(directory)
                raise tracked_already(session, pid)
            os.fchmod(fd, 0o600)  # whatever the caller's umask
            # Its last holder may have removed it between this open and this lock.
            lock = cls(directory, fd, pid)
            if lock.is_ours():
                remove_files(directory, pid, SUFFIXES[:-1])  # a dead holder's
                if lock.is_new():
                    return lock
            lock.remove()
            os.close(fd)

    @classmethod
    def taken(cls, pid: int, undo: contextlib.ExitStack) -> Self:
        """Lock a target for this process, until `undo` ends.

        Raises:
            SessionError: As for `take`.
        """
        from pagescan.console.interrupts import one_step

        with one_step():
            lock = cls.take(pid)
            undo.callback(lock.close)
            undo.callback(lock.remove)
        return lock

    def is_new(self) -> bool:
        """Whether no holder had it before: each session has a lock file of its own."""
        facts = os.fstat(self.fd)
        return stat.S_ISREG(facts.st_mode) and not facts.st_size

    def is_ours(self) -> bool:
        """Whether the name still refers to the file that this object has locked."""
        return lock_inode(self.directory, self.pid) == os.fstat(self.fd).st_ino

    def write(self, session: Session) -> None:
        """Write the facts, for commands that list sessions.

        Raises:
            PagescanError: They are not on disk.
        """
        try:
            write_facts(self.fd, session.to_json())
        except OSError as error:
            raise not_on_disk(error, self.pid) from error

    def remove(self) -> None:
        """Remove the files while they belong to this lock; closing it unlocks."""
        if self.is_ours():
            remove_files(self.directory, self.pid)

    def close(self) -> None:
        """Close the descriptors; duplicates elsewhere keep the lock."""
        os.close(self.fd)
        os.close(self.directory)


def not_on_disk(error: OSError, pid: int) -> PagescanError:
    """Return the error that tells why a session cannot be stored."""
    directory = preferred_directory()
    failed = from_oserror(
        error, doing=f"store the session of {pid} in {directory}", call="pwrite"
    )
    failed.hint = {
        errno.ENOSPC: f"make room in {directory}: some kilobytes are enough",
        errno.EDQUOT: f"make room in {directory}: a quota is used up",
        errno.EFBIG: "the limit of file sizes is too low: ulimit -f",
    }.get(error.errno or 0, failed.hint)
    return failed


def tracked_already(session: Session | None, pid: int = 0) -> SessionError:
    """Return the error that names the process that tracks a target."""
    if session is None or not session.keeper_pid:
        pid = pid if session is None else session.target.pid
        return SessionError(f"process {pid} is being armed by another command")
    target = f"{session.target.pid} ({session.target.name})"
    if session.holder == "keeper":
        words = session.name if session.group is None else session.group.words
        return SessionError(
            f"{target} is tracked already: session {words},"
            f" armed {format_time(session.armed_at)}",
            hint=f"pagescan diff {words}, or pagescan disarm {words}",
        )
    return SessionError(
        f"{target} is tracked already: by {session.holder}, pid {session.keeper_pid}",
        hint="end that first",
    )


def _try_lock(fd: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Session | None:
    """Read the facts of a lock file; None: they are not valid."""
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
    ):
        size = os.fstat(fd).st_size
        if 0 < size <= MESSAGE_LIMIT:
            text = os.pread(fd, size, 0).decode()
            # Earlier facts may have been longer, so that their end remains.
            facts, _ = json.JSONDecoder().raw_decode(text)
            return Session.from_json(facts)
    return None


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock file; its descriptors are open until `lock_files` goes on to the next.

    Attributes:
        held: Whether its holder lives.
    """

    directory: int
    fd: int
    pid: int
    held: bool

    def read(self) -> Session | None:
        """Return its facts; wait for a holder that is just writing them."""
        deadline = time.monotonic() + _A_MOMENT
        while True:
            session = _read(self.fd)
            if session is not None and session.target.pid == self.pid:
                return session
            if not self.held:
                return None
            if not os.fstat(self.fd).st_size or time.monotonic() > deadline:
                return self._ask()
            time.sleep(0.001)

    def _ask(self) -> Session | None:
        """Ask the keeper, whose facts are valid even if the file is damaged."""
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
        ):
            session = Session.from_json(facts_of(self.directory, self.pid))
            return session if session.target.pid == self.pid else None
        return None

    def remove(self) -> None:
        """Remove the session's files, unless another process has taken the lock."""
        if _try_lock(self.fd) and Lock(self.directory, self.fd, self.pid).is_ours():
            remove_files(self.directory, self.pid)


def lock_files(only: int | None = None) -> Iterator[LockFile]:
    """Yield each lock file of this user, by pid in each directory.

    Args:
        only: The pid whose lock files are wanted; None: all.
    """
    for path in directories():
        try:
            directory = open_own(path)
        except OSError:
            continue
        try:
            for pid in sorted(_pids_in(directory)) if only is None else [only]:
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    fd = os.open(f"{pid}.lock", flags, dir_fd=directory)
                    try:
                        # Shared: two readers with LOCK_EX would see a holder.
                        held = not _try_lock(fd, fcntl.LOCK_SH)
                        yield LockFile(directory, fd, pid, held)
                    finally:
                        os.close(fd)
        finally:
            os.close(directory)


def _pids_in(directory: int, suffixes: Collection[str] = ("lock",)) -> Iterator[int]:
    for name in os.listdir(directory):
        stem, _, suffix = name.partition(".")
        if suffix in suffixes and stem.isascii() and stem.isdigit():
            yield int(stem)


def remove_orphans() -> None:
    """Remove files that have no lock file: of a result that was stored too late.

    A keeper that ends with its target removes all files, and a command may be storing
    one at that moment.
    """
    for path in directories():
        with contextlib.suppress(OSError):
            directory = open_own(path)
            try:
                locked = set(_pids_in(directory))
                for pid in set(_pids_in(directory, SUFFIXES)) - locked:
                    _remove_orphan(directory, pid)
            finally:
                os.close(directory)


def _remove_orphan(directory: int, pid: int) -> None:
    """Remove files under a lock, unless a session has begun in the meantime."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        fd = os.open(f"{pid}.lock", flags, 0o600, dir_fd=directory)
        try:
            LockFile(directory, fd, pid, held=False).remove()
        finally:
            os.close(fd)


def is_held(directory: int, pid: int, fd: int) -> bool:
    """Whether an open lock file is still in place, and its holder lives."""
    if lock_inode(directory, pid) != os.fstat(fd).st_ino:
        return False
    if _try_lock(fd, fcntl.LOCK_SH):
        fcntl.flock(fd, fcntl.LOCK_UN)
        return False
    return True


def live_sessions(only: int | None = None) -> list[Session]:
    """Return the sessions whose holders live, by pid; or those of one pid."""
    sessions = [file.read() for file in lock_files(only) if file.held]
    return [session for session in sessions if session is not None]
