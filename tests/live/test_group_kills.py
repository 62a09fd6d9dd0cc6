"""Kill -9 at random moments of the sessions of a group: nothing stays in a member.

The command is killed while it arms the members, while its keeper takes them over, and
while it ends them; the keeper is killed beside it; and members go in the meantime.
PAGESCAN_KILLS sets how often, PAGESCAN_SEED repeats a run.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import HERE, command, session_files
from tests.live.test_kills import KILLS, SEED, Worker, children_of, is_alive, is_still

pytestmark = [
    pytest.mark.needs("tracking"),
    pytest.mark.timeout(60 + 10 * KILLS),
]

MEMBERS = 4


class Group:
    """Members that compute all the time, the selecting words, and dice."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self.words = ("--match", str(program))
        self.workers: list[Worker] = []
        self.rolled = random.Random(SEED)
        self.seen: Counter[str] = Counter()
        for _ in range(MEMBERS):
            self.begin_one()

    def begin_one(self) -> None:
        """Start a member."""
        process = subprocess.Popen(
            [str(self._program), "1", "64"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.workers.append(Worker(process))

    def kill_one(self) -> None:
        """Kill a member, and start another one."""
        at = self.rolled.randrange(len(self.workers))
        end(self.workers.pop(at).process)
        self.begin_one()

    def spawn(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command on the group."""
        return subprocess.Popen(
            [sys.executable, "-m", "pagescan", *words, *self.words, "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def traced(self) -> Worker | None:
        """Return the member that is in the middle of an attach."""
        for worker in self.workers:
            if witness.status(worker.pid, "TracerPid") != "0":
                return worker
        return None

    def kill(self, process: subprocess.Popen[bytes]) -> bool:
        """Kill a command; return whether it still ran."""
        while process.poll() is None:
            os.kill(process.pid, signal.SIGSTOP)
            witness.wait_for(lambda: process.poll() is not None or is_still(process))
            if process.poll() is not None:
                break
            if (worker := self.traced()) is not None:
                worker.deaths_inside += 1
                self.seen["inside the attach"] += 1
            process.kill()
            process.wait(timeout=60)
            return True
        return False

    def registered(self) -> int:
        """Return how many members have registered memory."""
        return sum(bool(witness.registered(worker.pid)) for worker in self.workers)

    def assert_unhurt(self) -> None:
        """Assert that each member goes on."""
        for worker in self.workers:
            worker.assert_unhurt()

    def assert_consistent(self) -> int:
        """Assert that each session is whole or does not exist; return how many are."""
        listed: list[Any] = []
        for _ in range(100):  # a keeper may be about to notice that its command is gone
            listed = command("sessions", "--json").json()["sessions"]
            if len(listed) == self.registered():
                break
        else:
            raise AssertionError((listed, self.registered()))
        if listed:
            look = command("diff", *self.words, "--json")
            assert look.code == 0, look.stderr
            found = {
                one["target"]["pid"]
                for one in look.json()["processes"]
                if not one["end"]
            }
            assert {one["target"]["pid"] for one in listed} <= found
        return len(listed)

    def assert_clean(self) -> None:
        """End the sessions; assert that nothing of them is left."""
        listed = command("sessions", "--json").json()["sessions"]
        if listed:
            ended = command("disarm", *self.words)
            assert ended.code == 0, ended.stderr
        witness.wait_for(lambda: self.registered() == 0)
        witness.wait_for(lambda: not self.left())
        self.assert_unhurt()

    def left(self) -> set[str]:
        """Return the files that remain after a command, which clears dead holders'."""
        listed = command("sessions", "--json")
        assert listed.json()["sessions"] == []
        assert "was lost" not in listed.stderr
        return session_files()


def end(process: subprocess.Popen[str]) -> None:
    """Kill a member and reap it."""
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A group; each of its members checks itself."""
    program = tmp_path_factory.mktemp("members") / "member"
    source = HERE / "targets/worker.c"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-o", str(program), str(source), "-pthread"], check=True
    )
    made = Group(program)
    yield made
    for worker in made.workers:
        end(worker.process)


def until(process: subprocess.Popen[bytes], fact: Callable[[], object]) -> None:
    """Wait until something is so, or a command has ended."""
    while process.poll() is None and not fact():
        pass


def keeper_of(process: subprocess.Popen[bytes]) -> int | None:
    """Return the keeper that a command has started."""
    for pid in children_of(process.pid):
        with contextlib.suppress(OSError):
            if b"pagescan.session.keeper" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return None


def in_arm(group: Group) -> None:
    """Kill an arm when some members are registered, and a moment later."""
    process = group.spawn("arm")
    many = group.rolled.randint(1, MEMBERS)
    until(process, lambda: group.traced() or group.registered() >= many)
    time.sleep(group.rolled.uniform(0, 0.02))
    if group.kill(process):
        group.seen["arm"] += 1
    group.seen[f"{group.assert_consistent()} armed at the kill"] += 1


def in_adoption(group: Group) -> None:
    """Kill the keeper while it takes over sessions: no member stays armed."""
    process = group.spawn("arm")
    many = group.rolled.randint(1, MEMBERS)
    until(process, lambda: keeper_of(process) and group.registered() >= many)
    time.sleep(group.rolled.uniform(0, 0.02))
    keeper = keeper_of(process)
    if keeper is not None:
        os.kill(keeper, signal.SIGKILL)
        group.seen["keeper beside arm"] += 1
    if group.rolled.random() < 0.5:
        group.kill(process)
    process.wait(timeout=60)
    if keeper is None:
        return
    witness.wait_for(lambda: not is_alive(keeper))
    # A member that came after the keeper's death may have a keeper of its own.
    command("diff", *group.words)


def in_going(group: Group) -> None:
    """Kill a disarm, and members beside it: what it has left is ended by the next."""
    assert command("arm", *group.words).code == 0
    process = group.spawn(group.rolled.choice(["disarm", "diff"]))
    many = group.rolled.randint(0, MEMBERS)
    if group.rolled.random() < 0.5:
        group.kill_one()
    until(process, lambda: group.registered() <= many)
    if group.kill(process):
        group.seen["disarm or diff"] += 1
    group.seen[f"{group.assert_consistent()} left at the kill"] += 1


def in_rearm(group: Group) -> None:
    """Kill a rearm that takes in a process which came; the next look is in order."""
    assert command("arm", *group.words).code == 0
    group.kill_one()
    process = group.spawn("diff", "--rearm")
    until(process, lambda: group.traced() or group.registered() == MEMBERS)
    time.sleep(group.rolled.uniform(0, 0.02))
    if group.kill(process):
        group.seen["rearm"] += 1
    group.assert_consistent()

    def all_are_armed() -> bool:
        """Rearm; the keeper may only notice the kill, and drop the newcomer, now."""
        again = command("diff", *group.words, "--rearm", "--json")
        assert again.code == 0, again.stderr
        return group.registered() == MEMBERS

    witness.wait_for(all_are_armed)


def test_kills_of_a_group(
    group: Group, record_property: Callable[[str, object], None]
) -> None:
    """After each of the kills the members are unharmed, and nothing is left."""
    print("seed", SEED)  # noqa: T201 - shown when it fails
    ways = [in_arm, in_adoption, in_going, in_rearm]
    for number in range(max(len(ways), KILLS // 2)):
        (ways[number] if number < len(ways) else group.rolled.choice(ways))(group)
        group.assert_clean()
    record_property("kills", dict(group.seen))
    print(dict(group.seen))  # noqa: T201 - pytest -s
