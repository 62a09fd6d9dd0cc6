"""The files of one session, and messages of its socket; standard library only.

The keeper loads this module, and it loads little else.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable
from typing import Any

SUFFIXES = (
    *("sock", "pages", "pages.new", "found", "found.new", "huge", "huge.new"),
    "lock",
)
"""The files of a session. The lock, which marks it as existing, is removed last."""

DESCRIPTORS = ("server", "lock", "directory", "uffd", "pidfd", "pagemap")
"""The descriptors of a session, in the order in which a keeper takes them over."""

MESSAGE_LIMIT = 8 << 20
"""Limit of a message, and of a lock file, in bytes: 50,000 untracked ranges fit."""

_PATIENCE = 2.0  # seconds


def remove_files(directory: int, pid: int, suffixes: Iterable[str] = SUFFIXES) -> None:
    """Remove the files of a session, or some of them, ignoring errors."""
    for suffix in suffixes:
        with contextlib.suppress(OSError):
            os.unlink(f"{pid}.{suffix}", dir_fd=directory)


def lock_inode(directory: int, pid: int) -> int | None:
    """Return the inode of the lock file in a directory; None: there is no such file."""
    try:
        return os.stat(f"{pid}.lock", dir_fd=directory).st_ino
    except FileNotFoundError:
        return None


def parse(text: bytes) -> dict[str, Any]:
    """Parse a JSON object; equal keys and texts of all sessions are one object each.

    A keeper holds the facts of hundreds of sessions, which are much alike.
    """
    found: dict[str, Any] = json.loads(text, object_pairs_hook=_shared)
    return found


def _shared(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {
        sys.intern(key): sys.intern(value) if type(value) is str else value
        for key, value in pairs
    }


def write_facts(fd: int, facts: dict[str, Any]) -> None:
    """Replace the content of a lock file; OSError: the facts are not on disk."""
    data = json.dumps(facts).encode()
    written = os.pwrite(fd, data, 0)
    if written < len(data):
        os.pwrite(fd, data[written:], written)  # this call has the errno
    os.ftruncate(fd, len(data))


def peer_uid(sock: socket.socket) -> int:
    """Return the user at the other end of a socket; source: SO_PEERCRED in unix(7)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder)  # pid, uid, gid


def facts_of(directory: int, pid: int) -> dict[str, Any]:
    """Return the facts from a target's keeper; OSError or ValueError if it has none.

    Args:
        directory: Descriptor of the directory that contains its socket.
        pid: The target.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(f"/proc/self/fd/{directory}/{pid}.sock")
        if peer_uid(sock) != os.geteuid():
            raise PermissionError("another user listens")
        sock.sendall(b'{"op": "open"}\n')
        data, fds = receive_line(sock)
    _close_all(fds)
    facts: dict[str, Any] = json.loads(data)["facts"]
    return facts


def receive_line(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one line and the descriptors sent with it (close-on-exec).

    Raises:
        ConnectionError: The peer hung up before the end of the line, or sent too much.
    """
    data = bytearray()
    fds = array.array("i")
    try:
        while not data.endswith(b"\n"):
            data += receive_piece(sock, fds, 4)
            if len(data) > MESSAGE_LIMIT:
                break
        else:
            return bytes(data), list(fds)
    except BaseException:
        _close_all(fds)
        raise
    _close_all(fds)
    raise ConnectionError("the keeper sends too much")


def receive_piece(sock: socket.socket, fds: array.array[int], most: int) -> bytes:
    """Receive what there is; add the descriptors that come with it, at most `most`.

    Raises:
        ConnectionError: The peer hung up.
    """
    piece, ancillary, _, _ = sock.recvmsg(
        1 << 16, socket.CMSG_LEN(most * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not piece:
        raise ConnectionError("hung up")
    return piece


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
