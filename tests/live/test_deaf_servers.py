"""Targets whose files lie on a server that does not answer: FUSE, as NFS would.

The server no longer reads requests (deaf), or reads them without answering (mute): a
process that waits for a mute one cannot be killed.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fuse, witness
from tests.conftest import command
from tests.live.test_hard_targets import build

pytestmark = pytest.mark.needs("tracking", "root", "fuse")

Start = Callable[..., subprocess.Popen[bytes]]
BOUND = 60.0  # seconds: 3 are promised, without a limit it never ends


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a program on a file system that stops answering; it must live on."""
    place = tmp_path / "mounted"
    place.mkdir()
    status = tmp_path / "status"
    status.write_bytes(bytes(64))
    program = build(tmp_path, "wild")
    static = tmp_path / "static"
    program.rename(tmp_path / "dynamic")
    build(tmp_path, "wild", "-static").rename(static)
    started = []
    with fuse.mounted(place, tmp_path) as server:

        def begin(kind: str, word: str) -> subprocess.Popen[bytes]:
            words = [str(server.place / kind), "reaps", str(status)]
            started.append(subprocess.Popen(words, cwd=server.place))
            witness.wait_for(lambda: any(status.read_bytes()))
            server.become(word)
            return started[-1]

        yield begin
        for process in started:
            rounds = status.read_bytes()[:8]
            witness.wait_for(lambda: status.read_bytes()[:8] != rounds)  # noqa: B023
            assert status.read_bytes()[8:16] == bytes(8)
            assert witness.status(process.pid, "TracerPid") == "0"
            process.kill()
    for process in started:
        process.wait()


@pytest.mark.parametrize("word", ["deaf", "mute"])
def test_nothing_of_it_is_needed(start: Start, word: str) -> None:
    """The program and its working directory are there, but libc is elsewhere."""
    pid = start("dynamic", word).pid
    for words in (
        *(["arm", pid], ["diff", pid], ["sessions"], ["disarm", pid]),
        *(["scan", pid], ["maps", pid], ["watch", "-n", 1, "-i", 0.1, pid]),
        ["dump-plan", pid],
    ):
        begun = time.monotonic()
        result = command(*words)
        assert result.code == 0, (words, result.stderr)
        assert time.monotonic() - begun < BOUND


@pytest.mark.parametrize("word", ["deaf", "mute"])
def test_all_of_its_code_is_there(start: Start, word: str) -> None:
    """The attach is refused in time, with the cause, and Ctrl-C works."""
    pid = start("static", word).pid
    begun = time.monotonic()
    result = command("arm", pid)
    assert time.monotonic() - begun < BOUND
    assert result.code == 3, result.stderr
    assert "a server that does not answer" in result.stderr
    for words in (["scan", pid], ["maps", pid]):
        assert command(*words).code == 0
    with subprocess.Popen([sys.executable, "-m", "pagescan", "arm", str(pid)]) as arm:
        witness.wait_for(lambda: children(arm.pid))
        arm.send_signal(signal.SIGINT)
        assert arm.wait(BOUND) == 130


def children(pid: int) -> str:
    """Return the children of all threads of a process."""
    tasks = os.listdir(f"/proc/{pid}/task")
    paths = [Path(f"/proc/{pid}/task/{task}/children") for task in tasks]
    return "".join(path.read_text() for path in paths)
