"""One session that a keeper holds: its descriptors, its facts, and its clients.

A session never waits for a client, and only its target's end or a request ends it.
Requests are bounded and checked. A client that does not read its answer gets no further
one, and a client that stalls makes room for the next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
from typing import TYPE_CHECKING, Any

# By name, so that all is loaded now: another version may be installed later.
from pagescan.native import (
    MAX_STALL_NS,
    Meter,
    Pace,
    keeping_the_processor,
    parse_maps,
    read_maps,
    uffd_unregister,
)
from pagescan.session.files import (
    DESCRIPTORS,
    MESSAGE_LIMIT,
    lock_inode,
    parse,
    peer_uid,
    remove_files,
    write_facts,
)
from pagescan.session.household import Household
from pagescan.session.peer import Peer
from pagescan.target.living import has_address_space, memory_dir
from pagescan.tracking.unregistering import MapsLine, tmpfs_of, unregister_all

if TYPE_CHECKING:
    from pagescan.native import Columns

CLIENTS = 64
"""Limit of simultaneous connections."""


class HeldSession:
    """Serves one session until its target ends or a client ends it.

    Attributes:
        ended: Whether it is over; `close` follows.
        end: How: "exited", "exec" or "disarmed"; "" before.
    """

    def __init__(
        self,
        fds: dict[str, int],
        facts: dict[str, Any],
        household: Household | None = None,
    ) -> None:
        """Take over the descriptors; `facts` is `Session.to_json()`.

        Args:
            fds: The descriptors named in `DESCRIPTORS`.
            facts: The facts of the session.
            household: All sessions of this keeper; None: this is the only one.

        Raises:
            OSError: The facts are not on disk; the caller still has the descriptors.
        """
        self.household = household or Household()
        self.facts = facts
        self.pid: int = facts["target"]["pid"]
        self.uffd = fds["uffd"]
        self.pagemap = fds["pagemap"]
        self.lock = fds["lock"]
        self.directory = fds["directory"]
        self.pidfd = fds["pidfd"]
        self._keep(facts)
        self.server = socket.socket(fileno=fds["server"])
        self.selector = self.household.selector
        self._listen()
        # the client that has been silent for the longest time is first
        self.peers: list[Peer] = []
        self.rearming: Peer | None = None
        self.waiting: list[Peer] = []
        self.ended = False
        self.end = ""
        self.household.sessions[self.pid] = self

    def _listen(self) -> None:
        """Wait for clients, and for the target's end; after an error for neither."""
        try:
            self.server.setblocking(False)
            self.selector.register(self.server, selectors.EVENT_READ, self._accept)
            self.selector.register(self.pidfd, selectors.EVENT_READ, self._target_ended)
        except OSError:  # a client has sent other descriptors
            with contextlib.suppress(KeyError):
                self.selector.unregister(self.server)
            self.server.detach()  # the caller still has it
            raise

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
        self.disarm()

    def disarm(self) -> None:
        """End the session without a client's request."""
        self._unregister()
        self._is_over("disarmed")

    def huge_pages(self) -> Columns | None:
        """Return the memory that was in huge pages when protected; None: unknown."""
        try:
            from pagescan.session.pending import load_huge  # only at the end
        except ImportError:  # another version is installed by now
            return None
        return load_huge(self.directory, self.pid)

    def close(self) -> None:
        """Leave nothing of an ended session behind, neither files nor descriptors."""
        self.remove_files()
        self.waiting.clear()
        self.rearming = None
        for peer in list(self.peers):
            peer.hang_up()
        self.selector.unregister(self.server)
        self.selector.unregister(self.pidfd)
        self.server.close()
        if self.uffd >= 0:
            os.close(self.uffd)
        for fd in (self.pidfd, self.pagemap, self.lock, self.directory):
            os.close(fd)

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
        peer = Peer(self, connection)
        self.peers.append(peer)
        self.selector.register(connection, selectors.EVENT_READ, peer.ready)

    def _make_room(self) -> None:
        """Disconnect the client that has been silent longest and waits for nothing."""
        for peer in self.peers:
            if peer is not self.rearming and peer not in self.waiting:
                peer.hang_up()
                return

    def _target_ended(self) -> None:
        self._is_over("exited")

    def _is_over(self, end: str) -> None:
        if not self.ended:
            self.ended, self.end = True, end

    def answer(self, peer: Peer, request: dict[str, Any]) -> None:
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
                alive = has_address_space(self.pagemap)
                cost = self._unregister(_stall(request))
                self.remove_files()
                self._is_over("disarmed" if alive else "exec")
                last = not self.household.living()
                peer.send({"ok": True, "cost": cost, "last": last})
            case "adopt":
                self._adopt(peer)
            case "gone":
                peer.send({"gone": self.household.gone})
            case "told":
                self.household.forget(request["last"])
                peer.send({"ok": True})
            case _:
                raise ValueError(request)

    def _checked(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Return the facts if they are valid; otherwise raise one of `REFUSED`."""
        if facts["target"] != self.facts["target"]:
            raise ValueError("facts of another session")
        self._check_kinds(facts)
        return facts

    def _check_kinds(self, facts: dict[str, Any]) -> None:
        """Raise one of `REFUSED` unless each fact is of the kind of this session's."""
        if facts.keys() != self.facts.keys():
            raise ValueError("facts of another version")
        for key, value in facts.items():
            kinds = (str, type(None)) if key == "since" else (type(self.facts[key]),)
            if type(value) not in kinds:
                raise TypeError(key)
        for item in facts["untracked"]:
            if type(item["start"]) is not int or type(item["end"]) is not int:
                raise TypeError(item)

    def _adopt(self, peer: Peer) -> None:
        """Take over one more session of this group; its facts are in its lock file."""
        if len(peer.received_fds) < len(DESCRIPTORS):
            peer.send({"error": "the keeper has reached its limit of descriptors"})
            return
        fds = dict(zip(DESCRIPTORS, peer.received_fds, strict=True))
        facts = parse(os.pread(fds["lock"], MESSAGE_LIMIT, 0))
        if facts["group"] is None or facts["group"] != self.facts["group"]:
            raise ValueError("facts of another group")
        self._check_kinds(facts)
        pid = facts["target"]["pid"]
        if type(pid) is not int or pid in self.household.sessions:
            raise ValueError(pid)
        try:
            adopted = HeldSession(fds, facts, self.household)
        except OSError as error:
            peer.send({"error": os.strerror(error.errno or 0), "errno": error.errno})
            return
        del peer.received_fds[:]
        try:
            peer.send({"ok": True, "keeper_pid": os.getpid()})
        except OSError:  # the command was killed before it could report the session
            adopted.disarm()

    def _begin(self, peer: Peer) -> None:
        self.rearming = peer
        peer.committed = True  # it cannot have protected anything yet
        self._hand_over(peer)
        peer.committed = False

    def _hand_over(self, peer: Peer) -> None:
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
        self.uffd = -1
        return {
            "scan_ns": meter.scan_ns,
            "max_wait_ns": meter.max_wait_ns,
            "ioctls": meter.ioctls,
            "pages_walked": meter.pages_walked,
        }

    def release(self, peer: Peer) -> None:
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
    """Return the mappings of a process; each read of them counts as a call."""
    with open(f"{memory_dir(pid)}/maps", "rb", buffering=0) as maps:
        text = read_maps(maps.fileno(), meter)
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
