"""The keeper: a small process that holds the userfaultfd of one session.

`python -m pagescan.session.keeper` is the process; `spawn` starts it. It is in a
process session of its own, serves one socket, ends with its target or on request, and
leaves nothing behind. It never waits for a client, and only the request `end` makes it
end. Requests are bounded and checked. A client that does not read its answer gets no
further one, and a client that stalls makes room for the next.

The process stays small: of pagescan it imports native and little else, and it stores
the facts of the session as the JSON that it received.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import sys
import time
from typing import Any

# By name, so that all is loaded now: another version may be installed later.
from pagescan.native import (
    MAX_STALL_NS,
    Meter,
    Pace,
    keeping_the_processor,
    parse_maps,
    uffd_unregister,
)
from pagescan.session.files import (
    MESSAGE_LIMIT,
    lock_inode,
    peer_uid,
    remove_files,
    write_facts,
)
from pagescan.target.living import has_address_space, memory_dir
from pagescan.tracking.unregistering import MapsLine, tmpfs_of, unregister_all

REQUEST_LIMIT = 4096
"""Limit of one request, in bytes, from a client without the right to rearm."""

CLIENTS = 64
"""Limit of simultaneous connections."""

READY = b"ready"
FAILED = b"errno "
_CARE = 60.0
"""Seconds between two checks of the session's files, which a cleaner may remove.

Cleaners run daily; one check is a stat(2) per file.
"""


class Keeper:
    """Serves one session until its target ends or a client ends it."""

    def __init__(self, fds: dict[str, int], facts: dict[str, Any]) -> None:
        """Take over the descriptors; `facts` is `Session.to_json()`."""
        self.facts = facts
        self.pid: int = facts["target"]["pid"]
        self.uffd = fds["uffd"]
        self.pagemap = fds["pagemap"]
        self.lock = fds["lock"]
        self.directory = fds["directory"]
        self._keep(facts)
        self.server = socket.socket(fileno=fds["server"])
        self.server.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.server, selectors.EVENT_READ, self._accept)
        self.selector.register(fds["pidfd"], selectors.EVENT_READ, self._target_ended)
        # the client that has been silent for the longest time is first
        self.peers: list[_Peer] = []
        self.rearming: _Peer | None = None
        self.waiting: list[_Peer] = []
        self.ended = False

    def serve(self) -> None:
        """Serve until the end, then leave nothing behind."""
        due = time.monotonic() + _CARE
        while not self.ended:
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                if not self.ended:
                    key.data()
            if time.monotonic() >= due:
                due += _CARE
                self.care()
        self.remove_files()

    def keep(self, facts: dict[str, Any]) -> None:
        """Replace the facts; the lock file shows them to commands that list sessions.

        If the disk is full, the facts in memory are valid, and commands that cannot
        read the file ask through the socket.
        """
        with contextlib.suppress(OSError):
            self._keep(facts)

    def _keep(self, facts: dict[str, Any]) -> None:
        """Replace the facts; OSError: they are not on disk."""
        self.facts = {**facts, "keeper_pid": os.getpid()}
        write_facts(self.lock, self.facts)

    def care(self) -> None:
        """Renew the times of the session's files; end if they were removed.

        Without its files no command finds the session. Source: tmpfiles.d(5) removes
        old files from /tmp.
        """
        try:
            if lock_inode(self.directory, self.pid) == self._inode():
                for suffix in ("lock", "sock"):
                    name = f"{self.pid}.{suffix}"
                    os.utime(name, dir_fd=self.directory, follow_symlinks=False)
                os.utime(self.directory)
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        self._unregister()
        self.ended = True

    def remove_files(self) -> None:
        """Remove the files, unless a later session of this target has the names now."""
        with contextlib.suppress(OSError):
            if lock_inode(self.directory, self.pid) not in (None, self._inode()):
                return
        remove_files(self.directory, self.pid)

    def _inode(self) -> int:
        return os.fstat(self.lock).st_ino

    def _accept(self) -> None:
        if len(self.peers) >= CLIENTS:
            self._make_room()
        try:
            connection, _ = self.server.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            return
        uid = peer_uid(connection)
        if uid not in (0, os.geteuid()) or len(self.peers) >= CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        peer = _Peer(self, connection)
        self.peers.append(peer)
        self.selector.register(connection, selectors.EVENT_READ, peer.ready)

    def _make_room(self) -> None:
        """Disconnect the client that has been silent longest and waits for nothing."""
        for peer in self.peers:
            if peer is not self.rearming and peer not in self.waiting:
                peer.hang_up()
                return

    def _target_ended(self) -> None:
        self.ended = True

    def end_on_sigterm(self) -> None:
        """After the signal, end as if a client had requested it."""
        self.woken, waker = socket.socketpair()
        self.woken.setblocking(False)
        waker.setblocking(False)
        signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        self.selector.register(self.woken, selectors.EVENT_READ, self._terminated)

    def _terminated(self) -> None:
        self._unregister()
        self.ended = True

    def answer(self, peer: _Peer, request: dict[str, Any]) -> None:
        """Carry out one request and return its answer; ValueError: no such request."""
        match request.get("op"):
            case "open":
                self._hand_over(peer)
            case "begin" if self.rearming is None or self.rearming is peer:
                self._begin(peer)
            case "begin" if peer not in self.waiting:
                self.waiting.append(peer)
            case "commit" if self.rearming is peer:
                self.keep(self._checked(request["facts"]))
                peer.committed = True
                peer.send({"ok": True})
                if request.get("hold") is not True:
                    self.release(peer)
            case "end":
                cost = self._unregister(_stall(request))
                self.remove_files()
                peer.send({"ok": True, "cost": cost})
                self.ended = True
            case _:
                raise ValueError(request)

    def _checked(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts if they are valid; otherwise raise one of `_REFUSED`."""
        if facts.keys() != self.facts.keys() or facts["target"] != self.facts["target"]:
            raise ValueError("facts of another session")
        for key, value in facts.items():
            kinds = (str, type(None)) if key == "since" else (type(self.facts[key]),)
            if type(value) not in kinds:
                raise TypeError(key)
        for item in facts["untracked"]:
            if type(item["start"]) is not int or type(item["end"]) is not int:
                raise TypeError(item)
        return facts

    def _begin(self, peer: _Peer) -> None:
        self.rearming = peer
        peer.committed = True  # it cannot have protected anything yet
        self._hand_over(peer)
        peer.committed = False

    def _hand_over(self, peer: _Peer) -> None:
        alive = has_address_space(self.pagemap)
        peer.send({"facts": self.facts, "alive": alive}, self.uffd)

    def _unregister(self, max_stall_ns: int = MAX_STALL_NS) -> dict[str, int]:
        """Unregister everything in the target, in case a fork inherited the descriptor.

        Parts that would crash Linux before 6.17 are left to the last close of the
        descriptor.

        Returns:
            The cost to the target, with the keys of the JSON output.
        """
        pace, meter = Pace(max_stall_ns), Meter()
        left_out = [(item["start"], item["end"]) for item in self.facts["untracked"]]

        def unregister(row: MapsLine, align: int) -> None:
            if not any(low <= row.start and row.end <= high for low, high in left_out):
                uffd_unregister(
                    self.uffd,
                    self.pagemap,
                    row.start,
                    row.end,
                    align=align,
                    pace=pace,
                    meter=meter,
                )

        with contextlib.suppress(OSError), keeping_the_processor(pace):
            rows, tmpfs = _rows(self.pid, meter), tmpfs_of(self.pid)
            unregister_all(rows, tmpfs, unregister, self.pagemap)
        os.close(self.uffd)
        return {
            "scan_ns": meter.scan_ns,
            "max_wait_ns": meter.max_wait_ns,
            "ioctls": meter.ioctls,
            "pages_walked": meter.pages_walked,
        }

    def release(self, peer: _Peer) -> None:
        """Let the next client rearm, if this one had the right."""
        if peer in self.waiting:
            self.waiting.remove(peer)
        if self.rearming is peer:
            if not peer.committed:
                # It died after protecting pages that it has not reported.
                self.keep({**self.facts, "since": None, "acknowledged": -1})
            self.rearming = None
            if self.waiting:
                following = self.waiting.pop(0)
                try:
                    self._begin(following)
                except OSError:
                    following.hang_up()


def _rows(pid: int, meter: Meter) -> list[MapsLine]:
    """Return the mappings of a process; each 4 KiB read of them counts as a call."""
    with open(f"{memory_dir(pid)}/maps", "rb") as maps:
        begun = time.perf_counter_ns()
        text = maps.read()
        meter.count(begun, calls=len(text) // 4096 + 1)
        rows = parse_maps(text, maps.fileno(), meter)
    places = zip(rows.name_at, rows.name_length, strict=True)
    names = [text[at : at + length] for at, length in places]
    devices = [(device >> 32, device & 0xFFFFFFFF) for device in rows.device]
    head = rows.start, rows.end, rows.flags, rows.offset
    return list(map(MapsLine, *head, devices, rows.inode, names, rows.page_size))


def _stall(request: dict[str, Any]) -> int:
    """Return how long one call may hold the lock, according to a request."""
    asked = request.get("max_stall_ns", MAX_STALL_NS)
    if type(asked) is not int or not 0 < asked < 1 << 60:
        raise ValueError(asked)
    return asked


# Errors that mean: the client is gone, or its request is malformed.
_REFUSED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class _Peer:
    """One connection: one request at a time, bounded in size, and never blocking."""

    def __init__(self, keeper: Keeper, connection: socket.socket) -> None:
        self.keeper = keeper
        self.connection = connection
        self.received = bytearray()
        self.unsent = bytearray()
        self.committed = False

    def ready(self) -> None:
        """Continue when there is something to read or room to write."""
        try:
            if self.unsent:
                self._flush()
            else:
                self._receive()
            while b"\n" in self.received and not self.unsent and not self.keeper.ended:
                line, _, self.received = self.received.partition(b"\n")
                self.keeper.answer(self, json.loads(line))
        except _REFUSED:
            self.hang_up()

    def _receive(self) -> None:
        try:
            piece = self.connection.recv(1 << 16)
        except BlockingIOError:
            return
        if not piece:
            raise ConnectionError("hung up")
        self.keeper.peers.remove(self)
        self.keeper.peers.append(self)
        self.received += piece
        limit = MESSAGE_LIMIT if self.keeper.rearming is self else REQUEST_LIMIT
        if len(self.received) > limit:
            raise ValueError("too long")

    def send(self, answer: dict[str, Any], fd: int | None = None) -> None:
        """Send an answer, with or without a descriptor; the rest is sent later."""
        self.unsent += json.dumps(answer).encode() + b"\n"
        if fd is not None:
            sent = socket.send_fds(self.connection, [self.unsent], [fd])
            del self.unsent[:sent]
        self._flush()

    def _flush(self) -> None:
        try:
            while self.unsent:
                del self.unsent[: self.connection.send(self.unsent)]
        except BlockingIOError:
            # read no further request until the client has read its answer
            events = selectors.EVENT_WRITE
        else:
            events = selectors.EVENT_READ
        self.keeper.selector.modify(self.connection, events, self.ready)

    def hang_up(self) -> None:
        """Close the connection, and pass on the right to rearm if it held that."""
        if self not in self.keeper.peers:
            return
        self.keeper.peers.remove(self)
        self.keeper.selector.unregister(self.connection)
        self.connection.close()
        self.keeper.release(self)


def main() -> None:
    """Run the keeper's process."""
    fds: dict[str, int] = json.loads(sys.argv[1])
    facts: dict[str, Any] = json.load(sys.stdin)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        keeper = Keeper(fds, facts)
        keeper.end_on_sigterm()
    except OSError as error:
        os.write(fds["answer"], FAILED + str(error.errno).encode())
        return
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        os.write(fds["answer"], READY)
    except BrokenPipeError:  # the command was killed before it could report a session
        keeper.remove_files()
        return
    os.close(fds["answer"])
    keeper.serve()


if __name__ == "__main__":
    main()
