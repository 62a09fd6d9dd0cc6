"""The bounds on connections to the exporter, and on the head of a request."""

import io
import socket
from collections.abc import Iterator
from http.client import HTTPException, parse_headers

import pytest

from pagescan.exporter.connections import PATIENCE, Connections, Head

MOST = 16


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Clients:
    """Connections, each with its other end."""

    def __init__(self) -> None:
        self.all: list[tuple[socket.socket, socket.socket]] = []

    def __call__(self) -> socket.socket:
        """Return the server's end of a new connection."""
        self.all.append(socket.socketpair())
        return self.all[-1][0]

    def is_over(self, connection: socket.socket) -> bool:
        """Whether the server has shut a connection."""
        other = dict(self.all)[connection]
        other.setblocking(False)
        try:
            return other.recv(1) == b""
        except BlockingIOError:
            return False


@pytest.fixture
def client() -> Iterator[Clients]:
    """Make connections, and close them."""
    made = Clients()
    yield made
    for pair in made.all:
        for end in pair:
            end.close()


def test_the_oldest_silent_connection_makes_room(client: Clients) -> None:
    """Silent connections keep no scraper away; a request that has arrived stays."""
    clock = Clock()
    connections = Connections(clock)
    first = client()
    assert connections.admit(first)
    connections.asked(first)
    silent = []
    for _ in range(MOST - 1):
        clock.now += 0.001
        silent.append(client())
        assert connections.admit(silent[-1])
    assert not connections.admit(client())  # all are too young
    clock.now += 1
    assert connections.admit(client())
    assert [client.is_over(one) for one in (first, *silent[:2])] == [False, True, False]


def test_an_answer_makes_room_late(client: Clients) -> None:
    """A client has its time to take the answer, and no more if others wait."""
    clock = Clock()
    connections = Connections(clock)
    many = [client() for _ in range(MOST)]
    for one in many:
        assert connections.admit(one)
        connections.asked(one)
    clock.now += PATIENCE - 1
    assert not connections.admit(client())
    clock.now += 1
    assert connections.admit(client())
    assert sum(map(client.is_over, many)) == 1


def test_a_request_that_does_not_arrive_is_given_up(client: Clients) -> None:
    """The time counts from the start: a byte now and then does not renew it."""
    clock = Clock()
    connections = Connections(clock)
    assert connections.sweep() is None
    slow, quick = client(), client()
    assert connections.admit(slow)
    assert connections.admit(quick)
    connections.asked(quick)
    clock.now += PATIENCE - 4
    assert connections.sweep() == pytest.approx(4)
    assert not client.is_over(slow)
    clock.now += 4
    assert connections.sweep() is None
    assert client.is_over(slow)
    assert not client.is_over(quick)
    connections.forget(slow)  # its thread ends


def test_a_connection_that_is_encrypted_now_has_its_age(client: Clients) -> None:
    """The handshake of TLS is a part of the time in which a request arrives."""
    clock = Clock()
    connections = Connections(clock)
    plain, encrypted = client(), client()
    connections.admit(plain)
    clock.now += PATIENCE
    connections.replace(plain, encrypted)
    connections.sweep()
    assert client.is_over(encrypted)
    assert not client.is_over(plain)


def head(text: bytes) -> Head:
    """Return the head of a request, behind its first line."""
    made = Head(io.BytesIO(b"GET /metrics HTTP/1.1\r\n" + text))
    assert made.readline(65537) == b"GET /metrics HTTP/1.1\r\n"
    return made


def test_a_whole_head_is_read() -> None:
    """A head of usual length is as http.server reads it."""
    found = parse_headers(head(b"A: b\r\nC: " + b"d" * 8000 + b"\r\n\r\nbody"))
    assert found["A"] == "b"
    assert found["C"] == "d" * 8000


@pytest.mark.parametrize("text", [b"", b"A: b\r\n", b"A: b"])
def test_a_head_that_is_cut_is_no_request(text: bytes) -> None:
    """A client that goes within the head gets no answer."""
    with pytest.raises(ConnectionResetError):
        parse_headers(head(text))


@pytest.mark.parametrize("lines", [1, 90])
def test_a_head_that_is_too_long(lines: int) -> None:
    """All lines together are bounded, and not each line alone."""
    line = b"X: " + b"a" * (40_000 // lines) + b"\r\n"
    with pytest.raises(HTTPException):
        parse_headers(head(line * lines + b"\r\n"))
