"""Journals of killed recorders: damage is said; the looks that are whole are shown."""

import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pagescan.model.errors import PagescanError
from pagescan.recording.journal import damage_of, first_wrong
from pagescan.recording.output_file import OutputFile
from pagescan.recording.records import RecordingFacts
from pagescan.recording.store import open_recording
from tests.conftest import command
from tests.synthetic import BEGUN, Made, pages_of
from tests.unit.test_recording_store import ANON, HEAP, MAPPINGS, made, written

FRAME = 24 + 4096


def killed(made: Made, folder: Path) -> Path:
    """Return a copy of a recording's files as SIGKILL would leave them."""
    folder.mkdir()
    for end in ("", "-wal"):
        shutil.copy(f"{made.path}{end}", folder / f"a.pagescan{end}")
    return folder / "a.pagescan"


@pytest.mark.parametrize("looks", [3, 40, 300])
def test_a_kill_is_no_damage(tmp_path: Path, looks: int) -> None:
    recording = made(tmp_path / "a.pagescan", looks)
    path = killed(recording, tmp_path / "killed")
    assert os.path.getsize(f"{path}-wal") > FRAME
    with open_recording(str(path)) as read:
        assert read.damage == []
        assert written(read) == recording.written
    recording.close()


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_is_said(tmp_path: Path, seed: int) -> None:
    """Wherever it is in the journal, it hides no later look without a word."""
    rolled = random.Random(seed)
    recording = made(tmp_path / "a.pagescan", rolled.choice([5, 40]), seed)
    path = killed(recording, tmp_path / "killed")
    journal = Path(f"{path}-wal")
    data = bytearray(journal.read_bytes())
    at = rolled.randrange(len(data))
    data[at] ^= 1 << rolled.randrange(8)
    journal.write_bytes(data)
    with open_recording(str(path)) as read:
        assert "journal is wrong" in "; ".join(read.damage), at
        lost = len(recording.written) - len(read.looks)
        assert lost <= 15, at  # the rows of one page
        for look in read.looks:
            pages = pages_of(read.columns(look))
            assert pages in (recording.written[look.number - 1], []), at
    recording.close()


@pytest.mark.parametrize("at", [0, 9, 17, 26, 32, 40, 32 + 20, 32 + FRAME + 8])
def test_heads_that_are_damaged(tmp_path: Path, at: int) -> None:
    recording = made(tmp_path / "a.pagescan", 20)
    path = killed(recording, tmp_path / "killed")
    data = bytearray(Path(f"{path}-wal").read_bytes())
    data[at] ^= 1
    Path(f"{path}-wal").write_bytes(data)
    with open_recording(str(path)) as read:
        assert read.damage != []
        assert written(read) == recording.written
    recording.close()


def test_an_unfinished_frame_is_no_damage(tmp_path: Path) -> None:
    """A kill between two writes of a transaction: what was committed is whole."""
    recording = made(tmp_path / "a.pagescan", 20)
    path = killed(recording, tmp_path / "killed")
    data = Path(f"{path}-wal").read_bytes()
    assert (len(data) - 32) % FRAME == 0
    unfinished = b"\0\0\0\2\0\0\0\0" + data[16:24] + bytes(8)
    for end in (unfinished, unfinished + bytes(100), unfinished + bytes(4096)):
        Path(f"{path}-wal").write_bytes(data + end)
        with open_recording(str(path)) as read:
            assert read.damage == []
            assert written(read) == recording.written
    recording.close()


def test_the_report_exits_with_1(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 30)
    path = killed(recording, tmp_path / "killed")
    data = bytearray(Path(f"{path}-wal").read_bytes())
    data[len(data) // 2] ^= 4
    Path(f"{path}-wal").write_bytes(data)
    result = command("report", path, "--json")
    assert result.code == 1
    assert "journal is wrong" in result.stderr
    assert result.json()["summary"]["looks"] > 20
    recording.close()


def test_journals_that_are_no_journals() -> None:
    assert first_wrong(b"") is None
    assert first_wrong(bytes(32)) is None
    assert first_wrong(b"hello" * 1000) == 0


def test_a_recorder_that_runs_is_no_damage(tmp_path: Path) -> None:
    """The journal is read while frames are added, and while it begins again."""
    recording = Made(tmp_path / "a.pagescan", MAPPINGS)
    path = str(recording.path)
    ended = threading.Event()
    found: list[str | None] = []

    def read() -> None:
        while not ended.is_set():
            found.append(damage_of(path))

    reader = threading.Thread(target=read)
    reader.start()
    for at in range(400):
        recording.look([HEAP.start, ANON.start + at * 4096])
    ended.set()
    reader.join()
    recording.close()
    assert set(found) == {None}


# ---- the file of a recorder that runs ----------------------------------------------

RECORDER = """
import sys, os
from pathlib import Path
from tests.synthetic import Made
from tests.unit.test_recording_store import HEAP, MAPPINGS
made = Made(Path(sys.argv[1]), MAPPINGS)
made.look([HEAP.start])
print("ready", flush=True)
sys.stdin.read()
"""


def test_force_leaves_a_running_recording_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.pagescan"
    running = subprocess.Popen(
        [sys.executable, "-c", RECORDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    facts = RecordingFacts("", "", "", BEGUN, 1.0)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(PagescanError, match=f"recorder {running.pid} is") as caught:
        OutputFile(str(path), facts, overwrite=True)
    assert f"kill -INT {running.pid}" in str(caught.value.hint)
    assert sorted(os.listdir(tmp_path)) == before
    running.kill()
    running.communicate()
    OutputFile(str(path), facts, overwrite=True).discard()
    with open_recording(str(path)) as read:  # what it has left is still there
        assert len(read.looks) == 1


def test_the_command_refuses_it(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 2)
    result = command("record", str(os.getpid()), "-o", recording.path, "--force")
    assert result.code == 1
    assert f"recorder {os.getpid()} is writing {recording.path}" in result.stderr
    recording.close()


# ---- what is no file ---------------------------------------------------------------


def test_a_fifo_is_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    result = command("report", fifo)
    assert result.code == 1
    assert f"{fifo} is not a recording of pagescan: not a regular file" in result.stderr
    result = command("report", tmp_path)
    assert result.code == 1
    assert "is a directory" in result.stderr
    result = command("diff", fifo, fifo)
    assert result.code == 1
