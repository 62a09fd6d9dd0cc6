"""Runs examples beside the programs that they name, in namespaces of their own.

Run as a program below `unshare --pid --net --mount`, with the folder of the programs.
It starts them, and then reads requests from stdin, one JSON array per line, and writes
one JSON object per answer. Each name is unique there, each port is free, and everything
ends with this process.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

POSTGRES = "postgres"
GREEDY = "import time\nkept = []\nwhile True:\n    kept.append('x' * 9999)\n"
GREEDY += "    kept[:-999] = []\n    time.sleep(0.01)\n"
WEB = "def app(environ, start):\n    start('200 OK', [])\n    return [b'hello']\n"
NGINX = """daemon off; worker_processes 2; pid {0}/nginx.pid; user root;
error_log {0}/error; events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:8001; root {0}; }} }}
"""


def _bring_loopback_up() -> None:
    """Give the network namespace its address 127.0.0.1: SIOCSIFFLAGS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        up = struct.pack("16sh14x", b"lo", 1)
        fcntl.ioctl(any_socket, 0x8914, up)


def _wait(fact: Any) -> None:
    deadline = time.monotonic() + 120
    while not fact():
        assert time.monotonic() < deadline, "a program does not start"
        time.sleep(0.01)


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Programs:
    """The programs that the examples name; `pids` has their pids, by name."""

    def __init__(self, folder: Path, units: Path, postgres: str) -> None:
        self.folder, self._units = folder, units
        self.pids: dict[str, int] = {}
        self._start_database(folder / "data", Path(postgres))
        self._start("redis-server", ["redis-server", "--save", ""], "redis-server")
        words = ["java", "-Xmx64m", "-cp", str(folder), "Steady"]
        self._start("java", words)
        (folder / "app.py").write_text(WEB)
        words = ["gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:8000", "app:app"]
        self._start("gunicorn", words)
        (folder / "nginx.conf").write_text(NGINX.format(folder))
        words = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        self._start("nginx", words, "nginx")
        self._start("4242", ["python3", "-c", GREEDY])
        (folder / "train.py").write_text("kept = [bytes(999) for _ in range(99999)]\n")
        for port in (6379, 8000, 8001):
            _wait(lambda port=port: _open(port))

    def _start(self, name: str, words: list[str], unit: str = "", **more: Any) -> None:
        environment = {
            key: text for key, text in os.environ.items() if "PYTHON" not in key
        }
        child = subprocess.Popen(
            words,
            cwd=more.pop("cwd", self.folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            **more,
        )
        self.pids[name] = child.pid
        if unit:
            group = self._units / f"{unit}.service"
            (group / "cgroup.procs").write_text(str(child.pid))

    def _start_database(self, data: Path, programs: Path) -> None:
        owner: dict[str, Any] = {"user": POSTGRES, "group": POSTGRES, "cwd": "/"}
        data.mkdir()
        os.chown(data, *_owner())
        words = [str(programs / "initdb"), "-D", str(data), "-N", "-A", "trust"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **owner)
        words = [
            str(programs / "postgres"),
            "-D",
            str(data),
            "-k",
            "",
            "-c",
            "fsync=off",
        ]
        self._start("postgres", words, "postgresql", **owner)
        _wait(lambda: _open(5432))

    def run(self, line: str, until: str, then: str) -> dict[str, Any]:
        """Run a line in zsh, or in bash where it says so; return what came of it.

        Args:
            line: The example.
            until: What it prints when it has begun; "": it ends by itself.
            then: What happens then: a line for the shell, or "Ctrl-C".
        """
        shell = ["bash", "-c"] if "bash" in line else ["zsh", "-fc"]
        child = subprocess.Popen(
            [*shell, f"{'' if 'bash' in line else 'setopt pipefail; '}{line}"],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert child.stdout is not None
        output, waits, deadline = b"", bool(until), time.monotonic() + 120
        while True:
            left = deadline - time.monotonic()
            if left < 0 or not select.select([child.stdout], [], [], left)[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                break
            if not (part := os.read(child.stdout.fileno(), 1 << 16)):
                break
            output += part
            if waits and re.search(until.encode(), output):
                waits = False
                if then == "Ctrl-C":
                    os.killpg(child.pid, signal.SIGINT)
                else:
                    subprocess.run(["sh", "-c", then], check=True, capture_output=True)
        text = output.decode(errors="replace")
        return {"code": child.wait(), "output": text, "begun": not waits}


def _owner() -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam(POSTGRES)
    return entry.pw_uid, entry.pw_gid


def main() -> None:
    """Start the programs, print their pids, and answer requests until stdin ends."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    _bring_loopback_up()
    programs = Programs(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    _answer(programs.pids)
    for request in sys.stdin:
        _answer(programs.run(*json.loads(request)))


def _answer(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
