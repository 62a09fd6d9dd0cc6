"""The open connections of a server, and the head of a request: both are bounded.

Strangers may open connections without end, or send a request that never ends. Neither
keeps a scraper away for long, nor takes much memory.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from io import BufferedIOBase

PATIENCE = 10.0
"""Seconds for a request to arrive, and for the answer to be taken."""

_MOST = 16
_EARLY = 0.1  # seconds in which the request of a scraper arrives
_LONGEST = 1 << 15  # bytes of a head; that of Prometheus has some hundred


@dataclass(slots=True)
class _Open:
    """One connection.

    Attributes:
        begun: When it was accepted.
        asked: Whether its request has arrived.
    """

    begun: float
    asked: bool = False


class Connections:
    """The open connections: not too many, and none that waits for ever.

    Args:
        clock: Returns seconds.
        patience: Seconds for a request to arrive, and for the answer to be taken.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, patience: float = PATIENCE
    ) -> None:
        """Begin without a connection."""
        self._clock = clock
        self._patience = patience
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _Open] = {}

    def admit(self, connection: socket.socket) -> bool:
        """Note a new connection; return False if there are too many.

        The oldest one without a request makes room, unless it is very young, and then
        the oldest one whose client takes too long to take its answer.
        """
        now = self._clock()
        with self._lock:
            if len(self._open) >= _MOST and not self._make_room(now):
                return False
            self._open[connection] = _Open(now)
        return True

    def _make_room(self, now: float) -> bool:
        for asked, least in ((False, _EARLY), (True, self._patience)):
            found = [
                (one.begun, connection)
                for connection, one in self._open.items()
                if one.asked is asked and now - one.begun >= least
            ]
            if found:
                _, oldest = min(found, key=lambda pair: pair[0])
                self._end(oldest)
                return True
        return False

    def _end(self, connection: socket.socket) -> None:
        """Forget a connection, and end what its thread waits for."""
        del self._open[connection]
        with contextlib.suppress(OSError):
            shut(connection, socket.SHUT_RDWR)

    def sweep(self) -> float | None:
        """End connections whose request has not arrived in time.

        Returns:
            Seconds until the next one is due; None: no connection waits.
        """
        now = self._clock()
        with self._lock:
            late = [
                connection
                for connection, one in self._open.items()
                if not one.asked and now - one.begun >= self._patience
            ]
            for connection in late:
                self._end(connection)
            waiting = [one.begun for one in self._open.values() if not one.asked]
        return min(waiting) + self._patience - now if waiting else None

    def asked(self, connection: socket.socket) -> None:
        """Note that the request of a connection has arrived."""
        with self._lock:
            if connection in self._open:
                self._open[connection].asked = True

    def replace(self, plain: socket.socket, encrypted: socket.socket) -> None:
        """Replace a noted connection by the object that stands for it now."""
        with self._lock:
            one = self._open.pop(plain, None)
            self._open[encrypted] = one or _Open(self._clock())

    def forget(self, connection: socket.socket) -> None:
        """Note that a connection is over."""
        with self._lock:
            self._open.pop(connection, None)

    def hear_no_more(self) -> None:
        """Let no connection wait for its request; answers go on."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    shut(connection, socket.SHUT_RD)


def shut(connection: socket.socket, how: int) -> None:
    """Shut the connection alone: the shutdown of an SSLSocket ends its encryption.

    A thread that is answering would then send the rest as plain text.
    """
    socket.socket.shutdown(connection, how)


class Head:
    """The head of a request, line by line.

    `http.server` takes a head that is cut for a whole one, and would keep 6 MiB of it.
    """

    def __init__(self, file: BufferedIOBase) -> None:
        """Read from a connection."""
        self._file = file
        self._lines = 0
        self._left = _LONGEST

    def readline(self, limit: int = _LONGEST, /) -> bytes:
        """Return the next line.

        Raises:
            ConnectionResetError: The client has gone within the head.
            HTTPException: The head is too long.
        """
        line = self._file.readline(limit)
        self._lines += 1
        self._left -= len(line)
        if len(line) < limit and not line.endswith(b"\n"):
            raise ConnectionResetError
        if self._left < 0 and self._lines > 1:  # a first line: http.server says it
            raise HTTPException(f"more than {_LONGEST} bytes")
        return line

    def close(self) -> None:
        """Close it."""
        self._file.close()
