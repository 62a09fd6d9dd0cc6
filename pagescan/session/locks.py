"""The locks of sessions: takes them, lists them, and tells lost ones.

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
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pagescan.model.errors import (
    AccessDeniedError,
    PagescanError,
    SessionError,
    SessionLostError,
    UsageError,
    from_oserror,
)
from pagescan.model.units import format_time
from pagescan.native import Meter, Pace, Spans, scan
from pagescan.session import wire
from pagescan.session.files import directories, open_directory, open_own, unlink_quietly
from pagescan.session.record import Session
from pagescan.target.maps import read
from pagescan.target.process import Target, above_stdio, read_stat
from pagescan.target.wp_async import why_impossible

if TYPE_CHECKING:
    from pagescan.model.results import TargetFacts

_USER_SPACE = 1 << 56
_AT_ONCE = 500  # mappings: the kernel skips that many in 20 us
_A_MOMENT = 0.1  # seconds: until a mere test of the lock, or a write, is over


class Lock:
    """The lock file of one target, held by the process that tracks it.

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
        for other in live():
            if other.target.pid == pid:
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
                return lock
            os.close(fd)

    def is_ours(self) -> bool:
        """Whether the file of that name is still the one that is locked here."""
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(f"{self.pid}.lock", dir_fd=self.directory)
            return there.st_ino == os.fstat(self.fd).st_ino
        return False

    def write(self, session: Session) -> None:
        """Store the facts for commands that list sessions."""
        data = json.dumps(session.to_json()).encode()
        try:
            written = os.pwrite(self.fd, data, 0)
            if written < len(data):
                os.pwrite(self.fd, data[written:], written)  # raises the reason
            os.ftruncate(self.fd, len(data))
        except OSError as error:
            raise not_kept(error, self.pid) from error

    def remove(self) -> None:
        """Remove the files while they belong to this lock; closing it unlocks."""
        if self.is_ours():
            unlink_quietly(self.directory, self.pid)

    def close(self) -> None:
        """Close the descriptors; duplicates elsewhere keep the lock."""
        os.close(self.fd)
        os.close(self.directory)


def not_kept(error: OSError, pid: int) -> PagescanError:
    """Return the error that tells why a session cannot be stored."""
    failed = from_oserror(
        error, doing=f"store the session of {pid} in {where()}", call="pwrite"
    )
    failed.hint = {
        errno.ENOSPC: f"make room in {where()}: some kilobytes are enough",
        errno.EDQUOT: f"make room in {where()}: a quota is used up",
        errno.EFBIG: "the limit of file sizes is too low: ulimit -f",
    }.get(error.errno or 0, failed.hint)
    return failed


def where() -> str:
    """Return the directory for new sessions of this user."""
    for path in directories():
        with contextlib.suppress(OSError):
            os.close(open_own(path))
            return path
    return directories()[0]


def tracked_already(session: Session | None, pid: int = 0) -> SessionError:
    """Return the error that names the process that tracks a target."""
    if session is None:
        return SessionError(f"process {pid} is being armed by another command")
    target = f"{session.target.pid} ({session.target.name})"
    if session.holder == "keeper":
        return SessionError(
            f"{target} is tracked already: session {session.name},"
            f" armed {format_time(session.armed_at)}",
            hint=f"pagescan diff {session.name}, or pagescan disarm {session.name}",
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
        if 0 < size <= wire.MESSAGE_LIMIT:
            text = os.pread(fd, size, 0).decode()
            # Earlier facts may have been longer, so that their end remains.
            facts, _ = json.JSONDecoder().raw_decode(text)
            return Session.from_json(facts)
    return None


@dataclass(frozen=True, slots=True)
class _Found:
    """A lock file; its descriptors are open only until the next one is read.

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
            if session is not None:
                return session if session.target.pid == self.pid else None
            if not self.held:
                return None
            if not os.fstat(self.fd).st_size or time.monotonic() > deadline:
                return self._ask()
            time.sleep(0.001)

    def _ask(self) -> Session | None:
        """Ask the keeper, whose answer is valid even if the file is damaged."""
        with contextlib.suppress(
            OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError
        ):
            session = Session.from_json(wire.facts_of(self.directory, self.pid))
            return session if session.target.pid == self.pid else None
        return None

    def remove(self) -> None:
        """Remove it and its socket, unless another process has taken the lock."""
        if _try_lock(self.fd) and Lock(self.directory, self.fd, self.pid).is_ours():
            unlink_quietly(self.directory, self.pid)


def lock_files() -> Iterator[_Found]:
    """Yield each lock file of this user, by pid in each directory."""
    for path in directories():
        try:
            directory = open_own(path)
        except OSError:
            continue
        try:
            for pid in sorted(_pids_in(directory)):
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    fd = os.open(f"{pid}.lock", flags, dir_fd=directory)
                    try:
                        # A shared lock: with an exclusive one, two readers would each
                        # see the other as holder.
                        held = not _try_lock(fd, fcntl.LOCK_SH)
                        yield _Found(directory, fd, pid, held)
                    finally:
                        os.close(fd)
        finally:
            os.close(directory)


def _pids_in(directory: int) -> Iterator[int]:
    for name in os.listdir(directory):
        stem, _, suffix = name.partition(".")
        if suffix == "lock" and stem.isascii() and stem.isdigit():
            yield int(stem)


def live() -> list[Session]:
    """Return the sessions whose holders live, by pid."""
    found = [each.read() for each in lock_files() if each.held]
    return [session for session in found if session is not None]


def kept() -> list[Session]:
    """Return the live sessions held by a keeper: users call these sessions."""
    return [session for session in live() if session.holder == "keeper"]


def lost() -> list[Session]:
    """Return the sessions of keepers that died: their writes are unknown.

    Files of a killed `watch`, or of a keeper whose target ended too, are removed.
    """
    sessions = []
    for found in lock_files():
        if found.held:
            continue
        session = found.read()
        if session and session.holder == "keeper" and still_there(session.target):
            sessions.append(session)
        else:
            found.remove()
    return sessions


def still_there(target: TargetFacts) -> bool:
    """Whether the process still exists, is the same, and has not ended."""
    try:
        stat = read_stat(target.pid)
    except OSError:
        return False
    return stat.start_time == target.start_time and stat.state not in "ZX"


def forget(pid: int) -> None:
    """Remove the files of a session whose holder died."""
    for found in lock_files():
        if found.pid == pid and not found.held:
            found.remove()


def find(pid: int | None) -> Session:
    """Return the session of a target, or the only session.

    Raises:
        SessionError: There is no session.
        UsageError: No target was named and there are several; the message lists them.
        SessionLostError: Its keeper died. This is reported once; then the files are
            removed.
    """
    sessions = kept()
    if pid is not None:
        for session in sessions:
            if session.target.pid == pid:
                return session
        for session in lost():
            if session.target.pid == pid:
                raise lost_tracking(session)
        raise _none(pid)
    if len(sessions) == 1:
        return sessions[0]
    if sessions:
        names = ", ".join(f"{item.name} ({item.target.name})" for item in sessions)
        raise UsageError(
            f"{len(sessions)} sessions, and no TARGET: {names}",
            hint="give one of them as TARGET",
        )
    for session in lost():
        raise lost_tracking(session)
    raise SessionError("no session", hint=hint_to_arm(None))


def hint_to_arm(pid: int | None) -> str:
    """Return the hint on starting a session, or why none can be started here."""
    error = why_impossible()
    if error:
        return f"no session can be started here: {error}"
    return f"pagescan arm {pid}" if pid is not None else "pagescan arm PID starts one"


def _none(pid: int) -> PagescanError:
    """Return the error for a missing session; raise one about the process itself."""
    with Target.open(pid) as target:
        for other in live():  # a session with a keeper would have been found
            if other.target.pid == pid and other.holder != "keeper":
                return SessionError(
                    f"no session for {target}:"
                    f" it is tracked by {other.holder}, pid {other.keeper_pid}",
                    hint=f"end that first, then: pagescan arm {pid}",
                    pid=pid,
                )
        if _write_protected(target):
            return AccessDeniedError(
                f"{target} is tracked by another user's session, or by itself",
                hint="only that user can look at it; as root: pagescan sessions",
            )
        return SessionError(f"no session for {target}", hint=hint_to_arm(pid))


def _write_protected(target: Target) -> bool:
    """Whether a mapping is registered for write-protect: its first page matches."""
    from pagescan.scanner.rules import registered_rule

    rule = registered_rule(align=_USER_SPACE)  # one call per span: skipped whole
    with contextlib.suppress(PagescanError, OSError):
        there = read(target)
        groups = [there[at : at + _AT_ONCE] for at in range(0, len(there), _AT_ONCE)]
        spans = Spans(
            array("Q", (group[0].start for group in groups)),
            array("Q", (group[-1].end for group in groups)),
            array("Q", bytes(8 * len(groups))),
        )
        found = scan(
            target.pagemap, spans, [rule], max_pages=1, pace=Pace(), meter=Meter()
        )
        return bool(found.starts)
    return False


def lost_tracking(session: Session) -> SessionLostError:
    """Return the error for a lost session, and remove its files."""
    forget(session.target.pid)
    return SessionLostError(
        f"tracking of {session.target.pid} ({session.target.name}) was lost: its keeper"
        f" (pid {session.keeper_pid}) died; what was written is unknown",
        hint=f"start over with: pagescan arm {session.target.pid}",
    )
