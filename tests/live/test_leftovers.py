"""Files and state after a kill: the next command clears them away.

Each step is patched in a program of its own, so a kill comes at that step and no other.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.model.errors import SessionError
from pagescan.session import locks
from pagescan.session.locks import Lock, live_sessions, remove_orphans
from tests import witness
from tests.conftest import ROOTS_SESSIONS, Result, Target, command, session_files

pytestmark = [pytest.mark.needs("tracking", "root")]
Start = Callable[..., Target]
PLACE = Path(ROOTS_SESSIONS)

PROGRAM = """
import os, signal, subprocess, sys, time
from pagescan import cli
from pagescan.session import client, group_session, opened, pending, record, spawn

def kill(pid):
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] in "ZX":
                    return
        except OSError:
            return

def kill_keepers():
    for word in os.listdir("/proc"):
        try:
            with open(f"/proc/{word}/cmdline", "rb") as line:
                is_keeper = b"pagescan.session.keeper" in line.read()
            with open(f"/proc/{word}/status") as status:
                is_child = f"PPid:\\t{os.getpid()}\\n" in status.read()
        except OSError:
            continue
        if is_keeper and is_child:
            kill(int(word))

def wait_for_no_files(pid):
    while any(name.startswith(f"{pid}.") for name in os.listdir("/run/pagescan")):
        time.sleep(0.01)

def pagescan(*words):
    return subprocess.run([sys.executable, "-m", "pagescan", *map(str, words)])

"""


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    """End what a failed test has left."""
    yield
    command("disarm", "--all", "-q")


def at(
    step: str, act: str, *words: object, call: int = 1, late: bool = False
) -> Result:
    """Run a command that does something at a step of its own.

    Args:
        step: The function, as `pending.store_found`.
        act: A statement that is run at its call.
        words: The command line.
        call: Which of its calls.
        late: Run the statement when the call is over.
    """
    holder, name = step.rsplit(".", 1)
    program = f"""{PROGRAM}
left = [None] * {call}
following = {step}

def changed(*words, **more):
    left[:1] = []
    now = left == [] and not done
    if now:
        done.append(True)
    if now and not {late}:
        {act}
    result = following(*words, **more)
    if now and {late}:
        {act}
    return result

done = []
{holder}.{name} = changed
sys.exit(cli.run())
"""
    line = [sys.executable, "-c", program, *map(str, words)]
    ended = subprocess.run(
        line, capture_output=True, text=True, check=False, timeout=90
    )
    return Result(ended.returncode, ended.stdout, ended.stderr)


def keepers() -> set[int]:
    """Return the pids of the keepers of all sessions."""
    listed = command("sessions", "--json").json()["sessions"]
    return {one["keeper_pid"] for one in listed}


def kill(pid: int) -> None:
    """Kill a keeper, and wait until it has gone."""
    os.kill(pid, signal.SIGKILL)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{pid}"))


def written(made: Target) -> set[int]:
    """Return what a diff finds."""
    result = command("diff", made.pid, "--json")
    assert result.code == 0, result.stderr
    return made.pages(json.loads(result.stdout), "m")


# ---- one session ---------------------------------------------------------------------


def test_the_target_ends_while_a_result_is_stored(armed: Start) -> None:
    """Its keeper has removed all files; the next command removes the late one."""
    made = armed("m=anon,pages=40,fill=1")
    made.write("m", {5})
    ends = f"open('/proc/{made.pid}/fd/0', 'w').write('quit\\n')"
    act = f"{ends}; wait_for_no_files({made.pid})"
    done = at("pending.store_found", act, "diff", made.pid, "--rearm")
    assert done.code == 3, done.stderr
    assert [path.name for path in PLACE.iterdir()] == [f"{made.pid}.found"]
    assert command("sessions").code == 0
    assert session_files() == set()


def test_an_orphan_of_a_living_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files beside a lock file, and other files, are no orphans."""
    place = tmp_path / "sessions"
    monkeypatch.setattr(locks, "directories", lambda: [str(place)])
    lock = Lock.take(77)
    for name in ("77.found", "78.found", "78.pages.new", "notes.txt", "79.txt"):
        (place / name).touch()
    remove_orphans()
    kept = {path.name for path in place.iterdir()}
    assert kept == {"77.lock", "77.found", "notes.txt", "79.txt"}
    lock.remove()
    lock.close()


@pytest.mark.parametrize(
    ("step", "late"),
    [("client.Client.commit", True), ("opened.OpenSession.move_baseline", False)],
)
def test_the_keeper_dies_before_the_result_has_arrived(
    step: str, late: bool, armed: Start
) -> None:
    """The result is right. The next diff tells of the loss, and the one after not."""
    made = armed("m=anon,pages=40,fill=1")
    made.write("m", {5})
    (keeper,) = keepers()
    act = f"kill({keeper})"
    done = at(step, act, "diff", made.pid, "--rearm", "--json", late=late)
    assert done.code == 0, done.stderr
    assert made.pages(json.loads(done.stdout), "m") == {5}
    told = command("diff", made.pid)
    assert told.code == 1
    assert "was lost: its keeper" in told.stderr
    assert "no session" in command("diff", made.pid).stderr
    assert session_files() == set()


def test_a_late_result_is_no_part_of_the_next_session(armed: Start) -> None:
    """Its session has ended and its target is armed again when it would be stored."""
    made = armed("m=anon,pages=40,fill=1")
    made.write("m", {5})
    act = f"pagescan('disarm', {made.pid}); pagescan('arm', {made.pid})"
    done = at("opened.OpenSession.store_undelivered", act, "diff", made.pid, "--rearm")
    assert done.code == 1
    assert "was ended by another command" in done.stderr
    made.write("m", {7})
    assert written(made) == {7}
    assert command("disarm", made.pid).code == 0


def test_an_arm_that_is_killed_before_its_keeper_is_ready(target: Start) -> None:
    """While memory is protected there are files that tell by whom."""
    made = target("m=anon,pages=40,fill=1")
    act = "os.kill(os.getpid(), signal.SIGKILL)"
    done = at("spawn._spawn", act, "arm", made.pid, late=True)
    assert done.code == -signal.SIGKILL
    witness.wait_for(lambda: not list(PLACE.glob(f"{made.pid}.*")))
    assert witness.registered(made.pid) == 0


def test_all_that_is_lost_is_forgotten(armed: Start) -> None:
    """`disarm --all` tells of a lost session, and clears it away."""
    made = armed("m=anon,pages=40,fill=1")
    for keeper in keepers():
        kill(keeper)
    done = command("disarm", "--all")
    assert done.code == 0
    assert f"session {made.pid} was lost: its keeper died" in done.stderr
    assert session_files() == set()
    assert "was lost" not in command("sessions").stderr


def test_a_disarm_beside_the_end_of_its_keeper(armed: Start) -> None:
    """If the keeper dies before it could disarm, the command says so."""
    made = armed("m=anon,pages=40,fill=1")
    (keeper,) = keepers()
    act = f"kill({keeper})"
    done = at("client.Client._check_peer", act, "disarm", made.pid, late=True)
    assert done.code == 1
    assert "was lost: its keeper" in done.stderr
    assert session_files() == set()


# ---- what else may lie in the directory ----------------------------------------------


def test_leftovers_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, armed: Start
) -> None:
    """With another XDG_RUNTIME_DIR the next session lies in another directory."""
    made = armed("m=anon,pages=40,fill=1")
    for keeper in keepers():
        kill(keeper)
    (PLACE / f"{made.pid}.found").touch()
    places = [str(tmp_path / "sessions"), str(PLACE)]
    monkeypatch.setattr(locks, "directories", lambda: places)
    lock = Lock.take(made.pid)
    assert session_files() == set()
    lock.remove()
    lock.close()


def test_a_session_in_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, armed: Start
) -> None:
    """A living one is found there, and no second one begins."""
    made = armed("m=anon,pages=40,fill=1")
    places = [str(tmp_path / "sessions"), str(PLACE)]
    monkeypatch.setattr(locks, "directories", lambda: places)
    with pytest.raises(SessionError, match="is tracked already: session"):
        Lock.take(made.pid)


@pytest.mark.parametrize("suffix", ["lock", "found", "huge.new"])
def test_a_pipe_in_place_of_a_file(suffix: str, target: Start) -> None:
    """Nobody waits for a writer or a reader that never comes."""
    made = target("m=anon,pages=40,fill=1")
    os.mkfifo(PLACE / f"{made.pid}.{suffix}")
    assert "no session" in command("sessions").stderr
    os.mkfifo(PLACE / f"{made.pid}.{suffix}")
    assert command("arm", made.pid).code == 0
    made.write("m", {5})
    assert written(made) == {5}
    assert command("disarm", made.pid).code == 0
    assert session_files() == set()


@pytest.mark.parametrize("suffix", ["found", "found.new", "pages.new"])
def test_a_pipe_beside_a_session(suffix: str, armed: Start) -> None:
    """The same while the session lives."""
    made = armed("m=anon,pages=40,fill=1")
    os.mkfifo(PLACE / f"{made.pid}.{suffix}")
    made.write("m", {5})
    assert command("diff", made.pid, "--rearm", "-q").code == 0
    made.write("m", {6})
    assert written(made) == {6}


@pytest.mark.parametrize("kill_it", [False, True])
@pytest.mark.parametrize("change", ["facts['novel'] = 1", "del facts['late']"])
def test_the_session_of_another_version(
    change: str, kill_it: bool, target: Start
) -> None:
    """It is listed, ended and told of as lost; a look says what is the matter."""
    made = target("m=anon,pages=40,fill=1")
    program = f"""{PROGRAM}
usual = record.Session.to_json

def other(session):
    facts = usual(session)
    {change}
    return facts

record.Session.to_json = other
sys.exit(cli.run())
"""
    line = [sys.executable, "-c", program, "arm", str(made.pid)]
    assert subprocess.run(line, check=False, timeout=60).returncode == 0
    (keeper,) = keepers()
    if kill_it:
        kill(keeper)
        assert "was lost: its keeper" in command("diff", made.pid).stderr
        assert session_files() == set()
        return
    for words in (["diff"], ["diff", "--rearm"]):
        looked = command(words[0], made.pid, *words[1:])
        assert looked.code == 1
        assert "speaks another protocol" in looked.stderr
        assert f"pagescan disarm {made.pid}" in looked.stderr
    assert command("disarm", made.pid).code == 0
    assert witness.registered(made.pid) == 0
    assert session_files() == set()


def test_the_facts_of_another_process(armed: Start) -> None:
    """A lock file with them hides no session: the keeper is asked."""
    made = armed("m=anon,pages=40,fill=1")
    path = PLACE / f"{made.pid}.lock"
    facts = json.loads(path.read_text())
    facts["target"]["pid"] = 1
    path.write_text(json.dumps(facts))
    (session,) = live_sessions(made.pid)
    assert session.target.pid == made.pid


def test_a_lock_file_is_never_used_twice(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late command recognizes by it that its session has ended."""
    made = target("m=anon,pages=40,fill=1")
    path = PLACE / f"{made.pid}.lock"
    path.write_text("{}")
    with path.open("rb") as reader:
        # Another command reads it at this moment: it cannot be removed at first.
        fcntl.flock(reader, fcntl.LOCK_SH)
        before = os.fstat(reader.fileno()).st_ino
        monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(reader, fcntl.LOCK_UN))
        lock = Lock.take(made.pid)
        try:
            assert path.stat().st_ino != before
        finally:
            lock.remove()
            lock.close()


# ---- groups --------------------------------------------------------------------------


@pytest.fixture
def group(target: Start) -> tuple[list[Target], list[str]]:
    """Four processes, and the words that select them."""
    made = [target("m=anon,pages=40,fill=1") for _ in range(4)]
    return made, ["--match", os.readlink(f"/proc/{made[0].pid}/exe")]


def look_at(
    made: list[Target], words: list[str], *more: str
) -> tuple[list[set[int] | None], dict[int, str], str]:
    """Diff a group: the pages of each process, the reasons for others, messages."""
    result = command("diff", *words, "--json", *more)
    assert result.code == 0, result.stderr
    found = json.loads(result.stdout)
    members = {one["target"]["pid"] for one in found["processes"]}
    pages: list[set[int] | None] = []
    for one in made:
        regions = [item for item in found["regions"] if item["pid"] == one.pid]
        tracked = one.pid in members
        pages.append(one.pages({"regions": regions}, "m") if tracked else None)
    left_out = {item["pid"]: item["why"] for item in found["untracked"]}
    return pages, left_out, result.stderr


def test_the_keeper_dies_while_a_group_is_armed(
    group: tuple[list[Target], list[str]],
) -> None:
    """Its members are not called armed; the others get another keeper."""
    made, words = group
    done = at("spawn.join", "kill_keepers()", "arm", *words, call=2)
    assert done.code == 0
    assert "2 processes" in done.stderr
    assert "its keeper died" in done.stderr
    assert "was lost" not in command("sessions").stderr
    assert len(keepers()) == 1
    for one in made:
        one.write("m", {3})
    pages, left_out, _ = look_at(made, words)
    assert pages == [None, None, {3}, {3}]
    assert set(left_out) == {made[0].pid, made[1].pid}
    assert command("disarm", *words).code == 0
    assert session_files() == set()


@pytest.mark.parametrize("then", ["diff", "disarm", "all"])
def test_a_group_that_is_lost_in_part(
    then: str, group: tuple[list[Target], list[str]]
) -> None:
    """The loss is told once, of the members that it concerns, and clears its files."""
    made, words = group
    command("arm", *words)
    for one in made[2:]:
        command("disarm", one.pid)
    (keeper,) = keepers()
    done = at("group_session._gone", f"kill({keeper})", "diff", *words, "--rearm")
    assert done.code == 0, done.stderr
    listed = command("sessions")
    assert "was lost in part: its keeper died" in listed.stderr
    if then != "diff":
        ending = ["--all"] if then == "all" else words
        ended = command("disarm", *ending)
        assert ended.code == 0
        assert "was lost in part: its keeper died" in ended.stderr
        assert session_files() == set()
        return
    for one in made:
        one.write("m", {3})
    pages, left_out, _ = look_at(made, words)
    assert pages == [None, None, {3}, {3}]
    lost = {made[0].pid, made[1].pid}
    assert {pid for pid, why in left_out.items() if "its keeper died" in why} == lost
    _, left_out, _ = look_at(made, words)
    assert not any("its keeper died" in why for why in left_out.values())
    assert set(left_out) == lost
    look_at(made, words, "--rearm")
    for one in made:
        one.write("m", {4})
    pages, left_out, said = look_at(made, words)
    assert (pages, left_out, said) == ([{4}] * 4, {}, "")
    assert command("disarm", *words).code == 0
    assert session_files() == set()


def test_a_group_is_armed_twice_at_once(
    group: tuple[list[Target], list[str]],
) -> None:
    """One of the commands is refused: a group has one session."""
    made, words = group
    act = f"assert pagescan('arm', *{words}).returncode == 0"
    done = at("group_session.refuse_second", act, "arm", *words, late=True)
    assert done.code == 1
    assert "is tracked already: session --match" in done.stderr
    for one in made:
        one.write("m", {3})
    assert look_at(made, words)[:2] == ([{3}] * 4, {})
    assert command("disarm", *words).code == 0
    assert session_files() == set()
