"""`watch --tree -- CMD`: CMD is seen from its first store to its last, and its tree."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import Target, checked

pytestmark = [pytest.mark.needs("tracking")]


class Watch:
    """A `watch --tree --json -- CMD`; CMD has its stdin, and its stderr for output."""

    def __init__(self, *words: str, interval: str = "3600") -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pagescan", "watch", "--tree", "--json"),
                *("-i", interval, "--", *words),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""

    def answer(self) -> str:
        """Return the next line that CMD has printed."""
        assert self.process.stderr is not None
        while (line := self.process.stderr.readline()).startswith("pagescan:"):
            self.said += line
        return line.strip()

    def tell(self, line: str) -> str:
        """Send CMD a line; return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self, *, after: str = "") -> list[Any]:
        """Wait for the end; return the lines, which the schema has checked."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        # Not communicate(): it does not know what these streams have buffered.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(after)
            self.process.stdin.close()
        out = self.process.stdout.read()
        self.said += self.process.stderr.read()
        self.process.wait()
        return [checked(line) for line in out.splitlines()]


@pytest.fixture
def watch() -> Iterator[Callable[..., Watch]]:
    """Start a watch; end what is left of it."""
    started: list[Watch] = []

    def start(*words: str, **more: str) -> Watch:
        started.append(Watch(*words, **more))
        return started[-1]

    yield start
    for made in started:
        if made.process.poll() is None:
            made.process.terminate()  # it disarms
            made.process.wait()
        for stream in (
            made.process.stdin,
            made.process.stdout,
            made.process.stderr,
        ):
            if stream is not None:
                stream.close()


def facts_of(watch: Watch) -> Target:
    """Return CMD, a mkmem, as a target; it is driven through the watch."""
    facts = json.loads(watch.answer())
    ranges = {name: (low, high) for name, (low, high) in facts["ranges"].items()}
    return Target(watch.process, facts["pid"], ranges)


def pages_of(lines: list[Any], made: Target, name: str) -> set[int]:
    """Return the pages of a range of CMD in all lines."""
    own = [row for line in lines for row in line["regions"] if row["pid"] == made.pid]
    return made.pages({"regions": own}, name)


def test_the_first_and_the_last_store(watch: Callable[..., Watch], mkmem: Path) -> None:
    """No tick comes: the only look is the last one, at CMD's end."""
    running = watch(str(mkmem), "m=anon,pages=200")
    made = facts_of(running)
    assert witness.status(made.pid, "TracerPid") != "0"
    assert running.tell("write m 3,7,150-160") == "ok write"
    lines = running.end(after="quit\n")
    assert pages_of(lines, made, "m") == {3, 7, *range(150, 161)}
    assert lines[-1]["group"] == {"kind": "tree", "name": str(made.pid)}
    assert lines[-1]["end"] == "exited"
    (process,) = lines[-1]["processes"]
    assert process["end"] == "exited"
    assert running.process.returncode == 0


def test_an_exec_is_followed(watch: Callable[..., Watch], mkmem: Path) -> None:
    """The new program is attached before its first instruction, and seen to its end."""
    running = watch("sh", "-c", f"exec {mkmem} m=anon,pages=100")
    made = facts_of(running)
    assert running.tell("write m 5,6") == "ok write"
    lines = running.end(after="quit\n")
    assert pages_of(lines, made, "m") == {5, 6}
    assert f"{made.pid} (mkmem) was exec'd: attached again" in running.said


FAMILY = """
import mmap, os, signal, sys
private = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
private[:] = b"x" * len(private)
done, tell = os.pipe()
go, say = os.pipe()
if os.fork() == 0:
    os.read(go, 1)
    private[0] = 1
    os.write(tell, b"x")
    signal.pause()
print(os.getpid(), flush=True)
sys.stdin.readline()
os.write(say, b"x")
os.read(done, 1)
print("done", flush=True)
sys.stdin.readline()
os._exit(5)
"""


def test_children_and_the_status(watch: Callable[..., Watch]) -> None:
    """A child that outlives CMD is watched to its end; the exit status is CMD's."""
    running = watch(sys.executable, "-c", FAMILY, interval="0.1")
    pid = int(running.answer())
    assert running.process.stdout is not None
    lines: list[Any] = []

    def until(fact: Callable[[Any], object]) -> Any:
        for _ in range(300):
            assert running.process.stdout is not None
            lines.append(checked(running.process.stdout.readline()))
            if fact(lines[-1]):
                return lines[-1]
        raise AssertionError(lines[-1])

    line = until(lambda line: len(line["processes"]) == 2)
    (child,) = {one["target"]["pid"] for one in line["processes"]} - {pid}
    assert running.tell("go") == "done"
    until(
        lambda line: any(
            one["target"]["pid"] == child and one["summary"]["pages"]
            for one in line["processes"]
        )
    )
    assert running.process.stdin is not None
    running.process.stdin.write("end\n")
    running.process.stdin.flush()
    until(
        lambda line: any(
            one["target"]["pid"] == pid and one["end"] == "exited"
            for one in line["processes"]
        )
    )
    line = until(lambda line: len(line["processes"]) == 1)
    assert line["end"] is None
    assert line["processes"][0]["target"]["pid"] == child
    os.kill(child, signal.SIGTERM)
    last = running.end()[-1]
    assert last["end"] == "exited"
    assert last["gone"] == 2
    assert running.process.returncode == 5


def test_a_child_that_is_an_orphan_before_any_tick(
    watch: Callable[..., Watch],
) -> None:
    """It is taken in while CMD still stands at its end."""
    running = watch("sh", "-c", "sleep 1000 & exit 3", interval="0.2")
    assert running.process.stdout is not None
    lines: list[Any] = []
    sleepers: list[int] = []
    while not sleepers:
        lines.append(checked(running.process.stdout.readline()))
        targets = [one["target"] for one in lines[-1]["processes"]]
        sleepers = [one["pid"] for one in targets if one["name"] == "sleep"]
    os.kill(sleepers[0], signal.SIGTERM)
    lines += running.end()
    names = {one["target"]["name"] for line in lines for one in line["processes"]}
    assert names > {"sleep"}
    assert lines[-1]["gone"] == 2
    assert running.process.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_cmd_is_killed(
    watch: Callable[..., Watch], mkmem: Path, number: signal.Signals
) -> None:
    """Its last writes are found, and the status is 128 + N."""
    running = watch(str(mkmem), "m=anon,pages=50")
    made = facts_of(running)
    assert running.tell("write m 9") == "ok write"
    os.kill(made.pid, number)
    assert pages_of(running.end(), made, "m") == {9}
    assert running.process.returncode == 128 + number


def test_ctrl_c(watch: Callable[..., Watch], mkmem: Path) -> None:
    """It ends the watch: nothing is left in CMD, which runs on."""
    running = watch(str(mkmem), "m=anon,pages=50")
    made = facts_of(running)
    assert running.tell("write m 9") == "ok write"
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait() == 0
    assert witness.registered(made.pid) == 0
    assert witness.status(made.pid, "TracerPid") == "0"
    os.kill(made.pid, signal.SIGKILL)
    lines = running.end()
    assert lines[-1]["end"] == "interrupted"
    assert pages_of(lines, made, "m") == {9}


def test_the_tracer_is_killed(watch: Callable[..., Watch], mkmem: Path) -> None:
    """CMD goes on, which is said; its end is found all the same."""
    running = watch(str(mkmem), "m=anon,pages=50", interval="0.1")
    made = facts_of(running)
    os.kill(int(witness.status(made.pid, "TracerPid")), signal.SIGKILL)
    witness.wait_for(lambda: witness.status(made.pid, "TracerPid") == "0")
    assert running.process.stdout is not None
    for _ in range(3):
        running.process.stdout.readline()
    assert running.tell("write m 9") == "ok write"
    last = running.end(after="quit\n")[-1]
    assert last["end"] == "exited"
    assert "the tracer of CMD was killed" in running.said
    assert running.process.returncode == 0


def test_a_cmd_that_does_not_exist(watch: Callable[..., Watch]) -> None:
    """As without --tree."""
    running = watch("/no/such/program")
    assert running.end() == []
    assert running.process.returncode == 3
    assert "cannot run '/no/such/program'" in running.said
