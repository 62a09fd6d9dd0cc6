"""The target processes, and the commands that look at them."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import MIB, Helper, Unavailable, helper, scratch

# Bytes of a string, and the memory that redis needs for it with its overhead.
_VALUE, _STORED = 2000, 2150


def pagescan(*words: object) -> list[str]:
    """Return the command line of the pagescan of this environment."""
    script = Path(sys.executable).with_name("pagescan")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "pagescan"]
    return [*start, *map(str, words)]


def memory_left() -> int:
    """Return the bytes that a benchmark may use: three quarters of the free memory."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 * 3 // 4
    raise Unavailable("/proc/meminfo has no MemAvailable")


@contextlib.contextmanager
def target(size: int, *words: str) -> Iterator[Helper]:
    """Run a C program that has `size` bytes of populated memory.

    Args:
        size: Bytes, a power of two.
        words: "huge" populates the memory with transparent huge pages.
    """
    if size > memory_left():
        raise Unavailable(f"too little free memory for {size // MIB} MiB")
    with helper("target", size, *words) as made:
        yield made


def range_of(made: Helper) -> str:
    """Return the populated memory of a target as a RANGE."""
    return f"{made.facts['start']:#x}-{made.facts['end']:#x}"


class Redis:
    """A redis-server on a socket of its own, filled to about a given size."""

    def __init__(self, folder: Path, size: int) -> None:
        """Start the server and fill it."""
        if shutil.which("redis-server") is None:
            raise Unavailable(
                "redis-server is not installed (apt install redis-server)"
            )
        if size > memory_left():
            raise Unavailable(f"too little free memory for {size // MIB} MiB of redis")
        self.path = str(folder / "redis.sock")
        self.process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", self.path),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
                *("--enable-debug-command", "local"),
                *("--disable-thp", "no"),
                *("--logfile", str(folder / "redis.log")),
            ]
        )
        self.pid = self.process.pid
        self.connection = self._connect()
        self.ask("DEBUG", "POPULATE", str(size // _STORED), "bench", str(_VALUE))

    def _connect(self) -> socket.socket:
        for _ in range(1000):
            made = socket.socket(socket.AF_UNIX)
            with contextlib.suppress(OSError):
                made.connect(self.path)
                return made
            made.close()
            time.sleep(0.01)
        raise Unavailable("redis-server does not listen")

    def ask(self, *words: str) -> bytes:
        """Send one command and return the answer."""
        parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
        self.connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        answer = self.connection.recv(1 << 16)
        if answer.startswith(b"-"):
            raise Unavailable(f"redis: {answer.decode().strip()}")
        return answer

    def requests(self) -> int:
        """Return how many commands the server has processed so far."""
        for line in self.ask("INFO", "stats").decode().splitlines():
            if line.startswith("total_commands_processed:"):
                return int(line.partition(":")[2])
        raise Unavailable("redis says not how many commands it processed")

    def cpu_ns(self) -> int:
        """Return the processor time of the server's main thread so far."""
        return int(Path(f"/proc/{self.pid}/schedstat").read_text().split()[0])

    def resident(self) -> int:
        """Return the server's resident memory in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        """End the server."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def redis(size: int) -> Iterator[Redis]:
    """Run a redis-server of about `size` bytes."""
    # The name is unique, because two servers may run side by side.
    folder = Path(tempfile.mkdtemp(prefix="redis-", dir=scratch()))
    made = Redis(folder, size)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def idle(*words: str) -> Iterator[int]:
    """Run a command until the end of the block; yields its pid."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def session(pid: int, *words: str) -> Iterator[None]:
    """Keep a process armed by `pagescan arm`."""
    done = subprocess.run(
        pagescan("arm", pid, *words), capture_output=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"pagescan arm: {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(pagescan("disarm", pid, "-q"), check=False)


class Watch:
    """`pagescan watch` of a process, in the background."""

    def __init__(self, pid: int, *words: str) -> None:
        """Start `watch`; it has armed the target when this returns."""
        self.out = scratch() / "watch.jsonl"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                pagescan("watch", pid, "--json", "--by", "mapping", *words),
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "watching" in line:
                return
        raise Unavailable(f"pagescan watch: {''.join(said).strip()}")

    def end(self) -> str:
        """Interrupt `watch` and return its last line, which has the totals."""
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()
        return self.out.read_text().splitlines()[-1]
