"""The files of one session, and limits of its socket; standard library only.

The keeper loads this module, and it loads little else.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from typing import Any

SUFFIXES = (
    *("sock", "pages", "pages.new", "found", "found.new", "huge", "huge.new"),
    "lock",
)
"""The files of a session. The lock, which marks it as existing, is removed last."""

MESSAGE_LIMIT = 8 << 20
"""Limit of a message, and of a lock file, in bytes: 50,000 untracked ranges fit."""


def remove_files(directory: int, pid: int) -> None:
    """Remove the files of a session, ignoring errors."""
    for suffix in SUFFIXES:
        with contextlib.suppress(OSError):
            os.unlink(f"{pid}.{suffix}", dir_fd=directory)


def lock_inode(directory: int, pid: int) -> int | None:
    """Return the inode of the lock file in a directory; None: there is no such file."""
    try:
        return os.stat(f"{pid}.lock", dir_fd=directory).st_ino
    except FileNotFoundError:
        return None


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
