"""Where sessions live, and how a command talks to the keeper of one.

A session is two files in a directory that only its owner can enter:

    PID.lock    the facts, as JSON; locked (flock) as long as its holder lives
    PID.sock    the keeper's socket; `watch` and `track()` have none

A request is one line of JSON, and so is the answer:

    {"op": "open"}      the facts, and the userfaultfd (SCM_RIGHTS)
    {"op": "begin"}     the same, once nobody else rearms; until commit or hang-up
    {"op": "commit", "facts": {…}}   keeps the changed facts
    {"op": "end"}       disarms; the answer comes when it is done
"""

import array
import contextlib
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from pagescan.errors import (
    AccessDeniedError,
    PagescanError,
    SessionError,
    SessionLostError,
    UsageError,
)
from pagescan.model import SessionFacts, TargetFacts, Untracked
from pagescan.target import Target, read_stat
from pagescan.units import format_time, parse_time

_MESSAGE_LIMIT = 8 << 20
_TIMEOUT = 10.0
_LOOKED_AT = 0.1  # seconds: whoever lists sessions holds each lock for a moment


class _Armed(Protocol):
    """What an `arm.Armed` has; this file is below it."""

    untracked: list[Untracked]
    tracked_bytes: int
    tables_left: int
    epoch: int


@dataclass(slots=True)
class Session:
    """The facts of a session: what its lock file holds.

    Attributes:
        holder: What keeps it: "keeper", "watch" or "track".
        keeper_pid: The process that holds the userfaultfd.
        words: The RANGE words of its selection.
        epoch: How often everything was protected anew since arming.
    """

    target: TargetFacts
    armed_at: datetime
    since: datetime | None
    holder: str
    keeper_pid: int
    words: list[str]
    untracked: list[Untracked]
    tracked_bytes: int = 0
    tables_left: int = 0
    epoch: int = 0

    @property
    def name(self) -> str:
        """The pid of the target, as users type it."""
        return str(self.target.pid)

    @property
    def facts(self) -> SessionFacts:
        """What results say of it."""
        return SessionFacts(self.name, self.armed_at, self.since)

    def after(self, armed: _Armed, since: datetime | None) -> Self:
        """Return the facts after a look that rearmed; `armed` is an `arm.Armed`."""
        return replace(
            self,
            since=since,
            untracked=list(armed.untracked),
            tracked_bytes=armed.tracked_bytes,
            tables_left=armed.tables_left,
            epoch=armed.epoch,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        facts = asdict(self)
        facts["armed_at"] = format_time(self.armed_at)
        facts["since"] = format_time(self.since) if self.since else None
        return facts

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Read what `to_json` gave; ValueError, KeyError or TypeError if it is not."""
        facts = dict(facts)
        facts["target"] = TargetFacts(**facts["target"])
        facts["armed_at"] = parse_time(facts["armed_at"])
        facts["since"] = parse_time(facts["since"]) if facts["since"] else None
        facts["untracked"] = [Untracked(**item) for item in facts["untracked"]]
        return cls(**facts)


def now() -> datetime:
    """Return the present moment, in UTC."""
    return datetime.now(UTC)


def directories() -> list[str]:
    """Return where sessions of this user may be, the preferred one first."""
    uid = os.geteuid()
    if uid == 0:
        return ["/run/pagescan"]
    places = [
        f"/run/user/{uid}/pagescan",
        f"/tmp/pagescan-{uid}",  # noqa: S108 - used only if it is ours alone
    ]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.insert(0, os.path.join(runtime, "pagescan"))
    return list(dict.fromkeys(places))


def open_directory(*, create: bool = False) -> int:
    """Return a descriptor of the preferred session directory, made if need be.

    Raises:
        PagescanError: None of them can be ours: mode 0700 and no link.
    """
    for path in directories():
        if create:
            with contextlib.suppress(OSError):
                os.mkdir(path, 0o700)
        with contextlib.suppress(OSError):
            return _open_own(path)
    raise PagescanError(
        f"no directory for sessions: {', '.join(directories())}",
        hint="one of them must belong to this user, with mode 0700, and be no link",
    )


def _open_own(path: str) -> int:
    """Open a directory; PermissionError if it is not ours alone."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags)
    facts = os.fstat(fd)
    if facts.st_uid == os.geteuid() and stat.S_IMODE(facts.st_mode) & 0o077 == 0:
        return fd
    os.close(fd)
    raise PermissionError(path)


class Lock:
    """The lock file of one target: held by whoever tracks it.

    Attributes:
        directory: Descriptor of the directory it is in.
        fd: The locked file; the lock goes with its last duplicate.
    """

    def __init__(self, directory: int, fd: int, pid: int) -> None:
        """Take over the descriptors; use `take`."""
        self.directory = directory
        self.fd = fd
        self.pid = pid

    @classmethod
    def take(cls, pid: int) -> Self:
        """Lock a target for us.

        Raises:
            SessionError: It is tracked already; the message names the session.
        """
        for other in live():
            if other.target.pid == pid:
                raise tracked_already(other)
        directory = open_directory(create=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        deadline = time.monotonic() + _LOOKED_AT
        while True:
            fd = os.open(f"{pid}.lock", flags, 0o600, dir_fd=directory)
            if not _try_lock(fd):
                session = _read(fd)
                os.close(fd)
                if session is None and time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                os.close(directory)
                raise tracked_already(session, pid)
            # Its last holder may have removed it between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(f"{pid}.lock", dir_fd=directory)
                if there.st_ino == os.fstat(fd).st_ino:
                    return cls(directory, fd, pid)
            os.close(fd)

    def write(self, session: Session) -> None:
        """Keep the facts for whoever lists sessions."""
        data = json.dumps(session.to_json()).encode()
        os.pwrite(self.fd, data, 0)
        os.ftruncate(self.fd, len(data))

    def remove(self) -> None:
        """Remove the files; the lock itself goes with the descriptor."""
        for suffix in ("sock", "lock"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.pid}.{suffix}", dir_fd=self.directory)

    def close(self) -> None:
        """Close our descriptors; the lock stays with whoever has duplicates."""
        os.close(self.fd)
        os.close(self.directory)


def tracked_already(session: Session | None, pid: int = 0) -> SessionError:
    """Return the error that names who tracks a target."""
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


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(fd: int) -> Session | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        size = os.fstat(fd).st_size
        if size <= _MESSAGE_LIMIT:
            return Session.from_json(json.loads(os.pread(fd, size, 0)))
    return None


def _all() -> Iterator[tuple[str, int, Session | None, bool]]:
    """Yield directory, pid, facts, and whether the holder lives, for each lock file."""
    for path in directories():
        try:
            directory = _open_own(path)
        except OSError:
            continue
        try:
            names = [name for name in os.listdir(directory) if name.endswith(".lock")]
            for name in sorted(names, key=lambda name: (len(name), name)):
                stem = name.removesuffix(".lock")
                if not stem.isdigit():
                    continue
                flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
                with contextlib.suppress(OSError):
                    fd = os.open(name, flags, dir_fd=directory)
                    try:
                        yield path, int(stem), _read(fd), not _try_lock(fd)
                    finally:
                        os.close(fd)
        finally:
            os.close(directory)


def live() -> list[Session]:
    """Return the sessions whose holders live, by pid."""
    return [session for _, _, session, held in _all() if held and session]


def lost() -> list[Session]:
    """Return the sessions of keepers that died: what they tracked is unknown.

    What a killed `watch` left, or a keeper whose target ended as well, is cleared away.
    """
    sessions = []
    for _, pid, session, held in list(_all()):
        if held or session is None:
            continue
        if session.holder == "keeper" and _still_there(session.target):
            sessions.append(session)
        else:
            forget(pid)
    return sessions


def _still_there(target: TargetFacts) -> bool:
    try:
        return read_stat(target.pid).start_time == target.start_time
    except OSError:
        return False


def forget(pid: int) -> None:
    """Remove the files of a session whose holder died."""
    for path, owner, _, held in list(_all()):
        if owner == pid and not held:
            for suffix in ("sock", "lock"):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(path, f"{pid}.{suffix}"))


def find(pid: int | None) -> Session:
    """Return the session of a target, or the only one there is.

    Raises:
        SessionError: There is none.
        UsageError: No target was named and there are several; the message lists them.
        SessionLostError: Its keeper died. It is said once, then the files are removed.
    """
    sessions = [session for session in live() if session.holder == "keeper"]
    if pid is not None:
        for session in sessions:
            if session.target.pid == pid:
                return session
        for session in lost():
            if session.target.pid == pid:
                raise _lost(session)
        raise _none(pid)
    if len(sessions) == 1:
        return sessions[0]
    if sessions:
        names = ", ".join(f"{item.name} ({item.target.name})" for item in sessions)
        raise UsageError(
            f"{len(sessions)} sessions, and no TARGET: {names}",
            hint="name one of them",
        )
    for session in lost():
        raise _lost(session)
    raise SessionError("no session", hint="pagescan arm PID starts one")


def _none(pid: int) -> PagescanError:
    """Say why there is no session of ours; raises what is wrong with the process."""
    with Target.open(pid) as target:
        if _write_protected(pid):
            return AccessDeniedError(
                f"{target} is tracked by another user's session, or by itself",
                hint="only whoever armed it can look; root: pagescan sessions",
            )
        return SessionError(f"no session for {target}", hint=f"pagescan arm {pid}")


def _write_protected(pid: int) -> bool:
    """Whether a mapping is registered for write-protect; source: VmFlags in smaps."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps", "rb") as smaps:
        return any(b" uw" in line for line in smaps if line.startswith(b"VmFlags:"))
    return False


def _lost(session: Session) -> SessionLostError:
    forget(session.target.pid)
    return SessionLostError(
        f"tracking of {session.target.pid} ({session.target.name}) was lost: its keeper"
        f" (pid {session.keeper_pid}) died; what was written is unknown",
        hint=f"start over with: pagescan arm {session.target.pid}",
    )


class Client:
    """A connection to the keeper of one session; closing it frees what was begun.

    Attributes:
        session: The facts, as the keeper has them now.
        uffd: The userfaultfd; -1 before `open` or `begin`.
        alive: Whether the armed address space is still the target's: no exec since.
    """

    def __init__(self, session: Session) -> None:
        """Connect.

        Raises:
            SessionLostError: Nobody listens any more.
        """
        self._opened = session
        self.uffd = -1
        self.session = session
        self.alive = True
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT)
        try:
            self._connect(session.target.pid)
        except OSError as error:
            self._socket.close()
            raise _lost(session) from error

    def _connect(self, pid: int) -> None:
        for path in directories():
            with contextlib.suppress(OSError):
                directory = _open_own(path)
                try:
                    # By descriptor: no length limit and no path to be swapped.
                    self._socket.connect(f"/proc/self/fd/{directory}/{pid}.sock")
                    return
                finally:
                    os.close(directory)
        raise ConnectionRefusedError(pid)

    def open(self) -> Self:
        """Get the facts and the userfaultfd."""
        self._take(self._ask({"op": "open"}))
        return self

    def begin(self) -> Self:
        """Get the facts and the userfaultfd, and the right to rearm until `commit`.

        Raises:
            SessionError: Another command keeps that right for too long.
        """
        self._take(self._ask({"op": "begin"}))
        return self

    def commit(self) -> None:
        """Keep `session` as it was changed here."""
        self._ask({"op": "commit", "facts": self.session.to_json()})

    def end(self) -> None:
        """Disarm; returns when nothing is left in the target."""
        self._ask({"op": "end"})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            data, fds = receive_line(self._socket)
        except TimeoutError as error:
            raise SessionError(
                f"session {self._opened.name} does not answer:"
                " another command is rearming it, or its keeper is stopped",
            ) from error
        except OSError as error:
            raise _lost(self._opened) from error
        if fds:
            self.uffd = fds[0]
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise SessionError(f"session {self._opened.name}: {answer['error']}")
        return answer

    def _take(self, answer: dict[str, Any]) -> None:
        self.session = Session.from_json(answer["facts"])
        self.alive = bool(answer["alive"])

    def close(self) -> None:
        """Hang up."""
        self._socket.close()
        if self.uffd >= 0:
            os.close(self.uffd)
            self.uffd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def receive_line(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one line and the descriptors that came with it (close-on-exec).

    Raises:
        ConnectionError: The peer hung up before the line ended, or sent too much.
    """
    data = bytearray()
    fds = array.array("i")
    while not data.endswith(b"\n"):
        piece, ancillary, _, _ = sock.recvmsg(
            1 << 16, socket.CMSG_SPACE(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        data += piece
        if not piece or len(data) > _MESSAGE_LIMIT:
            for fd in fds:
                os.close(fd)
            raise ConnectionError("the keeper hung up")
    return bytes(data), list(fds)
