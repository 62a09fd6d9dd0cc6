"""Real servers with several processes, for the tests that watch them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import machine, witness

NAME = f"pagescan-tests-{os.getpid()}"
QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def serves(port: int) -> bool:
    """Whether a web server answers."""
    url = f"http://127.0.0.1:{port}/"
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(url, timeout=60) as answer,
    ):
        return bool(answer.status == 200)
    return False


def load(port: int, requests: int) -> None:
    """Send requests one by one; each must be answered."""
    for _ in range(requests):
        assert serves(port)


def children(pid: int) -> set[int]:
    """Return the pids of a process's children."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(word) for word in text.split()}


def _backends(pid: int) -> list[int]:
    """Return the children of a PostgreSQL that serve a client, or are about to end."""
    found = []
    for child in children(pid):
        try:
            title = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            title = b""
        if not title or b"ann" in title:
            found.append(child)
    return found


@contextlib.contextmanager
def postgres(seconds: int) -> Iterator[tuple[int, list[Any]]]:
    """Run a PostgreSQL; yield its pid, and the words that load it for some seconds."""
    programs, port = machine.postgres(), free_port()
    assert programs is not None
    folder = Path("/tmp") / NAME  # the path of a socket is short
    folder.mkdir()
    shutil.chown(folder, "postgres", "postgres")
    owner: dict[str, Any] = {"user": "postgres", "group": "postgres", "cwd": "/"}
    made: list[Any] = [programs / "initdb", "-D", folder / "data", "-U", "ann", "-N"]
    subprocess.run([*made, "-A", "trust"], check=True, **owner, **QUIET)
    options: list[Any] = ["-k", folder]
    for word in ("shared_buffers=32MB", "fsync=off", "autovacuum=off"):
        options += ["-c", word]
    server = subprocess.Popen(
        [programs / "postgres", "-D", folder / "data", "-p", str(port), *options],
        **owner,
        **QUIET,
    )
    try:
        where: list[Any] = ["-h", folder, "-p", str(port)]
        ready = [programs / "pg_isready", *where, "-q"]
        witness.wait_for(lambda: subprocess.run(ready, check=False).returncode == 0, 60)
        bench: list[Any] = [programs / "pgbench", *where, "-U", "ann"]
        subprocess.run([*bench, "-i", "-q", "postgres"], check=True, **QUIET)
        witness.wait_for(lambda: not _backends(server.pid))
        yield server.pid, [*bench, "-n", "-c", "4", "-T", str(seconds), "postgres"]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder)


@contextlib.contextmanager
def _ends_well(server: "subprocess.Popen[bytes]") -> Iterator[None]:
    """End a server after the block; its exit code must be 0."""
    try:
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30 * witness.PATIENCE) == 0


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[tuple[int, int]]:
    """Run an nginx with three workers; yield its pid and its port."""
    port = free_port()
    (folder / "index.html").write_text("hello")
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 3; pid {folder}/pid; user root;\n"
        f"error_log {folder}/error;\nevents {{}}\n"
        f"http {{ access_log off; server {{ listen 127.0.0.1:{port};"
        f" root {folder}; }} }}\n"
    )
    server = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(config)])
    with _ends_well(server):
        witness.wait_for(lambda: serves(port))
        witness.wait_for(lambda: len(children(server.pid)) == 3)
        yield server.pid, port


@contextlib.contextmanager
def gunicorn(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a gunicorn with three workers; yield its pid and its port."""
    port = free_port()
    (folder / "app.py").write_text(
        "def app(environ, start):\n"
        "    start('200 OK', [])\n    return [bytes(100000)]\n"
    )
    environment = {
        name: text for name, text in os.environ.items() if "PYTHON" not in name
    }
    server = subprocess.Popen(
        [
            shutil.which("gunicorn") or "",
            "-w",
            "3",
            "-b",
            f"127.0.0.1:{port}",
            "app:app",
        ],
        cwd=folder,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    with _ends_well(server):
        witness.wait_for(lambda: serves(port))
        witness.wait_for(lambda: len(children(server.pid)) == 3)
        yield server.pid, port
