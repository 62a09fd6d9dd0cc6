"""`arm`, `diff` and `disarm` of groups: one keeper, and one baseline per process."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import STRANGER, Result, Target, command, session_files

pytestmark = [pytest.mark.needs("tracking")]

Start = Callable[..., Target]
KINDS = ("m=anon,pages=200,fill=1", "n=memfd,pages=100,fill=1")


class Other:
    """A member that may be killed: it writes, forks, or becomes another user."""

    SCRIPT = """
import mmap, os, signal, sys
memory = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:] = b"x" * len(memory)
print("ready", flush=True)
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "write":
        memory[int(rest) * 4096] = 1
    elif verb == "fork":
        done, tell = os.pipe()
        if (pid := os.fork()) == 0:
            memory[0] = 2
            os.write(tell, b"x")
            while True:
                signal.pause()
        os.read(done, 1)
    elif verb == "setuid":
        os.setuid(int(rest))
    print(pid if verb == "fork" else "ok", flush=True)
"""

    def __init__(self, word: object) -> None:
        """Start it; `word` is in its command line."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.SCRIPT, str(word)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.answer()

    def answer(self) -> str:
        """Return its next line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> str:
        """Send a line; return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.answer()

    def kill(self) -> None:
        """Kill it and reap it; a child that it has forked still holds its pipes."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def other(mkmem: Path) -> Iterator[Callable[[], Other]]:
    """Start members of the group of all targets that may be killed."""
    started: list[Other] = []

    def start() -> Other:
        started.append(Other(mkmem))
        return started[-1]

    yield start
    for made in started:
        made.kill()


@pytest.fixture
def group(mkmem: Path) -> Iterator[tuple[str, str]]:
    """The words of the group of all targets; at the end it is not armed."""
    words = ("--match", str(mkmem))
    yield words
    if session_files():
        command("disarm", *words, "-q")


def process_in(document: Any, pid: int) -> Any:
    """Return the entry of a process; None: it has none."""
    found = [one for one in document["processes"] if one["target"]["pid"] == pid]
    return found[0] if found else None


def why(document: Any, pid: int) -> list[str]:
    """Return why a process as a whole is not tracked."""
    return [
        item["why"]
        for item in document["untracked"]
        if item["pid"] == pid and item["start"] is None
    ]


def pages_of(document: Any, made: Target, name: str) -> set[int]:
    """Return the pages of a member's range in a result."""
    own = [item for item in document["regions"] if item["pid"] == made.pid]
    return made.pages({"regions": own}, name)


def sessions() -> list[Any]:
    """Return the listed sessions."""
    listed: list[Any] = command("sessions", "--json").json()["sessions"]
    return listed


# ---- exactness ---------------------------------------------------------------------


def test_each_page_of_each_member(target: Start, group: tuple[str, str]) -> None:
    """The pages that each member wrote, no others; and a keeper for all."""
    targets = [target(*KINDS) for _ in range(4)]
    armed = command("arm", *group, "--json").json()
    assert armed["target"] is None
    assert armed["group"] == {"kind": "match", "name": group[1]}
    assert {one["target"]["pid"] for one in armed["processes"]} == {
        made.pid for made in targets
    }
    assert armed["cost"]["stopped_ns"] > 0
    listed = sessions()
    assert len(listed) == 4
    assert len({one["keeper_pid"] for one in listed}) == 1
    assert all(one["group"] == armed["group"] for one in listed)
    for index, made in enumerate(targets):
        made.write("m", set(range(index, 200, 7)))
        made.write("n", {index, 50 + index})
    for _ in range(2):  # a look without --rearm changes nothing
        found = command("diff", *group, "--json").json()
        assert found["session"]["name"] == f"match {group[1]}"
        for made in targets:
            for name in ("m", "n"):
                assert pages_of(found, made, name) == made.expected[name]
    found = command("diff", *group, "--rearm", "--json").json()
    for made in targets:
        assert pages_of(found, made, "m") == made.expected["m"]
        made.expected.clear()
    targets[1].write("m", {5})
    found = command("diff", *group, "--json").json()
    for made in targets:
        assert pages_of(found, made, "m") == made.expected.get("m", set())
    assert command("disarm", *group).stderr == (
        f"pagescan: disarmed match {group[1]}: 4 processes\n"
    )


def test_the_sum_is_that_of_the_members(target: Start, group: tuple[str, str]) -> None:
    """Each member alone has the same regions, and their sum is that of the group."""
    targets = [target("m=anon,pages=300,fill=1") for _ in range(3)]
    assert command("arm", *group).code == 0
    for index, made in enumerate(targets):
        made.write("m", set(range(0, 300, index + 2)))
    with contextlib.ExitStack() as still:
        for made in targets:
            still.enter_context(witness.stopped(made.pid))
        whole = command("diff", *group, "--json").json()
        pages = regions = 0
        for made in targets:
            alone = command("diff", made.pid, "--json").json()
            assert alone["group"] is None
            own = [
                {key: value for key, value in row.items() if key != "pid"}
                for row in whole["regions"]
                if row["pid"] == made.pid
            ]
            assert own == alone["regions"]
            summary = process_in(whole, made.pid)["summary"]
            assert summary == alone["summary"]
            pages += alone["summary"]["pages"]
            regions += alone["summary"]["regions"]
    assert whole["summary"]["pages"] == pages
    assert whole["summary"]["regions"] == regions


def test_one_member_has_a_baseline_of_its_own(
    target: Start, group: tuple[str, str]
) -> None:
    """A rearm of one member moves its baseline, and not those of the others."""
    one, two = target("m=anon,pages=20,fill=1"), target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    one.write("m", {1})
    two.write("m", {2})
    assert command("diff", one.pid, "--rearm").code == 0
    found = command("diff", *group, "--json").json()
    assert pages_of(found, one, "m") == set()
    assert pages_of(found, two, "m") == {2}


def test_a_result_that_does_not_arrive(target: Start, group: tuple[str, str]) -> None:
    """With a full disk no baseline of any member moves."""
    targets = [target("m=anon,pages=20,fill=1") for _ in range(3)]
    assert command("arm", *group).code == 0
    for made in targets:
        made.write("m", {3})
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "pagescan", "diff", *group, "--rearm", "--json"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    for made in targets:
        made.write("m", {4})
    found = command("diff", *group, "--rearm", "--json").json()
    assert all(pages_of(found, made, "m") == {3, 4} for made in targets)
    found = command("diff", *group, "--json").json()
    assert all(pages_of(found, made, "m") == set() for made in targets)


# ---- processes that come, go, or become others -------------------------------------


def test_a_member_that_ended(
    target: Start, other: Callable[[], Other], group: tuple[str, str]
) -> None:
    """It is named as ended until a rearm has told so; the others are found."""
    made, gone = target("m=anon,pages=20,fill=1"), other()
    begun = time.monotonic_ns()
    assert command("arm", *group).code == 0
    made.write("m", {7})
    gone.kill()
    witness.wait_for(lambda: len(sessions()) == 1)
    for _ in range(2):
        result = command("diff", *group, "--json")
        found = result.json()
        assert pages_of(found, made, "m") == {7}
        entry = process_in(found, gone.pid)
        assert entry["end"] == "exited"
        assert entry["ended_at"] > entry["joined_at"]
        assert 0 < entry["unseen_ns"] <= time.monotonic_ns() - begun
        assert process_in(found, made.pid)["unseen_ns"] is None
        assert found["short_lived"] is None
        (reason,) = why(found, gone.pid)
        assert "it has ended: its writes since its last look are not known" in reason
        assert found["gone"] == 1
        assert f"not tracked: {gone.pid}" in result.stderr
    assert process_in(command("diff", *group, "--rearm", "--json").json(), gone.pid)
    found = command("diff", *group, "--json").json()
    assert process_in(found, gone.pid) is None
    assert why(found, gone.pid) == []


def test_a_process_that_came(
    target: Start, other: Callable[[], Other], group: tuple[str, str]
) -> None:
    """It is named; a rearm arms it, in the same keeper: it is exact from then on."""
    first = target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    late = target("m=anon,pages=20,fill=1")
    late.write("m", {1})
    found = command("diff", *group, "--json").json()
    assert process_in(found, late.pid) is None
    assert why(found, late.pid) == [
        "it began after the group was armed: its writes until now are not known;"
        " diff --rearm arms it"
    ]
    assert witness.registered(late.pid) == 0
    found = command("diff", *group, "--rearm", "--json").json()
    assert why(found, late.pid)[0].endswith("it is armed now")
    assert process_in(found, late.pid)["joined_at"] > found["session"]["armed_at"]
    assert len({one["keeper_pid"] for one in sessions()}) == 1
    late.write("m", {9})
    first.write("m", {2})
    found = command("diff", *group, "--json").json()
    assert why(found, late.pid) == []
    assert pages_of(found, late, "m") == {9}
    assert pages_of(found, first, "m") == {2}


def test_a_child_that_was_forked_after_arm(other: Callable[[], Other]) -> None:
    """The parent stays exact; the child is named, and armed by a rearm."""
    parent = other()
    tree = ("--tree", parent.pid)
    assert command("arm", *tree).code == 0
    child = int(parent.tell("fork"))
    parent.tell("write 5")
    found = command("diff", *tree, "--json").json()
    assert process_in(found, parent.pid)["summary"]["pages"] > 0
    assert "began after the group was armed" in why(found, child)[0]
    found = command("diff", *tree, "--rearm", "--json").json()
    assert process_in(found, child)["joined_at"]
    assert witness.registered(child) > 0
    parent.kill()  # the root has ended, and the child still has the session
    found = command("diff", *tree, "--json").json()
    assert process_in(found, parent.pid)["end"] == "exited"
    assert command("disarm", *tree).code == 0
    assert witness.registered(child) == 0
    os.kill(child, signal.SIGKILL)


def test_an_exec(target: Start, group: tuple[str, str]) -> None:
    """Its writes are not known, which is said; a rearm arms the new program."""
    one, two = target("m=anon,pages=20,fill=1"), target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    assert one.process.stdin is not None
    one.process.stdin.write("exec\n")
    one.process.stdin.flush()
    assert one.process.stdout is not None
    one.process.stdout.readline()
    two.write("m", {3})
    for _ in range(2):
        found = command("diff", *group, "--json").json()
        assert pages_of(found, two, "m") == {3}
        assert "writes until" in " ".join(why(found, one.pid))
    found = command("diff", *group, "--rearm", "--json").json()
    assert "it called exec" in why(found, one.pid)[-1]
    assert process_in(found, one.pid)["joined_at"]
    assert why(command("diff", *group, "--json").json(), one.pid) == []


def test_a_member_that_stands(target: Start, group: tuple[str, str]) -> None:
    """A stopped member is looked at as the others, and stays stopped."""
    one, two = target("m=anon,pages=20,fill=1"), target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    one.write("m", {1})
    two.write("m", {2})
    with witness.stopped(one.pid):
        found = command("diff", *group, "--rearm", "--json").json()
        assert witness.status(one.pid, "State").startswith("T")
    assert pages_of(found, one, "m") == {1}
    assert pages_of(found, two, "m") == {2}


@pytest.mark.needs("root")
def test_a_member_that_becomes_another_user(
    target: Start, other: Callable[[], Other], group: tuple[str, str]
) -> None:
    """Root goes on looking at it."""
    made, stranger = target("m=anon,pages=20,fill=1"), other()
    assert command("arm", *group).code == 0
    stranger.tell(f"setuid {STRANGER}")
    stranger.tell("write 5")
    made.write("m", {5})
    found = command("diff", *group, "--json").json()
    assert pages_of(found, made, "m") == {5}
    assert process_in(found, stranger.pid)["summary"]["pages"] > 0
    assert command("disarm", *group).code == 0
    assert witness.registered(stranger.pid) == 0


# ---- the end -----------------------------------------------------------------------


def test_disarm_leaves_nothing(target: Start, group: tuple[str, str]) -> None:
    """Neither protection nor files nor the keeper; the only session needs no name."""
    targets = [target(*KINDS) for _ in range(3)]
    assert command("arm", *group).code == 0
    keeper = sessions()[0]["keeper_pid"]
    assert all(witness.registered(made.pid) for made in targets)
    found = command("disarm", "--json").json()
    assert {one["target"]["pid"] for one in found["sessions"]} == {
        made.pid for made in targets
    }
    assert all(one["cost"]["scan_ns"] > 0 for one in found["sessions"])
    assert all(witness.registered(made.pid) == 0 for made in targets)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{keeper}"))
    assert sessions() == []


def test_disarm_of_one_member(target: Start, group: tuple[str, str]) -> None:
    """The others stay; the group says which member was disarmed."""
    one, two = target("m=anon,pages=20,fill=1"), target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    assert f"disarmed {one.pid}" in command("disarm", one.pid).stderr
    assert witness.registered(one.pid) == 0
    two.write("m", {3})
    found = command("diff", *group, "--json").json()
    assert pages_of(found, two, "m") == {3}
    assert why(found, one.pid)[0].startswith("it was disarmed")


def test_the_keeper_is_killed(target: Start, group: tuple[str, str]) -> None:
    """Nothing stays in any member; the loss is reported once, with the remedy."""
    targets = [target("m=anon,pages=20,fill=1") for _ in range(3)]
    assert command("arm", *group).code == 0
    keeper = sessions()[0]["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{keeper}"))
    assert not any(witness.registered(made.pid) for made in targets)
    listed = command("sessions")
    assert listed.stderr.count("was lost: its keeper died") == 1
    result = command("diff", *group)
    assert result.code == 1
    assert f"tracking of match {group[1]} (3 processes) was lost" in result.stderr
    assert f"hint: start over with: pagescan arm --match {group[1]}" in result.stderr
    assert "no session of match" in command("diff", *group).stderr
    assert command("arm", *group).code == 0


def test_the_group_ends_with_its_last_process(other: Callable[[], Other]) -> None:
    """Then there is no session, and no keeper."""
    root = other()
    assert command("arm", "--tree", root.pid).code == 0
    keeper = sessions()[0]["keeper_pid"]
    root.kill()
    witness.wait_for(lambda: not os.path.exists(f"/proc/{keeper}"))
    result = command("diff", "--tree", root.pid)
    assert result.code == 1
    assert "or all its processes have ended" in result.stderr


def test_ctrl_c_while_a_group_is_armed(
    target: Start, mkmem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The members that were armed already are disarmed."""
    from pagescan.native import Pace
    from pagescan.session import group_session, opened
    from pagescan.session.watched import Terms
    from pagescan.target.group import Match
    from pagescan.target.selection import Selection

    targets = [target("m=anon,pages=20,fill=1") for _ in range(3)]
    begin = opened.start
    count = []

    def start(*words: Any, **more: Any) -> Any:
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return begin(*words, **more)

    monkeypatch.setattr(group_session, "start", start)
    with pytest.raises(KeyboardInterrupt):
        group_session.arm_group(Match(str(mkmem)), Terms(Selection(), Pace()))
    assert not any(witness.registered(made.pid) for made in targets)
    assert sessions() == []


@pytest.mark.parametrize("step", ["spawn._listen", "client.Client.adopt"])
def test_killed_before_the_keeper_has_a_member(
    step: str, target: Start, group: tuple[str, str]
) -> None:
    """A process that the command had not handed over was never a session.

    With spawn._listen, the first call is that of the keeper's first session.
    """
    made = [target("m=anon,pages=20,fill=1") for _ in range(3)]
    calls = 2 if step == "spawn._listen" else 1
    holder, name = step.rsplit(".", 1)
    program = f"""
import os, signal
from pagescan import cli
from pagescan.session import client, spawn

left = [None] * {calls}
following = {step}

def killed(*words, **more):
    left.pop()
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return following(*words, **more)

{holder}.{name} = killed
cli.run()
"""
    done = subprocess.run(
        [sys.executable, "-c", program, "arm", *group],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    witness.wait_for(lambda: sum(bool(witness.registered(m.pid)) for m in made) == 1)
    listed = command("sessions", "--json")
    assert "was lost" not in listed.stderr
    (kept,) = listed.json()["sessions"]
    pid = kept["target"]["pid"]
    assert all(Path(name).stem == str(pid) for name in session_files())
    assert command("disarm", *group).code == 0
    assert session_files() == set()


# ---- limits and refusals -----------------------------------------------------------


def limited(descriptors: int, *words: str) -> Result:
    """Run a command with a limit of descriptors that it cannot raise."""
    done = subprocess.run(
        [sys.executable, "-m", "pagescan", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_NOFILE, (descriptors, descriptors)
        ),
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_limit_of_descriptors(target: Start, group: tuple[str, str]) -> None:
    """Where no more processes can be tracked, their number and the reason are said."""
    for _ in range(4):
        target("m=anon,pages=4,fill=1")
    result = limited(80, "arm", *group, "--json")
    assert result.code == 0, result.stderr
    document = result.json()
    assert len(document["processes"]) == 2
    (over,) = [item for item in document["untracked"] if item["pid"] is None]
    assert over["why"].startswith("2 more: the limit of 80 descriptors allows 2")
    assert "not tracked: 2 more" in result.stderr


def test_a_member_that_is_tracked_already(
    target: Start, group: tuple[str, str]
) -> None:
    """It is named with its session, which stays; the others are armed."""
    taken, made = target("m=anon,pages=20,fill=1"), target("m=anon,pages=20,fill=1")
    assert command("arm", taken.pid).code == 0
    result = command("arm", *group, "--json")
    assert result.code == 0
    assert "is tracked already" in why(result.json(), taken.pid)[0]
    assert "armed match" in result.stderr
    made.write("m", {3})
    found = command("diff", *group, "--json").json()
    assert pages_of(found, made, "m") == {3}
    assert "is tracked already" in why(found, taken.pid)[0]
    several = command("diff")
    assert several.code == 2
    said = several.stderr.splitlines()
    assert said[0] == "pagescan: 2 sessions, and no TARGET; the oldest first:"
    listed = sorted(line.split()[0] for line in said[1:3])
    assert listed == sorted(["--match", str(taken.pid)])
    assert command("disarm", *group).code == 0
    assert command("diff", taken.pid).code == 0
    assert command("disarm", taken.pid).code == 0


def test_all_are_tracked_already(target: Start, group: tuple[str, str]) -> None:
    """A group of which nothing can be armed is an error, with a reason."""
    made = target("m=anon,pages=20,fill=1")
    assert command("arm", made.pid).code == 0
    result = command("arm", *group)
    assert result.code == 1
    assert "no process in match" in result.stderr
    assert "is tracked already" in result.stderr


def test_a_second_session_of_the_group(target: Start, group: tuple[str, str]) -> None:
    """It is refused, and names the first."""
    target("m=anon,pages=20,fill=1")
    assert command("arm", *group).code == 0
    result = command("arm", *group)
    assert result.code == 1
    assert f"match {group[1]} is tracked already: armed" in result.stderr
    assert f"hint: pagescan diff --match {group[1]}" in result.stderr


def test_rows_of_processes(target: Start, group: tuple[str, str]) -> None:
    """--by process: a row per process; without a group it is refused."""
    targets = [target("m=anon,pages=20,fill=1") for _ in range(2)]
    assert command("arm", *group).code == 0
    for words in (group, ()):
        head, *rows = command("diff", *words, "--by", "process").stdout.splitlines()
        assert head.split()[:4] == ["pid", "name", "pages", "bytes"]
        assert {int(row.split()[0]) for row in rows} == {made.pid for made in targets}
    head, *rows = command("diff", *group, "--csv").stdout.splitlines()
    assert head.startswith("pid,start")
    assert {int(row.split(",")[0]) for row in rows} <= {made.pid for made in targets}
    result = command("diff", targets[0].pid, "--by", "process")
    assert (result.code, "--by process needs a group" in result.stderr) == (2, True)
    assert command("disarm", *group).code == 0
    assert command("arm", targets[0].pid).code == 0
    result = command("diff", "--by", "process")
    assert (result.code, "is one process" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("diff", "--tree"), 2, "which tree? TARGET is missing"),
        (("disarm", "--tree"), 2, "which tree? TARGET is missing"),
        (("arm", "--tree"), 2, "TARGET is missing"),
        (("diff", "--match", "x", "1"), 2, "--match and TARGET exclude each other"),
        (("disarm", "--unit", "x", "1"), 2, "--unit and TARGET exclude each other"),
        (("arm", "--match", "x", "1"), 2, "--match and TARGET exclude each other"),
        (("disarm", "--all", "--match", "x"), 2, "--all and --match exclude each"),
        (("disarm", "--tree", "--unit", "x"), 2, "--tree and --unit exclude each"),
        (("diff", "--match", "x", "--oldest"), 2, "--oldest and --match exclude"),
        (("disarm", "--match", "x", "--oldest"), 2, "--oldest and --match exclude"),
        (("diff", "--tree", "a", "b"), 2, "--tree is for TARGET, and diff OLD NEW"),
        (("diff", "--container", "web"), 2, "malformed container id"),
        (("diff", "--unit", "none-such"), 1, "no session of unit none-such.service"),
        (("disarm", "--tree", "1"), 1, "no session of tree 1"),
        (("arm", "--unit", "none-such"), 3, "no process in unit none-such.service"),
    ],
)
def test_refusals(words: tuple[str, ...], code: int, said: str) -> None:
    """What excludes each other is refused before anything is read."""
    result = command(*words)
    assert result.code == code, result
    assert said in result.stderr
