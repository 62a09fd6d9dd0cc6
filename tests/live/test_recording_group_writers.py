"""`record --who` of a group whose members know which code wrote each page."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import pagescan
from pagescan.attribution.group_samples import GroupSamples
from pagescan.attribution.look_writers import GroupWritersByLook
from pagescan.model.groups import GroupFacts, GroupTick
from pagescan.model.results import Output
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.recording.store import Recording, open_recording
from pagescan.render.report_writers import write_writers
from tests import witness
from tests.authors import (
    Author,
    TickingGroup,
    Truth,
    compiled_authors,
    ended_authors,
    is_right,
)
from tests.conftest import PAGE, command

pytestmark = pytest.mark.needs("tracking")


@pytest.fixture
def program() -> Iterator[Path]:
    """The compiled target, at a path of its own: the path is the group."""
    with compiled_authors() as made:
        yield made


@pytest.fixture
def start(program: Path) -> Iterator[Callable[[], Author]]:
    with ended_authors() as begin:
        yield partial(begin, program)


class Recorded(TickingGroup):
    """A group that this process records, tick by tick."""

    def __init__(self, program: Path, path: Path, undo: contextlib.ExitStack) -> None:
        samples = undo.enter_context(GroupSamples())
        super().__init__(program, samples, "record", undo)
        self.recorder = Recorder(
            Keeping(str(path)),
            None,
            interval=0.05,
            group=GroupFacts("match", str(program)),
            group_writers=GroupWritersByLook(samples),
        )
        self.recorder.meet(self.group.trackings)

    def tick(self) -> GroupTick:
        """Store one look at all members."""
        tick = super().tick()
        self.recorder.add_group(tick, self.group.trackings)
        return tick

    def is_tracked(self, author: Author) -> bool:
        return any(key[0] == author.pid for key in self.group.trackings)


@pytest.fixture
def recorded(
    program: Path, tmp_path: Path, start: Callable[[], Author]
) -> Iterator[Callable[[], Recorded]]:
    with contextlib.ExitStack() as undo:
        yield lambda: Recorded(program, tmp_path / "a.pagescan", undo)


def found_in(recording: Recording, pid: int, number: int) -> Truth:
    """Return the function and the thread of each page of a process in a tick."""
    found: Truth = {}
    for look in recording.looks:
        if recording.processes[look.process].target.pid != pid or look.number != number:
            continue
        counts = recording.writers_of(look)
        assert counts is not None
        columns = recording.writer_runs(look) if look.pages else ([], [], [])
        for start, end, source in zip(*columns, strict=True):
            writer = ("", 0)
            if source:
                function, thread, _, _ = counts.counts[source - 1]
                assert recording.functions[function].process == look.process
                assert recording.threads[thread].process == look.process
                name = recording.functions[function].function or ""
                writer = name, recording.threads[thread].tid
            for page in range(start, end, PAGE):
                found[page] = writer
        assert len(found) == look.pages
    return found


def wrong(truth: Truth, found: Truth) -> dict[int, object]:
    """Return the pages whose writer is not the true one."""
    return {
        page: (writer, found.get(page))
        for page, writer in truth.items()
        if page not in found or not is_right(writer, found[page], user=False)
    }


@pytest.mark.needs("root", "thp")
def test_each_look_of_each_member_has_its_writers(
    start: Callable[[], Author], recorded: Callable[[], Recorded], tmp_path: Path
) -> None:
    """Equal addresses in three processes, one comes, one goes: no writer is wrong."""
    one, two = start(), start()
    made = recorded()
    truths: list[tuple[int, int, Truth]] = []

    def write(*jobs: tuple[Author, str]) -> None:
        said = [(author.pid, author.say(job)) for author, job in jobs]
        number = made.tick().number
        truths.extend((pid, number, truth) for pid, truth in said)

    write((one, "all"), (two, "all"))
    write((one, "storm 2000"))
    three = start()
    made.until(lambda: made.is_tracked(three))
    write((three, "again"), (two, "again"))
    two.process.kill()
    two.process.wait()
    made.until(lambda: not made.is_tracked(two))
    write((one, "again"), (three, "storm 500"))
    made.recorder.end("count")
    path = str(tmp_path / "a.pagescan")
    with open_recording(path) as recording:
        for pid, number, truth in truths:
            assert len(truth) > 100
            assert wrong(truth, found_in(recording, pid, number)) == {}, (pid, number)
        assert recording.damage == []
    by_store = Counter(
        pid
        for pid, _, truth in truths
        for name, _ in truth.values()
        if name == "by_store"
    )
    with pagescan.open_recording(path) as opened:
        (row,) = [r for r in opened.writers().functions if r.function == "by_store"]
        assert {each.pid: each.pages for each in row.processes} == by_store
        assert row.process_count == 3
        assert row.pid is None


def begin(program: Path, path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pagescan", "record", "--match", str(program)),
            *("--who", "-o", str(path), "-i", "0.1", *words),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def looks_of(path: Path, pid: int) -> int:
    """Return the number of looks at a process in a file, which may not exist yet."""
    try:
        with open_recording(str(path)) as recording:
            pids = [one.target.pid for one in recording.processes]
            return sum(pids[look.process] == pid for look in recording.looks)
    except pagescan.PagescanError:
        return 0


def until_looks(path: Path, author: Author, count: int) -> None:
    witness.wait_for(lambda: looks_of(path, author.pid) >= count)


@pytest.fixture
def both(
    start: Callable[[], Author], program: Path, tmp_path: Path
) -> tuple[Path, dict[int, int]]:
    """A recording by the command; the pages that each of two processes wrote."""
    authors = start(), start()
    path = tmp_path / "a.pagescan"
    recorder = begin(program, path)
    for author in authors:
        until_looks(path, author, 1)
    written = {author.pid: len(author.say("again")) for author in authors}
    for author in authors:
        until_looks(path, author, looks_of(path, author.pid) + 2)
    recorder.send_signal(signal.SIGINT)
    _, stderr = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, stderr
    return path, written


def test_reports(
    both: tuple[Path, dict[int, int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """JSON, CSV, table, page and profiles tell the processes apart."""
    path, written = both
    result = command("report", path, "--view", "writers", "--json")
    assert "not counted" not in result.stderr
    (row, *_) = result.json()["writers"]["functions"]
    assert (row["function"], row["process"], row["pid"]) == (
        "by_store",
        "authors",
        None,
    )
    assert {one["pid"]: one["pages"] for one in row["processes"]} == written
    assert row["process_count"] == 2
    head, first, *_ = command(
        "report", path, "--view", "writers", "--csv"
    ).stdout.split("\n")
    cells = dict(zip(head.split(","), first.split(","), strict=True))
    assert (cells["pid"], cells["process"], cells["processes"]) == ("", "authors", "2")
    with pagescan.open_recording(str(path)) as recording:
        view = recording.writers()
    write_writers(view, PAGE, Output(format="table"), several=True)
    assert "authors +1" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert command("report", path, "--html", page).code == 0
    names = {f"authors ({pid})" for pid in written}
    profile = tmp_path / "profile"
    assert command("report", path, "--format", "firefox", "-o", profile).code == 0
    threads = json.loads(profile.read_text())["threads"]
    assert {one["processName"] for one in threads if one["tid"] in written} == names
    command("report", path, "--format", "speedscope", "-o", profile)
    lanes = [lane["name"] for lane in json.loads(profile.read_text())["profiles"]]
    assert len(set(lanes)) == len(lanes)
    assert {f"authors ({pid}): authors {pid}" for pid in written} <= set(lanes)
    command("report", path, "--format", "collapsed", "-o", profile)
    stacks = [line.split(";")[0] for line in profile.read_text().splitlines()]
    assert names <= set(stacks)


def test_dataset(both: tuple[Path, dict[int, int]], tmp_path: Path) -> None:
    """Each row of the dataset's writers has its process."""
    duckdb = pytest.importorskip("duckdb")
    path, written = both
    folder = tmp_path / "data"
    assert command("report", path, "--parquet", folder).code == 0
    rows = duckdb.sql(
        "SELECT pid, sum(pages)::int FROM read_parquet("
        f"'{folder}/writers/**/*.parquet') WHERE function = 'by_store' GROUP BY pid"
    ).fetchall()
    assert dict(rows) == written


def test_nothing_is_left(
    start: Callable[[], Author], program: Path, tmp_path: Path
) -> None:
    """Descriptors of samples and of names go with the recording."""
    start()
    before = witness.descriptors(os.getpid())
    with contextlib.ExitStack() as undo:
        made = Recorded(program, tmp_path / "a.pagescan", undo)
        made.tick()
        made.recorder.end("count")
    assert witness.descriptors(os.getpid()) == before
