"""The keeper: a small process that holds the userfaultfd of one session.

`start` runs in the command that armed; `python -m pagescan.keeper` is the process. It
lives in a session of its own, serves one socket, ends with its target or when it is
told to, and leaves nothing behind. Nothing in it waits for a client.

The process stays small: of pagescan it imports native alone, and it keeps the facts of
the session as the JSON that they came in.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from pagescan import native

if TYPE_CHECKING:
    from pagescan.session import Lock, Session

MESSAGE_LIMIT = 8 << 20
"""Bytes of one message: 50,000 untracked ranges fit."""

_READY = b"ready"
_END_TIMEOUT = 10.0
_CLIENTS = 64


def start(session: Session, lock: Lock, uffd: int, pidfd: int, pagemap: int) -> Session:
    """Hand a session over to a keeper of its own; return when it has confirmed.

    The descriptors stay ours too; the caller closes them.

    Raises:
        PagescanError: The keeper did not come up; the caller still holds everything.
    """
    from pagescan.errors import PagescanError

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        name = f"/proc/self/fd/{lock.directory}/{lock.pid}.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        server.bind(name)
        server.listen(_CLIENTS)
        ready, answer = os.pipe2(os.O_CLOEXEC)
        fds = {
            "server": server.fileno(),
            "answer": answer,
            "lock": lock.fd,
            "directory": lock.directory,
            "uffd": uffd,
            "pidfd": pidfd,
            "pagemap": pagemap,
        }
        try:
            keeper_pid = _spawn(fds, session)
        finally:
            os.close(answer)
        try:
            confirmed = os.read(ready, len(_READY)) == _READY
        finally:
            os.close(ready)
    if not confirmed:
        raise PagescanError("the keeper of the session did not start")
    session.keeper_pid = keeper_pid
    return session


def _spawn(fds: dict[str, int], session: Session) -> int:
    """Start the keeper's process; it gets the facts on its stdin."""
    import subprocess

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    facts, feed = os.pipe2(os.O_CLOEXEC)
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-m", "pagescan.keeper", json.dumps(fds)],
            stdin=facts,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=list(fds.values()),
            start_new_session=True,
            cwd="/",
            env={"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        os.close(facts)
    with os.fdopen(feed, "wb") as stream, contextlib.suppress(BrokenPipeError):
        stream.write(json.dumps(session.to_json()).encode())
    process.returncode = 0  # it outlives us: nobody waits for it
    return process.pid


class Keeper:
    """Serves one session until its target ends or it is told to end."""

    def __init__(self, fds: dict[str, int], facts: dict[str, Any]) -> None:
        """Take over the descriptors; `facts` is `Session.to_json()`."""
        self.facts = facts
        self.pid: int = facts["target"]["pid"]
        self.uffd = fds["uffd"]
        self.pagemap = fds["pagemap"]
        self.lock = fds["lock"]
        self.directory = fds["directory"]
        self.keep(facts)
        self.server = socket.socket(fileno=fds["server"])
        self.server.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.server, selectors.EVENT_READ, self._accept)
        self.selector.register(fds["pidfd"], selectors.EVENT_READ, self._target_ended)
        self.rearming: _Peer | None = None
        self.waiting: list[_Peer] = []
        self.ended = False

    def serve(self) -> None:
        """Serve until the end, then leave nothing behind."""
        while not self.ended:
            for key, _ in self.selector.select():
                key.data()
        self._remove_files()

    def keep(self, facts: dict[str, Any]) -> None:
        """Take the facts over; the lock file shows them to whoever lists sessions."""
        self.facts = {**facts, "keeper_pid": os.getpid()}
        data = json.dumps(self.facts).encode()
        os.pwrite(self.lock, data, 0)
        os.ftruncate(self.lock, len(data))

    def _remove_files(self) -> None:
        for suffix in ("sock", "lock"):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.pid}.{suffix}", dir_fd=self.directory)

    def _accept(self) -> None:
        try:
            connection, _ = self.server.accept()
        except OSError:
            return
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = int.from_bytes(credentials[4:8], sys.byteorder)  # pid, uid, gid
        if uid not in (0, os.geteuid()) or len(self.selector.get_map()) > _CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        client = _Peer(self, connection)
        self.selector.register(connection, selectors.EVENT_READ, client.readable)

    def _target_ended(self) -> None:
        self.ended = True

    def answer(self, peer: _Peer, request: dict[str, Any]) -> None:
        """Do what one request asks."""
        match request.get("op"):
            case "open":
                self._hand_over(peer)
            case "begin" if self.rearming is None or self.rearming is peer:
                self._begin(peer)
            case "begin":
                self.waiting.append(peer)
            case "commit" if self.rearming is peer:
                self.keep(request["facts"])
                peer.committed = True
                peer.send({"ok": True})
                self.release(peer)
            case "end":
                self._unregister()
                os.close(self.uffd)
                self._remove_files()
                peer.send({"ok": True})
                self.ended = True
            case _:
                peer.send({"error": "no such request"})

    def _begin(self, peer: _Peer) -> None:
        self.rearming = peer
        peer.committed = False
        self._hand_over(peer)

    def _hand_over(self, peer: _Peer) -> None:
        peer.send({"facts": self.facts, "alive": self._alive()}, self.uffd)

    def _alive(self) -> bool:
        """Whether the armed address space is still the target's: no exec."""
        try:
            return bool(os.pread(self.pagemap, 8, 0))
        except OSError:
            return False

    def _unregister(self) -> None:
        """Undo everything in the target, in case a fork inherited our descriptor."""
        left_out = [(item["start"], item["end"]) for item in self.facts["untracked"]]
        with contextlib.suppress(OSError):
            with open(f"/proc/{self.pid}/maps", "rb") as maps:
                rows = native.parse_maps(maps.read())
            for start, end in zip(rows.start, rows.end, strict=True):
                if not any(low <= start and end <= high for low, high in left_out):
                    with contextlib.suppress(OSError):
                        native.uffd_unregister(self.uffd, start, end)

    def release(self, peer: _Peer) -> None:
        """Let the next one rearm, if this one had the right to."""
        if peer in self.waiting:
            self.waiting.remove(peer)
        if self.rearming is peer:
            if not peer.committed:
                # It died with pages protected, and nobody was told which.
                self.keep({**self.facts, "since": None})
            self.rearming = None
            if self.waiting:
                self._begin(self.waiting.pop(0))


class _Peer:
    """One connection: a bounded buffer in each direction, and never a wait."""

    def __init__(self, keeper: Keeper, connection: socket.socket) -> None:
        self.keeper = keeper
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()
        self.committed = False

    def readable(self) -> None:
        try:
            piece = self.connection.recv(1 << 16)
        except BlockingIOError:
            piece = None
        except OSError:
            piece = b""
        if self.unsent:
            self._flush()
        if piece is None:
            return
        self.received += piece
        if not piece or len(self.received) > MESSAGE_LIMIT:
            self.hang_up()
            return
        while b"\n" in self.received:
            line, _, rest = bytes(self.received).partition(b"\n")
            self.received = bytearray(rest)
            try:
                self.keeper.answer(self, json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.hang_up()
                return

    def send(self, answer: dict[str, Any], fd: int | None = None) -> None:
        data = json.dumps(answer).encode() + b"\n"
        sent = 0
        try:
            if fd is not None:
                sent = socket.send_fds(self.connection, [data], [fd])
        except BlockingIOError:
            self.hang_up()  # a client that does not read its answers
            return
        except OSError:
            return
        self.unsent += data[sent:]
        self._flush()

    def _flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.connection.send(self.unsent)]
        except BlockingIOError:
            events = selectors.EVENT_READ | selectors.EVENT_WRITE
        except OSError:
            self.unsent.clear()
            events = selectors.EVENT_READ
        else:
            events = selectors.EVENT_READ
        with contextlib.suppress(KeyError, ValueError):
            self.keeper.selector.modify(self.connection, events, self.readable)

    def hang_up(self) -> None:
        self.keeper.release(self)
        with contextlib.suppress(KeyError, ValueError):
            self.keeper.selector.unregister(self.connection)
        self.connection.close()


def end(session: Session) -> None:
    """Disarm a session and wait until its keeper is gone."""
    import select

    from pagescan.session import Client

    with Client(session) as client, contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(session.keeper_pid)
        try:
            client.end()
            gone = select.poll()
            gone.register(pidfd, select.POLLIN)
            gone.poll(_END_TIMEOUT * 1000)
        finally:
            os.close(pidfd)


def main() -> None:
    """Run as the keeper's process."""
    fds: dict[str, int] = json.loads(sys.argv[1])
    facts: dict[str, Any] = json.load(sys.stdin)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    keeper = Keeper(fds, facts)
    os.write(fds["answer"], _READY)
    os.close(fds["answer"])
    keeper.serve()


if __name__ == "__main__":
    main()
