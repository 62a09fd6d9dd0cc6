"""A live redis-server of about 1 GB: every page whose bytes changed is reported."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import PAGE, command

pytestmark = [pytest.mark.needs("tracking", "redis"), pytest.mark.timeout(300)]
KEYS, VALUE = 500_000, 2000


class Redis:
    """A redis-server on a socket of its own."""

    def __init__(self, folder: Path) -> None:
        path = folder / "redis.sock"
        self.process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", str(path)),
                *("--save", "", "--appendonly", "no", "--dir", str(folder)),
                *("--enable-debug-command", "local", "--logfile", str(folder / "log")),
            ]
        )
        self.path = str(path)
        witness.wait_for(path.exists)
        self.socket = self.connect()

    def connect(self) -> socket.socket:
        """Open another connection."""
        made = socket.socket(socket.AF_UNIX)
        made.connect(self.path)
        return made

    def ask(self, *words: str, over: socket.socket | None = None) -> bytes:
        """Send one command and return the answer; fail on an error."""
        connection = over or self.socket
        parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
        connection.sendall(f"*{len(words)}\r\n{''.join(parts)}".encode())
        answer = connection.recv(1 << 16)
        assert not answer.startswith(b"-"), answer
        return answer


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    server.ask("DEBUG", "POPULATE", str(KEYS), "key", str(VALUE))
    yield server
    server.socket.close()
    server.process.terminate()
    assert server.process.wait(60) == 0


class Pinger(threading.Thread):
    """Sends PINGs all the time, and remembers the longest wait."""

    def __init__(self, redis: Redis) -> None:
        super().__init__()
        self.redis = redis
        self.connection = redis.connect()
        self.ended = threading.Event()
        self.longest = 0.0
        self.answers = 0

    def run(self) -> None:
        """Send a PING every few milliseconds."""
        while not self.ended.wait(0.002):
            begun = time.monotonic()
            assert self.redis.ask("PING", over=self.connection) == b"+PONG\r\n"
            self.longest = max(self.longest, time.monotonic() - begun)
            self.answers += 1
        self.connection.close()


def test_every_changed_page_is_reported(redis: Redis) -> None:
    """Every page that differs between two stops is reported; others were stored to."""
    pid = redis.process.pid
    before_fds = witness.descriptors(pid)
    with witness.stopped(pid):
        assert command("arm", pid).code == 0
        before = witness.memory(pid)
    assert len(before) * PAGE > 900 << 20
    for number in range(0, KEYS, KEYS // 500):
        redis.ask("SETRANGE", f"key:{number}", "100", "changed")
    with witness.stopped(pid):
        after = witness.memory(pid)
        document = command("diff", pid, "--json").json()
    changed = {
        address for address, data in after.items() if before.get(address) != data
    }
    reported = {
        address
        for region in document["regions"]
        for address in range(int(region["start"], 16), int(region["end"], 16), PAGE)
    }
    assert len(changed) >= 500
    assert changed - reported == set()
    # Pages that were stored to without changing:
    assert len(reported - changed) <= len(changed) // 10
    assert command("disarm", pid).code == 0
    assert witness.registered(pid) == 0
    assert witness.status(pid, "TracerPid") == "0"
    fds = witness.descriptors(pid)
    assert not any("userfaultfd" in what for what in fds.values())
    assert len(fds) == len(before_fds)


def test_it_answers_all_along(redis: Redis) -> None:
    """Redis answers while it is armed, looked at, watched and disarmed."""
    pid = redis.process.pid
    pinger = Pinger(redis)
    pinger.start()
    for words in (
        ("arm", pid),
        ("diff", pid, "--rearm", "--json"),
        ("maps", pid),
        ("disarm", pid),
        ("watch", pid, "-i", "0.2", "-n", "10", "--json"),
    ):
        assert command(*words).code == 0
    pinger.ended.set()
    pinger.join()
    assert pinger.answers > 100
    assert pinger.longest < 60 * witness.PATIENCE, "it waited for pagescan"
    assert redis.process.poll() is None
