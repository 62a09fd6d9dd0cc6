"""Serves the metrics over HTTP or HTTPS, with a bound on connections and on waiting."""

import base64
import binascii
import hmac
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Self

from pagescan.exporter.connections import PATIENCE, Connections, Head
from pagescan.exporter.web_config import WebConfig, read
from pagescan.model.errors import PagescanError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_PAUSE = 0.1  # seconds until a connection is accepted again
_METRICS = "/metrics"
_LANDING = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>pagescan exporter</title></head>
<body><h1>pagescan exporter</h1><p><a href="/metrics">Metrics</a></p></body></html>
"""
_TEXT = "text/plain; charset=utf-8"

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Discard a message."""


class Server:
    """Answers scrapes, each connection in a thread of its own.

    A context manager: it serves in the background until its end.

    Attributes:
        connections: The open connections.
        registry: The registry whose metrics are collected at each scrape.
        say: Called with each message for the user.
    """

    def __init__(
        self,
        sock: socket.socket,
        registry: "CollectorRegistry",
        config: WebConfig | None = None,
        say: Say = _silent,
    ) -> None:
        """Serve on a listening socket, which the caller closes."""
        self.connections = Connections()
        self.registry = registry
        self.say = say
        self._socket = sock
        self._config = config or WebConfig()
        self._lock = threading.Lock()
        self._answering: set[threading.Thread] = set()
        self._known: set[tuple[bytes, bytes]] = set()
        self._key = os.urandom(32)
        self._nobody = b""
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._socket.setblocking(False)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        # A thread that still ran in a library at the end of Python would abort it.
        self.connections.hear_no_more()
        for thread in list(self._answering):
            thread.join()
        os.close(self._stop)

    @property
    def config(self) -> WebConfig:
        """The web config; it is read again if its files have changed and are valid."""
        with self._lock:
            if self._config.changed():
                try:
                    self._config = read(self._config.files[0])
                    self._known.clear()
                    self.say("the web config was read again")
                except PagescanError as error:
                    self._config.accept_change()
                    self.say(f"{error}: the earlier web config stays in force")
            return self._config

    def _accept(self) -> None:
        """Accept connections until the end."""
        ready = select.poll()
        ready.register(self._socket, select.POLLIN)
        ready.register(self._stop, select.POLLIN)
        refusal = ""  # each is said once, and not ten times per second
        while True:
            due = self.connections.sweep()
            found = ready.poll(None if due is None else max(0.0, due) * 1000 + 1)
            if self._stop in [fd for fd, _ in found]:
                return
            if not found:
                continue
            why = self._accept_one()
            if why and why != refusal:
                self.say(f"a connection was not accepted: {why}")
            refusal = why
            if why:
                time.sleep(_PAUSE)

    def _accept_one(self) -> str:
        """Accept a connection; return why that was not possible, or ""."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client has gone
            return ""
        except OSError as error:  # no descriptor is left
            return str(error.strerror)
        if not self.connections.admit(connection):
            connection.close()
            return ""
        thread = threading.Thread(target=self._serve, args=(connection,))
        self._answering.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # RLIMIT_NPROC, or pids.max of its cgroup
            self._answering.discard(thread)
            self.connections.forget(connection)
            connection.close()
            return str(error)
        return ""

    def _serve(self, connection: socket.socket) -> None:
        """Answer one connection; the handshake of TLS is a part of that."""
        channel = connection
        try:
            channel.settimeout(PATIENCE)
            tls = self.config.tls
            if tls is not None:
                channel = tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                self.connections.replace(connection, channel)
                channel.do_handshake()
            Handler(channel, "", self)  # type: ignore[arg-type] # no BaseServer
        except OSError:
            pass  # the handshake failed, or the client went away: the next scrape tells
        finally:
            channel.close()
            self.connections.forget(channel)
            self._answering.discard(threading.current_thread())

    def allows(self, header: str | None) -> bool:
        """Whether a request has the name and the password of a user."""
        users = self.config.users
        if not users:
            return True
        name, password = _credentials(header)
        import bcrypt

        if not self._nobody:  # an unknown name takes as long as a wrong password
            self._nobody = bcrypt.hashpw(b"", bcrypt.gensalt(10))
        hashed = users.get(name, self._nobody)
        proof = hmac.digest(self._key, password, "sha256")
        with self._lock:
            if (hashed, proof) in self._known:
                return True
        # Longer ones are refused by bcrypt, and cut off by htpasswd.
        if not bcrypt.checkpw(password[:72], hashed) or name not in users:
            return False
        with self._lock:
            self._known.add((hashed, proof))
        return True


def _takes_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header names gzip, and not to exclude it by q=0."""
    for item in header.lower().split(","):
        name, _, rest = item.partition(";")
        if name.strip() == "gzip":
            weight = rest.replace(" ", "").removeprefix("q=")
            return not re.fullmatch(r"0(\.0*)?", weight)
    return False


def _credentials(header: str | None) -> tuple[str, bytes]:
    """Return name and password of an Authorization header; empty if malformed."""
    scheme, _, word = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return "", b""
    try:
        name, _, password = base64.b64decode(word, validate=True).partition(b":")
        return name.decode(), password.replace(b"\0", b"")
    except (binascii.Error, UnicodeDecodeError):
        return "", b""


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server  # type: ignore[assignment] # no BaseServer
    timeout = PATIENCE

    def setup(self) -> None:
        """Bound the head of the request."""
        super().setup()
        self.rfile = Head(self.rfile)  # type: ignore[assignment] # no more is used

    def version_string(self) -> str:
        """Return the name of this server, without a version for strangers."""
        return "pagescan"

    def do_GET(self) -> None:
        """Answer with the metrics, with a page that links to them, or refuse."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer like GET, without the body."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        self.server.connections.asked(self.connection)
        if not self.server.allows(self.headers.get("Authorization")):
            extra = {"WWW-Authenticate": 'Basic realm="pagescan"'}
            self._send(HTTPStatus.UNAUTHORIZED, b"Unauthorized\n", extra, body=body)
            return
        path = self.path.partition("?")[0]
        if path == "/":
            extra = {"Content-Type": "text/html; charset=utf-8"}
            self._send(HTTPStatus.OK, _LANDING, extra, body=body)
        elif path == "/-/healthy":
            self._send(HTTPStatus.OK, b"pagescan exporter is healthy\n", body=body)
        elif path == _METRICS:
            self._send_metrics(body=body)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"Not found: see /metrics\n", body=body)

    def _send_metrics(self, *, body: bool) -> None:
        from prometheus_client.exposition import choose_encoder

        accepted = self.headers.get("Accept", "")
        try:
            encoder, content_type = choose_encoder(accepted)
        except Exception:  # noqa: BLE001 - what a malformed header does has no list
            encoder, content_type = choose_encoder("")
        try:
            text = encoder(self.server.registry)
        except PagescanError as error:
            self.server.say(str(error))
            text = f"{error}\n".encode("utf-8", "replace")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, text, body=body)
            return
        extra = {"Content-Type": content_type, "Vary": "Accept-Encoding"}
        if _takes_gzip(self.headers.get("Accept-Encoding", "")):
            import gzip

            text = gzip.compress(text, 1)
            extra["Content-Encoding"] = "gzip"
        self._send(HTTPStatus.OK, text, extra, body=body)

    def _send(
        self,
        status: HTTPStatus,
        text: bytes,
        extra: dict[str, str] | None = None,
        *,
        body: bool,
    ) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": _TEXT,
            "X-Content-Type-Options": "nosniff",
            **self.server.config.headers,
            **(extra or {}),
            "Content-Length": str(len(text)),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http's
        """Print nothing: the requests are not logged."""
