"""Lines of JSON over a keeper's socket, and the descriptors that come with them."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Iterable
from typing import Any

from pagescan.session.files import MESSAGE_LIMIT, peer_uid

_PATIENCE = 2.0


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
            data += _receive(sock, fds)
            if len(data) > MESSAGE_LIMIT:
                break
        else:
            return bytes(data), list(fds)
    except BaseException:
        _close_all(fds)
        raise
    _close_all(fds)
    raise ConnectionError("the keeper sends too much")


def _receive(sock: socket.socket, fds: array.array[int]) -> bytes:
    piece, ancillary, _, _ = sock.recvmsg(
        1 << 16, socket.CMSG_SPACE(4 * fds.itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not piece:
        raise ConnectionError("the keeper hung up")
    return piece


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
