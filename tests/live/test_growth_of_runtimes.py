"""The mappings left in programs that grow while watched: the table of harmless.md.

Each program grows twice at the same time, once watched at 0.1 s and once alone, for
PAGESCAN_GROWTH_SECONDS: 120 for the table, which -s prints, and 2 otherwise.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import HERE

SECONDS = float(os.environ.get("PAGESCAN_GROWTH_SECONDS", "2"))
pytestmark = [pytest.mark.needs("tracking"), pytest.mark.timeout(SECONDS * 3 + 120)]
TARGETS = HERE / "targets"
_NOT_ITS_OWN = {
    "uw",
    "sd",
}  # registered; soft-dirty, by which the kernel splits nothing


@dataclass(frozen=True)
class Layout:
    """The mappings of a process, as they are and without the borders from tracking.

    Attributes:
        mappings: How many there are.
        joined: Bounds of runs of neighbours that are alike in all that smaps shows,
            except for the flag of registration.
    """

    mappings: int
    joined: frozenset[tuple[int, int]]

    @property
    def split(self) -> int:
        """Return how many borders separate neighbours that look alike."""
        return self.mappings - len(self.joined)


def layout(pid: int) -> Layout:
    """Read a process's mappings with their flags, since some programs set these."""
    runs: list[list[Any]] = []
    count, words = 0, [""]
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        if "-" in line.partition(":")[0].split(None, 1)[0]:
            words, count = line.split(None, 5), count + 1
        if not line.startswith("VmFlags:"):
            continue
        span, perms, offset, device, inode, *name = words
        start, end = (int(word, 16) for word in span.split("-"))
        own = set(line.split()[1:]) - _NOT_ITS_OWN
        kind = (perms, device, inode, *name, *sorted(own))
        follows = runs and runs[-1][1] == start and runs[-1][2] == kind
        if follows and (inode == "0" or runs[-1][3] == int(offset, 16)):
            runs[-1][1] = end
        else:
            runs.append([start, end, kind, 0])
        runs[-1][3] = int(offset, 16) + end - start
    return Layout(count, frozenset((low, high) for low, high, *_ in runs))


@dataclass
class Growing:
    """A program that grows."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Return the pid of the growing process."""
        return self.process.pid

    def kill(self) -> None:
        """End the program, in whatever state it is."""
        with self.process:  # waits for it, and closes its streams
            self.process.kill()

    def end(self) -> int:
        """End the program; return how many of its checks failed."""
        faults, _ = self.process.communicate("\n", timeout=60)
        assert self.process.returncode == 0
        return int(faults.split()[-1])


class GrowingRedis(Growing):
    """A redis-server to which a thread of this process adds keys."""

    def __init__(self, folder: Path) -> None:
        path = folder / "redis.sock"
        words = ["redis-server", "--port", "0", "--unixsocket", str(path)]
        words += ["--save", "", "--appendonly", "no", "--dir", str(folder)]
        super().__init__(
            subprocess.Popen([*words, "--logfile", str(folder / "log")], text=True)
        )
        witness.wait_for(path.exists)
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.add, args=(str(path),))
        self.thread.start()

    def kill(self) -> None:
        """End the thread and then the server."""
        self.over.set()
        self.thread.join()
        super().kill()

    def add(self, path: str) -> None:
        """Add 64 KiB of keys every 20 ms."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            first = 0
            while not self.over.wait(0.02):
                request = b""
                for number in range(first, first + 64):
                    key = f"key:{number:09}"
                    request += f"*3\r\n$3\r\nSET\r\n$13\r\n{key}\r\n$900\r\n".encode()
                    request += b"x" * 900 + b"\r\n"
                first += 64
                connection.sendall(request)
                answer = b""
                while len(answer) < 64 * 5:
                    answer += connection.recv(1 << 16)

    def end(self) -> int:
        """End the growth."""
        self.over.set()
        self.thread.join()
        self.process.terminate()
        assert self.process.wait(60) == 0
        return 0


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs."""
    folder = tmp_path_factory.mktemp("growing")
    program = str(folder / "growing")
    source = str(TARGETS / "growing.c")
    subprocess.run(
        ["cc", "-O1", "-Wall", "-pthread", "-o", program, source], check=True
    )
    return folder


def start(kind: str, built: Path, folder: Path) -> Growing:
    """Start a program, and wait until it grows."""
    if kind == "redis":
        return GrowingRedis(folder)
    words = {
        "python": [sys.executable, str(TARGETS / "growing.py")],
        "java": ["java", "-Xmx1g", "-Xms16m", "-cp", str(built), "Growing"],
        "go": [str(built / "growing-go")],
        "node": ["node", str(TARGETS / "growing.js")],
    }.get(kind, [str(built / "growing"), kind])
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return Growing(process)


def build(kind: str, folder: Path) -> None:
    """Compile the programs that need it."""
    if kind == "java":
        source = str(TARGETS / "Growing.java")
        subprocess.run(["javac", "-d", str(folder), source], check=True)
    if kind == "go":
        words = ["go", "build", "-o", str(folder / "growing-go")]
        place = {"HOME": str(folder), "GOCACHE": str(folder / "cache")}
        environment = {**os.environ, **place, "GO111MODULE": "off"}
        source = str(TARGETS / "growing.go")
        subprocess.run([*words, source], check=True, env=environment)


@contextlib.contextmanager
def watched(pid: int) -> Iterator[list[dict[str, Any]]]:
    """Watch a process at 0.1 s; the list has all looks afterwards."""
    looks: list[dict[str, Any]] = []
    words = ["watch", str(pid), "-i", "0.1", "--json", "--by", "mapping", "-q"]
    with subprocess.Popen(
        [sys.executable, "-m", "pagescan", *words], stdout=subprocess.PIPE, text=True
    ) as watch:
        assert watch.stdout is not None
        thread = threading.Thread(target=take, args=(watch.stdout, looks))
        thread.start()
        try:
            yield looks
        finally:
            watch.terminate()
            thread.join()
    assert watch.returncode == 0


def take(lines: Iterable[str], looks: list[dict[str, Any]]) -> None:
    """Append each look as it arrives."""
    looks.extend(map(json.loads, lines))


KINDS = [
    "brk",
    "mmap",
    "arenas",
    "python",
    pytest.param("java", marks=pytest.mark.needs("java")),
    pytest.param("go", marks=pytest.mark.needs("go")),
    pytest.param("node", marks=pytest.mark.needs("node")),
    pytest.param("redis", marks=pytest.mark.needs("redis")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_growth(kind: str, built: Path, tmp_path: Path) -> None:
    """At most two more mappings per growing one while watched, and one after."""
    build(kind, built)
    (tmp_path / "alone").mkdir()
    with contextlib.ExitStack() as undo:
        program = start(kind, built, tmp_path)
        undo.callback(program.kill)
        alone = start(kind, built, tmp_path / "alone")
        undo.callback(alone.kill)
        compare(kind, program, alone)
        assert program.end() == 0
        assert alone.end() == 0


def compare(kind: str, program: Growing, alone: Growing) -> None:
    """Watch one of two growing programs, and print a row of the table."""
    before, before_alone = layout(program.pid), layout(alone.pid)
    with watched(program.pid) as looks:
        witness.wait_for(lambda: looks, 60)
        time.sleep(SECONDS)
        witness.wait_for(lambda: len(looks) >= 2)
        most, most_alone = layout(program.pid), layout(alone.pid)
    after = layout(program.pid)
    added = [look["cost"]["mappings_added"] for look in looks]
    growing = max(1, len(most.joined - before.joined))
    print(  # noqa: T201 - pytest -s: a row of the table
        f"\n| {kind} | {before_alone.mappings}, {most_alone.mappings}"
        f" | {before.mappings}, {most.mappings}, {after.mappings} | {growing}"
        f" | {most.split - before.split} | {after.split - before.split}"
        f" | {max(added)} | {len(looks)} looks,"
        f" {sum(look['summary']['pages'] for look in looks)} pages |"
    )
    assert witness.registered(program.pid) == 0
    assert most.split - before.split <= 2 * growing
    assert after.split - before.split <= max(1, len(after.joined - before.joined))
