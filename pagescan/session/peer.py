"""One connection of a client to a keeper."""

from __future__ import annotations

import array
import json
import os
import selectors
import socket
from typing import TYPE_CHECKING, Any

from pagescan.session.files import (
    DESCRIPTORS,
    MESSAGE_LIMIT,
    parse,
    receive_piece,
)

if TYPE_CHECKING:
    from pagescan.session.held_session import HeldSession

REQUEST_LIMIT = 4096
"""Limit of one request, in bytes, from a client without the right to rearm."""

# Errors that mean: the client is gone, or its request is malformed.
REFUSED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)


class Peer:
    """One connection: one request at a time, bounded in size, and never blocking.

    Attributes:
        received_fds: The descriptors that came with the request.
        committed: Whether it has reported all that it has protected.
    """

    def __init__(self, keeper: HeldSession, connection: socket.socket) -> None:
        """Serve a connection that does not block."""
        self.keeper = keeper
        self.connection = connection
        self.received = bytearray()
        self.received_fds = array.array("i")
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
                self.keeper.answer(self, parse(bytes(line)))
                self.close_received()
        except REFUSED:
            self.hang_up()

    def _receive(self) -> None:
        try:
            piece = receive_piece(self.connection, self.received_fds, len(DESCRIPTORS))
        except BlockingIOError:
            return
        if len(self.received_fds) > len(DESCRIPTORS):
            raise ValueError("too many descriptors")
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
        self.close_received()
        self.keeper.release(self)

    def close_received(self) -> None:
        """Close the descriptors that came with a request and were not taken over."""
        for fd in self.received_fds:
            os.close(fd)
        del self.received_fds[:]
