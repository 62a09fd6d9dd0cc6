"""The client of a session's keeper, used by commands and the library.

A request is one line of JSON, and so is the answer:

    {"op": "open"}      the facts, and the userfaultfd (SCM_RIGHTS)
    {"op": "begin"}     the same, once no other client rearms; until commit or hang-up
    {"op": "commit", "facts": {…}}   stores the changed facts; with "hold": true the
                        right to rearm remains, for another commit
    {"op": "end", "max_stall_ns": …}   disarms; the answer comes afterwards, with the
                        cost to the target, and whether it was the keeper's last one
    {"op": "adopt"}     with the descriptors of one more session of the same group: the
                        keeper takes it over
    {"op": "gone"}      the members of the group that have gone
    {"op": "told", "last": N}   forgets these, up to number N
"""

import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from pagescan.model.errors import (
    NoSuchTargetError,
    PagescanError,
    SessionError,
    SessionLostError,
)
from pagescan.model.results import Cost
from pagescan.native import MAX_STALL_NS
from pagescan.session.files import peer_uid, receive_line
from pagescan.session.locks import (
    directories,
    is_held,
    live_sessions,
    lock_files,
    open_own,
)
from pagescan.session.lookup import clear_away, lost_tracking, still_runs
from pagescan.session.record import GoneMember, Session

_TIMEOUT = 10.0
_TIMEVAL = struct.pack("ll", int(_TIMEOUT), 0)
_UNREGISTERED = 1e-9  # seconds per byte
_DYING = 1.0  # seconds between the end of a killed keeper's socket and of its lock


class Client:
    """A connection to the keeper of one session; closing it ends an open `begin`.

    Each step raises SessionLostError if the keeper died, SessionError if it does not
    answer, and NoSuchTargetError if the target has ended.

    Attributes:
        session: The keeper's current facts.
        uffd: The userfaultfd; -1 before `open` or `begin`.
        alive: Whether the armed address space is still the target's: no exec since.
        was_last: After `end`: whether the keeper ends, too.
    """

    def __init__(self, session: Session) -> None:
        """Connect to the keeper."""
        self._opened = session
        self.uffd = -1
        self.session = session
        self.alive = True
        self.was_last = True
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(session.target.pid)
            self._socket.settimeout(_TIMEOUT)
        except OSError as error:
            self._socket.close()
            reason = why_hung_up(session)
            raise reason from error

    def _connect(self, pid: int) -> None:
        for path in directories():
            with contextlib.suppress(OSError):
                directory = open_own(path)
                try:
                    # Wait while many clients connect at once; with settimeout() it
                    # would not wait.
                    self._socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL
                    )
                    # Through a descriptor: the path has no length limit and cannot be
                    # swapped.
                    self._socket.connect(f"/proc/self/fd/{directory}/{pid}.sock")
                    self._check_peer()
                    return
                finally:
                    os.close(directory)
        raise ConnectionRefusedError(pid)

    def _check_peer(self) -> None:
        """Refuse keepers of other users; source: SO_PEERCRED in unix(7)."""
        uid = peer_uid(self._socket)
        if uid != os.geteuid():
            raise PermissionError(f"uid {uid} listens there")

    def open(self) -> Self:
        """Get the facts and the userfaultfd."""
        self._take(self._ask({"op": "open"}))
        return self

    def begin(self) -> Self:
        """Get the facts and the userfaultfd, and the right to rearm until `commit`.

        Raises:
            SessionError: Another command holds that right for too long.
        """
        self._take(self._ask({"op": "begin"}))
        return self

    def commit(self, *, hold: bool = False) -> None:
        """Store the changed `session`; with `hold`, keep the right to rearm."""
        facts = self.session.to_json()
        self._ask({"op": "commit", "facts": facts, "hold": hold})

    def end(self, max_stall_ns: int = MAX_STALL_NS) -> Cost:
        """Disarm; return the cost to the target when nothing is left in it.

        Args:
            max_stall_ns: The longest time that one call may hold the target's mmap
                lock.
        """
        # In slices with pauses: 0.2 s per GiB of populated memory.
        more = self._opened.tracked_bytes * _UNREGISTERED
        self._socket.settimeout(_TIMEOUT + more)
        answer = self._ask({"op": "end", "max_stall_ns": max_stall_ns})
        self.was_last = answer.get("last") is not False
        try:
            return Cost(**answer.get("cost", {}))
        except TypeError as error:
            raise self._nonsense() from error

    def adopt(self, fds: Sequence[int]) -> int:
        """Hand over one more session of the same group; return the keeper's pid.

        Args:
            fds: Its descriptors, as `files.DESCRIPTORS` names them.

        Raises:
            SessionError: The keeper refuses; the caller still has everything.
        """
        answer = self._ask({"op": "adopt"}, fds)
        pid = answer.get("keeper_pid")
        if not isinstance(pid, int):
            raise self._nonsense()
        return pid

    def gone(self) -> list[GoneMember]:
        """Return the members of the group that have gone, the earliest first."""
        answer = self._ask({"op": "gone"})
        try:
            return [GoneMember.from_json(item) for item in answer["gone"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._nonsense() from error

    def told(self, last: int) -> None:
        """Let the keeper forget the members that have gone, up to a number."""
        self._ask({"op": "told", "last": last})

    def _ask(self, request: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        try:
            data = json.dumps(request).encode() + b"\n"
            if fds:
                socket.send_fds(self._socket, [data], list(fds))
            else:
                self._socket.sendall(data)
            data, received = receive_line(self._socket)
        except TimeoutError as error:
            raise SessionError(
                f"session {self._opened.name} does not answer:"
                " another command is rearming it, or its keeper is stopped",
                pid=self._opened.target.pid,
                call="recvmsg",
                errno=errno.ETIMEDOUT,
            ) from error
        except OSError as error:
            reason = why_hung_up(self._opened)
            raise reason from error
        for fd in received:
            if self.uffd >= 0:
                os.close(self.uffd)
            self.uffd = fd
        try:
            answer: dict[str, Any] = json.loads(data)
            refusal = answer.get("error")
        except (ValueError, AttributeError, RecursionError) as error:
            raise self._nonsense() from error
        if refusal is not None:
            raise SessionError(f"session {self._opened.name}: {refusal}")
        return answer

    def _take(self, answer: dict[str, Any]) -> None:
        try:
            self.session = Session.from_json(answer["facts"])
            self.alive = bool(answer["alive"])
            if not Session.is_of_this_version(answer["facts"]):
                raise self._nonsense()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._nonsense() from error
        if self.uffd < 0:
            raise self._nonsense()

    def _nonsense(self) -> SessionError:
        return SessionError(
            f"the keeper of session {self._opened.name} speaks another protocol",
            hint=f"another version? pagescan disarm {self._opened.name}, then arm",
        )

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
        if self.uffd >= 0:
            os.close(self.uffd)
            self.uffd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def reporting_loss(session: Session) -> Iterator[None]:
    """Remove the files of a session whose loss this block raises: it is told once."""
    try:
        yield
    except SessionLostError:
        clear_away(session)
        raise


def why_hung_up(session: Session) -> PagescanError:
    """Return the error that tells why a keeper no longer answers."""
    pid, name = session.target.pid, session.target.name
    if not still_runs(session.target):
        return NoSuchTargetError(f"process {pid} ({name}) has ended", pid=pid)
    deadline = time.monotonic() + _DYING
    while time.monotonic() < deadline:
        locked = [file.held for file in lock_files(pid)]
        if not locked or _is_another(session):
            return SessionError(
                f"session {session.name} was ended by another command",
                hint=f"start over with: pagescan arm {pid}",
                pid=pid,
            )
        if not any(locked):
            return lost_tracking(session)
        time.sleep(0.005)
    return SessionError(
        f"session {session.name} does not answer: too many commands ask it at once",
        hint="try again",
        pid=pid,
    )


def _is_another(session: Session) -> bool:
    """Whether its target has a living session that was armed later."""
    living = live_sessions(session.target.pid)
    return any(other.armed_at != session.armed_at for other in living)


class Place:
    """The directory of a living session, for the files that belong to it alone.

    Attributes:
        directory: Its descriptor.
    """

    def __init__(self, session: Session) -> None:
        """Find it.

        Raises:
            PagescanError: The session does not live; the message says why.
        """
        self._session = session
        for file in lock_files(session.target.pid):
            if file.held:
                self.directory = os.dup(file.directory)
                self._lock = os.dup(file.fd)
                return
        raise why_hung_up(session)

    def check(self) -> int:
        """Return the directory if the session still lives.

        A later session of the same target has a lock file of its own: it must not get
        a result of this one.
        """
        if not is_held(self.directory, self._session.target.pid, self._lock):
            raise why_hung_up(self._session)
        return self.directory

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.directory)
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
