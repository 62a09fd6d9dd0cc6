"""`record` of a group: each member's looks are what it says it wrote."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.recording.store import Recording, open_recording
from tests import witness
from tests.conftest import command
from tests.fronts import Front, begun, check, compiled

pytestmark = pytest.mark.needs("tracking")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program with a path of its own, by which --match finds its processes."""
    return compiled(tmp_path)


@pytest.fixture
def fronts(program: Path, tmp_path: Path) -> Iterator[Callable[[], Front]]:
    running: list[Front] = []

    def start() -> Front:
        running.append(begun(program, tmp_path / f"log-{len(running)}"))
        return running[-1]

    yield start
    for front in running:
        if front.process.returncode is None:
            front.process.communicate(timeout=60)
        assert front.process.returncode == 0


def start(program: Path, path: Path, *words: str) -> subprocess.Popen[str]:
    """Start `pagescan record` of all processes of the program."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pagescan", "record", "--match", str(program)),
            *("-o", str(path), "-i", "0.1", *words),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def recorded(path: Path) -> list[int]:
    """Return the pids that have looks in a file; it may not exist yet."""
    try:
        with open_recording(str(path)) as recording:
            return [pid_of(recording, look.process) for look in recording.looks]
    except pagescan.PagescanError:
        return []


def pid_of(recording: Recording, process: int) -> int:
    return recording.processes[process].target.pid


def of(recording: Recording, front: Front) -> int:
    """Return the index of a process in a recording; it is there once."""
    (index,) = [
        at
        for at, one in enumerate(recording.processes)
        if one.target.pid == front.process.pid
    ]
    return index


def test_members_that_come_and_go(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    """Two are there, one comes, one goes: the looks of each are true."""
    path = tmp_path / "a.pagescan"
    one, two = fronts(), fronts()
    recorder = start(program, path)
    witness.wait_for(lambda: recorded(path).count(two.process.pid) > 2)
    three = fronts()
    witness.wait_for(lambda: recorded(path).count(three.process.pid) > 2)
    one.process.communicate(timeout=60)
    witness.wait_for(lambda: ended(path, one.process.pid) == "exited")
    recorder.send_signal(signal.SIGINT)
    _, stderr = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, stderr
    assert "recording match" in stderr
    assert "2 processes, into" in stderr
    assert "1 process went" in stderr
    with open_recording(str(path)) as recording:
        assert recording.facts.group == {"kind": "match", "name": str(program)}
        assert len(recording.processes) == 3
        for front in (one, two, three):
            check(recording, front, of(recording, front))
        assert recording.processes[of(recording, two)].ending == "interrupted"
    document = command("report", path, "--view", "processes", "--json").json()
    assert document["recording"]["group"]["kind"] == "match"
    rows = {row["pid"]: row for row in document["processes"]}
    pids = {front.process.pid for front in (one, two, three)}
    assert {pid for pid, row in rows.items() if row["why"] is None} == pids
    assert rows[one.process.pid]["end"] == "exited"
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1, abs=1e-4)
    summary = command("report", path, "--json").json()["summary"]
    assert sum(row["pages"] for row in rows.values()) == summary["pages"]
    shown = command("report", path)
    assert "Processes that write most" in shown.stdout
    with open_recording(str(path)) as recording:
        ticks = len({look.number for look in recording.looks})
        assert ticks < len(recording.looks)
    assert f": {ticks} looks of 3 processes in " in shown.stdout.splitlines()[0]
    for form in ((), ("--csv",)):
        text = command("report", path, "--view", "ages", *form).stdout
        assert f"front ({two.process.pid})" in text
    page = tmp_path / "page.html"
    assert command("report", path, "--html", page).code == 0
    profile = ("--format", "firefox", "-o", tmp_path / "profile.json")
    assert command("report", path, *profile).code == 0
    beside = command("diff", path, path, "--json").json()["comparison"]
    assert [row["process"] for row in beside["processes"]] == ["front"]
    assert {row["process"] for row in beside["mappings"]} == {"front"}
    assert {row["similarity"] for row in beside["mappings"]} == {1.0}
    assert command("diff", path, path).code == 0


def ended(path: Path, pid: int) -> str | None:
    """Return why the looks at a process have ended, by a growing file."""
    with open_recording(str(path)) as recording:
        endings = [one.ending for one in recording.processes if one.target.pid == pid]
    return endings[0] if endings else None


def test_a_killed_recorder_loses_no_tick(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    """A tick is in the file with the looks of all members, or not at all."""
    path = tmp_path / "a.pagescan"
    both = fronts(), fronts()
    recorder = start(program, path)
    witness.wait_for(lambda: len(recorded(path)) > 6)
    before = len(recorded(path))
    recorder.kill()
    recorder.communicate(timeout=60)
    with open_recording(str(path)) as recording:
        assert len(recording.looks) >= before
        assert len(recording.looks) % 2 == 0
        assert recording.facts.ending is None
        for front in both:
            check(recording, front, of(recording, front))
    command("sessions")  # removes the lock files of the killed recorder


def test_a_member_that_cannot_be_tracked(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    """It is named with the reason; the others are recorded."""
    path = tmp_path / "a.pagescan"
    free, taken = fronts(), fronts()
    assert command("arm", taken.process.pid).code == 0
    try:
        recorder = start(program, path, "-n", "3")
        _, stderr = recorder.communicate(timeout=60)
    finally:
        command("disarm", taken.process.pid)
    assert recorder.returncode == 0, stderr
    assert f"not tracked: {taken.process.pid} front" in stderr
    with open_recording(str(path)) as recording:
        check(recording, free, of(recording, free))
        index = of(recording, taken)
        assert recording.processes[index].last_look >= 0
        assert {look.process for look in recording.looks} == {of(recording, free)}
        (item,) = [row for row in recording.untracked if row.process == index]
        assert "tracked already" in item.item.why
    result = command("report", path)
    assert f"not tracked: front ({taken.process.pid}): " in result.stdout
    rows = command("report", path, "--view", "processes", "--json").json()["processes"]
    (row,) = [row for row in rows if row["pid"] == taken.process.pid]
    assert "tracked already" in row["why"]


def test_files_that_follow_each_other(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    """--rotate: each file has all members; together they are one recording."""
    both = fronts(), fronts()
    path = tmp_path / "a.pagescan"
    recorder = start(program, path, "-n", "12", "--rotate", "0.4")
    _, stderr = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, stderr
    files = [str(one) for one in tmp_path.glob("a*.pagescan")]
    assert len(files) > 1
    with open_recording(*files) as recording:
        pids = {pid_of(recording, look.process) for look in recording.looks}
        assert pids == {front.process.pid for front in both}
        assert {look.number for look in recording.looks} == set(range(1, 13))


def test_a_tree_and_its_name(tmp_path: Path, program: Path) -> None:
    """Without -o the file is named after the group."""
    front = begun(program, tmp_path / "log")
    folder = tmp_path / "here"
    folder.mkdir()
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pagescan", "record", "--tree"),
                *(str(front.process.pid), "-n", "2", "-i", "0.1"),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        front.process.communicate(timeout=60)
    assert done.returncode == 0, done.stderr
    (name,) = os.listdir(folder)
    assert name.startswith(f"tree-{front.process.pid}-")
    with open_recording(str(folder / name)) as recording:
        assert recording.facts.ending == "count"


def test_library(fronts: Callable[[], Front], program: Path, tmp_path: Path) -> None:
    """`record()` takes a group, and stores what its members say they wrote."""
    path = tmp_path / "a.pagescan"
    both = fronts(), fronts()
    group = pagescan.Match(str(program))
    assert pagescan.record(group, str(path), interval=0.1, count=5) == [str(path)]
    with open_recording(str(path)) as recording:
        assert recording.facts.group == {"kind": "match", "name": str(program)}
        assert recording.facts.ending == "count"
        assert {look.number for look in recording.looks} == set(range(1, 6))
        for front in both:
            check(recording, front, of(recording, front))
            assert recording.processes[of(recording, front)].ending == "count"


@pytest.mark.parametrize("of_group", [False, True])
def test_library_keeps_a_budget(
    *, fronts: Callable[[], Front], program: Path, tmp_path: Path, of_group: bool
) -> None:
    """As `record --budget`: the file has it, and its looks are estimates."""
    path = str(tmp_path / "a.pagescan")
    pid = fronts().process.pid
    target = pagescan.Match(str(program)) if of_group else pid
    for budget in (0.0, 101.0, math.nan):
        with pytest.raises(pagescan.UsageError, match="not a percentage"):
            pagescan.record(target, path, budget=budget)
    assert not os.path.exists(path)
    pagescan.record(target, path, interval=0.1, count=3, budget=0.5)
    with pagescan.open_recording(path) as recording:
        assert recording.facts.budget == 0.5
        assert recording.looks
        assert all(look.estimate for look in recording.looks)
        assert recording.view("summary").estimated


@pytest.mark.needs("root")
def test_library_keeps_writers(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    both = fronts(), fronts()
    path = str(tmp_path / "a.pagescan")
    pagescan.record(pagescan.Match(str(program)), path, interval=0.2, count=3, who=True)
    with pagescan.open_recording(path) as recording:
        (row, *_) = recording.writers().functions
    assert {one.pid for one in row.processes} == {one.process.pid for one in both}


def test_library_says_why_it_ended(
    fronts: Callable[[], Front], program: Path, tmp_path: Path
) -> None:
    """A descriptor that becomes readable ends it; no process is an error."""
    fronts()
    path = str(tmp_path / "a.pagescan")
    stop, writes = os.pipe()
    os.write(writes, b"1")
    pagescan.record(pagescan.Match(str(program)), path, interval=0.1, stop=stop)
    os.close(stop)
    os.close(writes)
    with open_recording(path) as recording:
        assert recording.facts.ending == "interrupted"
    with pytest.raises(pagescan.NoSuchTargetError, match="no process in match"):
        pagescan.record(pagescan.Match("no-such-process-at-all"), path + "2")
    assert not os.path.exists(path + "2")


REFUSED = [
    (("--tree",), 2, "TARGET or -- CMD is missing"),
    (("--match", "x", "1"), 2, "--match and TARGET exclude each other"),
    (("--tree", "1", "--unit", "x"), 2, "exclude each other"),
    (("--match", "no-such-process-at-all"), 3, "no process in match"),
    (("--match", "x", "--oldest"), 2, "--oldest and --match exclude each other"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED)
def test_refusals(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.pagescan"
    result = command("record", *words, "-o", path)
    assert (result.code, message in result.stderr) == (code, True), result.stderr
    assert not path.exists()


def test_a_group_and_a_command_are_refused(tmp_path: Path) -> None:
    words = ("record", "--tree", "-o", str(tmp_path / "a"), "--", "true")
    done = subprocess.run(
        [sys.executable, "-m", "pagescan", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--tree and -- CMD exclude each other" in done.stderr
