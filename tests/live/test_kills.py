"""Kill -9 at random moments: the target works on unharmed, and nothing stays.

PAGESCAN_KILLS sets how many; PAGESCAN_SEED repeats a run. Each command is stopped
before it is killed, to see whether it is in the attach, because then one descriptor may
stay in the target.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import HERE, Result, command, session_files

KILLS = int(os.environ.get("PAGESCAN_KILLS", "20"))
SEED = int(os.environ.get("PAGESCAN_SEED", "0")) or random.SystemRandom().getrandbits(
    32
)

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Worker"]:
    """A process that computes all the time and checks itself."""
    program = tmp_path_factory.mktemp("targets") / "worker"
    source = HERE / "targets/worker.c"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-o", str(program), str(source), "-pthread"], check=True
    )
    process = subprocess.Popen(
        [str(program), "2", "256"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield Worker(process)
    process.communicate(timeout=60)
    assert process.returncode == 0


@dataclass
class Worker:
    """The target, and its progress."""

    process: subprocess.Popen[str]
    rounds: int = 0
    deaths_inside: int = 0
    """Attaches that were killed in the middle."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def assert_unhurt(self) -> None:
        """Assert that it goes on, its checks hold, and soon nothing traces it."""
        assert self.process.poll() is None
        # A surgeon outlives its command for a moment.
        witness.wait_for(lambda: witness.status(self.pid, "TracerPid") == "0")
        witness.wait_for(lambda: witness.status(self.pid, "State")[0] in "RS")
        before = self.rounds
        witness.wait_for(lambda: self.counted() > before)
        witness.wait_for(lambda: self.userfaultfds() <= self.deaths_inside)

    def counted(self) -> int:
        """Ask it for its rounds; they end with its first check that fails."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        self.rounds = int(self.process.stdout.readline().removeprefix("ok "))
        return self.rounds

    def userfaultfds(self) -> int:
        """Return how many userfaultfds it has."""
        fds = witness.descriptors(self.pid).values()
        return sum("userfaultfd" in name for name in fds)


@dataclass
class Killer:
    """Kills one process at a time, at a random moment."""

    worker: Worker
    rolled: random.Random
    took: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command on the worker."""
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pagescan", words[0], str(self.worker.pid)),
                *words[1:],
                "--json",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill_command(self, *words: str, longest: float | None = None) -> bool:
        """Run a command and kill it at a random moment; return whether that hit it."""
        name = " ".join(words)
        length = longest or self.took.get(name)
        begun = time.monotonic()
        process = self.spawn(*words)
        if length is None:  # the first run measures its length
            process.wait(timeout=60)
            self.took[name] = time.monotonic() - begun
            return False
        # A command mostly starts Python: aim at the time after that.
        aim = self.rolled.random()
        if aim < 0.4 and words[0] in ("arm", "diff", "watch"):
            while process.poll() is None and not has_userfaultfd(process.pid):
                pass
            length = 0.005
        elif aim < 0.7 and words[0] in ("arm", "watch"):
            while process.poll() is None and not (
                self.is_traced() or has_userfaultfd(process.pid)  # past it
            ):
                pass
            length = 0.0001
        time.sleep(self.rolled.uniform(0, length * 1.1))
        while process.poll() is None:
            os.kill(process.pid, signal.SIGSTOP)
            witness.wait_for(lambda: process.poll() is not None or is_still(process))
            if process.poll() is not None:
                break
            if self.is_traced():
                self.worker.deaths_inside += 1
                self.seen["inside the attach"] += 1
            process.kill()
            process.wait(timeout=60)
            return True
        return False

    def is_traced(self) -> bool:
        """Whether a command is in the attach, which takes the main thread."""
        with open(f"/proc/{self.worker.pid}/status", "rb", buffering=0) as status:
            return b"\nTracerPid:\t0\n" not in status.read(4096)

    def assert_nothing_left(self) -> None:
        """Assert that no mapping stays registered, and no file after a look."""
        witness.wait_for(lambda: witness.registered(self.worker.pid) == 0)
        sessions = command("sessions", "--json")
        assert sessions.json()["sessions"] == []
        assert session_files() == set()


def has_userfaultfd(pid: int) -> bool:
    """Whether a command has a copy of the userfaultfd."""
    try:
        names = witness.descriptors(pid).values()
    except OSError:
        return False
    return any("userfaultfd" in name for name in names)


def is_still(process: subprocess.Popen[bytes]) -> bool:
    """Whether every thread of a process is stopped, or it has ended."""
    try:
        states = [
            path.read_text().rpartition(")")[2].split()[0]
            for path in Path(f"/proc/{process.pid}/task").glob("*/stat")
        ]
    except OSError:
        return False
    return all(state in "TtZX" for state in states)


def in_scan(killer: Killer) -> None:
    """Kill a look without a session: it touches nothing."""
    verb = killer.rolled.choice(["scan", "maps"])
    if killer.kill_command(verb):
        killer.seen[verb] += 1


def in_diff(killer: Killer) -> None:
    """Kill a look through a session: the session goes on."""
    pid = killer.worker.pid
    assert command("arm", pid).code == 0
    for _ in range(4):
        words = ("diff", "--rearm") if killer.rolled.random() < 0.7 else ("diff",)
        if killer.kill_command(*words):
            killer.seen[" ".join(words)] += 1
        killer.worker.assert_unhurt()
    look = command("diff", pid, "--json", "--rearm")
    assert look.code == 0, look.stderr
    if look.json()["session"]["since"] is None:
        killer.seen["left a mixed baseline"] += 1
    # Everything is in order again: the pages that the worker keeps writing are found.
    again = command("diff", pid, "--json").json()
    assert again["session"]["since"] is not None
    assert again["summary"]["pages"] >= 512
    assert command("disarm", pid).code == 0


def in_watch(killer: Killer) -> None:
    """Kill a watch: the protection goes with it."""
    if killer.kill_command("watch", "-i", "0.02", longest=0.5):
        killer.seen["watch"] += 1
    killer.assert_nothing_left()


def in_arm(killer: Killer) -> None:
    """Kill an arm: the session is complete or does not exist."""
    if killer.kill_command("arm"):
        killer.seen["arm"] += 1
    # A keeper may be about to notice that its command is gone.
    look = command("diff", killer.worker.pid)
    witness.wait_for(
        lambda: (
            json.loads(command("sessions", "--json").stdout)["sessions"] != []
            or not witness.registered(killer.worker.pid)
        )
    )
    if look.code == 0:
        killer.seen["armed at the kill"] += 1
        assert command("disarm", killer.worker.pid).code == 0
    else:
        assert look.code in (1, 4), look.stderr
    killer.assert_nothing_left()


def in_keeper(killer: Killer) -> None:
    """Kill the keeper: the next diff reports the loss, once."""
    pid = killer.worker.pid
    assert command("arm", pid).code == 0
    (session,) = command("sessions", "--json").json()["sessions"]
    beside = killer.rolled.choice([None, ("diff",), ("diff", "--rearm"), ("disarm",)])
    running = killer.spawn(*beside) if beside else None
    time.sleep(killer.rolled.uniform(0, 0.2))
    gone = not os.path.exists(f"/proc/{session['keeper_pid']}")
    if not gone:
        os.kill(session["keeper_pid"], signal.SIGKILL)
    said = running.wait(timeout=60) if running else None
    assert said in (None, 0, 1)
    killer.seen["keeper" + (f" beside {' '.join(beside)}" if beside else "")] += 1
    witness.wait_for(lambda: not os.path.exists(f"/proc/{session['keeper_pid']}"))
    look = command("diff", pid)
    assert look.code == 1
    if said != 1 and beside != ("disarm",):
        assert "tracking of" in look.stderr
        assert "was lost" in look.stderr
        assert "no session" in command("diff", pid).stderr
    killer.assert_nothing_left()


def in_both(killer: Killer) -> None:
    """Kill a command and the keeper at once: the next diff reports the loss."""
    pid = killer.worker.pid
    assert command("arm", pid).code == 0
    (session,) = command("sessions", "--json").json()["sessions"]
    words = killer.rolled.choice([("diff",), ("diff", "--rearm"), ("disarm",)])
    running = killer.spawn(*words)
    time.sleep(killer.rolled.uniform(0, 0.2))
    running.send_signal(signal.SIGSTOP)  # so that it does not see the keeper's end
    witness.wait_for(lambda: running.poll() is not None or is_still(running))
    with contextlib.suppress(ProcessLookupError):  # the disarm has ended it
        os.kill(session["keeper_pid"], signal.SIGKILL)
    running.kill()
    code = running.wait(timeout=60)
    killer.seen[f"keeper and {' '.join(words)}"] += 1
    witness.wait_for(lambda: not os.path.exists(f"/proc/{session['keeper_pid']}"))
    look = command("diff", pid)
    assert look.code == 1, look.stderr
    if words != ("disarm",) and code == -signal.SIGKILL:
        assert "was lost" in look.stderr
    assert "no session" in command("diff", pid).stderr
    killer.assert_nothing_left()


@pytest.mark.needs("tracking")
def test_command_of_a_killed_watch(
    record_property: Callable[[str, object], None],
) -> None:
    """CMD of a killed watch never waits: it was killed, or it runs without a tracer."""
    rolled = random.Random(SEED)
    seen: Counter[str] = Counter()
    for _ in range(max(10, KILLS // 2)):
        watch = subprocess.Popen(
            [
                *(sys.executable, "-m", "pagescan", "watch", "--json"),
                *("--", "sleep", "1000"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        children: list[int] = []
        try:
            while not children and watch.poll() is None:
                children = children_of(watch.pid)
            time.sleep(rolled.uniform(0, 0.03))
            children = children_of(watch.pid) or children
        finally:
            watch.kill()
            watch.wait()
        cmd = children[0]
        try:
            witness.wait_for(lambda: not is_alive(cmd) or is_free(cmd))  # noqa: B023
            seen["ran on" if is_alive(cmd) else "was killed"] += 1
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(cmd, signal.SIGKILL)
        for tracer in children[1:]:
            witness.wait_for(lambda: not is_alive(tracer))  # noqa: B023
    record_property("seen", dict(seen))
    assert command("sessions", "--json").json()["sessions"] == []  # removes its files


def children_of(pid: int) -> list[int]:
    """Return the children of a process; CMD is the first one, its tracer the next."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    with contextlib.suppress(OSError):
        return [int(word) for word in path.read_text().split()]
    return []


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return witness.status(pid, "State")[0] not in "ZX"
    except OSError:
        return False


def is_free(pid: int) -> bool:
    """Whether CMD has begun, and nobody traces or stops it."""
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
        tracer, state = (witness.status(pid, name) for name in ("TracerPid", "State"))
    except OSError:
        return False
    return program == "sleep" and tracer == "0" and state[0] in "RS"


@pytest.mark.needs("tracking")
@pytest.mark.timeout(60 + 10 * KILLS)
def test_kills(worker: Worker, record_property: Callable[[str, object], None]) -> None:
    """After each of the kills the worker is unharmed."""
    killer = Killer(worker, random.Random(SEED))
    print("seed", SEED)  # noqa: T201 - shown when it fails
    kinds = [in_scan, in_diff, in_keeper, in_both, *[in_watch] * 2, *[in_arm] * 2]
    outcomes = {"left a mixed baseline", "armed at the kill", "inside the attach"}
    while sum(killer.seen.values()) - sum(killer.seen[key] for key in outcomes) < KILLS:
        killer.rolled.choice(kinds)(killer)
        worker.assert_unhurt()
    record_property("kills", dict(killer.seen))
    print(dict(killer.seen))  # noqa: T201 - pytest -s
