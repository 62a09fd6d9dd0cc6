"""`record --who` on a target that knows which function and thread wrote each page."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.attribution.look_writers import WritersByLook
from pagescan.attribution.writers import WriterWatch
from pagescan.model.looks import Tick
from pagescan.model.results import Summary
from pagescan.recording import views
from pagescan.recording.excerpt import Excerpt
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.recording.store import Recording, open_recording
from pagescan.target.process import Target
from pagescan.tracking.sample import Budget
from pagescan.tracking.sampled import SampledTracking
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.authors import Author, Truth, compiled_authors, is_right
from tests.conftest import HERE, PAGE, STRANGER, command, python_of_all
from tests.fronts import looks_of

pytestmark = pytest.mark.needs("tracking")


@pytest.fixture(scope="module")
def program() -> Iterator[Path]:
    """The compiled target, where another user can run it."""
    with compiled_authors() as made:
        yield made


@pytest.fixture
def author(program: Path) -> Iterator[Author]:
    author = Author(program)
    yield author
    author.process.kill()
    author.process.communicate()


def writers_of(recording: Recording, number: int) -> Truth:
    """Return the function and the thread of each page of a look, by the file."""
    look = recording.looks[number]
    counts = recording.writers_of(look)
    assert counts is not None
    found: Truth = {}
    columns = recording.writer_runs(look)
    for start, end, source in zip(*columns, strict=True):
        writer = ("", 0)
        if source:
            function, thread, _, _ = counts.counts[source - 1]
            name = recording.functions[function].function or ""
            writer = name, recording.threads[thread].tid
        for page in range(start, end, PAGE):
            found[page] = writer
    return found


class Recorded:
    """An author whose looks this process records, each after a job."""

    def __init__(
        self, author: Author, path: str, watch: WriterWatch, tracking: Tracking
    ) -> None:
        watch.follow(tracking)
        self.truth: list[Truth] = []
        self._author, self._watch, self._tracking = author, watch, tracking
        self._recorder = Recorder(
            Keeping(path),
            tracking.target.facts,
            interval=1.0,
            writers=WritersByLook(watch),
        )

    def look_after(self, job: str) -> None:
        """Let the author write; store a look."""
        self.truth.append(self._author.say(job))
        look = self._tracking.look(rearm=True, returned=self._watch.returned)
        times = (len(self.truth), look, self._tracking.armed_at, 1.0)
        tick = Tick(*times, None, Summary.none())  # the end, and the totals
        self._recorder.add(tick, self._tracking)

    def end(self) -> None:
        self._recorder.end("count")


@pytest.mark.needs("root", "thp")
def test_each_look_has_its_writers(author: Author, tmp_path: Path) -> None:
    """Look by look, page by page: no page has a wrong writer, in file or view."""
    path = str(tmp_path / "a.pagescan")
    with (
        WriterWatch(author.pid) as watch,
        pagescan.track(author.pid) as tracking,
    ):
        made = Recorded(author, path, watch, tracking)
        for job in ("all", "again", "storm 2000", "again"):
            made.look_after(job)
        made.end()
    truth = made.truth
    with open_recording(path) as recording:
        for at, written in enumerate(truth):
            found = writers_of(recording, at)
            wrong = {
                page: (writer, found.get(page))
                for page, writer in written.items()
                if page not in found or not is_right(writer, found[page], user=False)
            }
            assert wrong == {}
            assert len(found) == recording.looks[at].pages
        assert recording.damage == []
    with pagescan.open_recording(path) as opened:
        pages = {row.function: row.pages for row in opened.writers().functions}
    by_store = Counter(name for written in truth for name, _ in written.values())
    assert pages["by_store"] == by_store["by_store"] >= 1000


@pytest.mark.needs("root", "thp")
@pytest.mark.parametrize("faults", [1200.0, 6000.0])
def test_a_budget_gives_no_wrong_writer(
    author: Author, tmp_path: Path, faults: float
) -> None:
    """Of a part of the memory that changes at each look, each page has its writer."""
    path = str(tmp_path / "a.pagescan")
    sampled = 0
    with WriterWatch(author.pid) as watch, Target.open(author.pid) as target:
        tracking = SampledTracking.start_within(Budget(faults), target)
        with tracking:
            made = Recorded(author, path, watch, tracking)
            storms = [f"storm {500 * number}" for number in range(1, 15)]
            for job in ("all", *(job for storm in storms for job in (storm, "again"))):
                sampled += not tracking.exact
                made.look_after(job)
            made.end()
    told = 0
    with open_recording(path) as recording:
        for at, written in enumerate(made.truth):
            found = writers_of(recording, at)
            assert len(found) == recording.looks[at].pages
            own = found.keys() & written.keys()
            told += len(own)
            wrong = {
                page: (written[page], found[page])
                for page in own
                if not is_right(written[page], found[page], user=False)
            }
            assert wrong == {}, at
        view = views.writers(Excerpt(recording))
        known = sum(row.pages for row in view.functions)
        assert known == view.attributed
        assert known + view.kernel_or_other + view.lost == view.pages
        assert view.pages == sum(look.pages for look in recording.looks)
    assert sampled > 5
    assert told > 1000


def start(pid: int, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pagescan", "record", str(pid), "--who", *words],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_the_command_keeps_names(author: Author, tmp_path: Path, end: int) -> None:
    """Names are in the file, also if the recorder is killed and the target gone."""
    path = tmp_path / "a.pagescan"
    recorder = start(author.pid, "-o", str(path), "-i", "0.1")
    witness.wait_for(lambda: looks_of(path) >= 1)
    before = looks_of(path)
    truth = author.say("again")
    witness.wait_for(lambda: looks_of(path) >= before + 2)
    recorder.send_signal(end)
    recorder.communicate(timeout=60)
    author.process.kill()
    author.process.communicate()
    document = command("report", path, "--view", "writers", "--json").json()
    (first, *_) = document["writers"]["functions"]
    assert (first["function"], first["pages"]) == ("by_store", len(truth))
    assert (first["thread"], first["thread_count"]) == ("authors", 1)
    assert first["module"].endswith("/authors")
    rows = document["writers"]["functions"]
    assert sum(row["pages"] for row in rows) == document["writers"]["attributed"]
    summary = command("report", path, "--json").json()["summary"]
    assert summary["writers"]["functions"][0] == first
    command("sessions")  # removes the lock file of a killed recorder


def test_every_form_has_the_function(author: Author, tmp_path: Path) -> None:
    path = tmp_path / "a.pagescan"
    recorder = start(author.pid, "-o", str(path), "-i", "0.1", "-n", "20")
    witness.wait_for(lambda: looks_of(path) >= 1)
    author.say("again")
    recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    for words in ((), ("--view", "writers"), ("--view", "writers", "--csv")):
        result = command("report", path, *words)
        assert result.code == 0, result.stderr
        assert "by_store" in result.stdout
    exact = command("report", path, "--view", "writers", "--bytes").stdout
    assert str(500 * PAGE) in exact
    page = tmp_path / "a.html"
    assert command("report", path, "--html", page).code == 0
    plain = tmp_path / "plain.pagescan"
    assert command("record", author.pid, "-o", plain, "-n", "2", "-i", "0.1").code == 0
    both = command("report", path, plain, "--view", "writers")
    assert both.code == 0
    assert f"{plain}: 2 looks not counted" in both.stderr
    beside = command("diff", path, path)
    assert "by_store" in beside.stdout
    document = command("diff", path, path, "--json").json()
    row = document["comparison"]["functions"][0]
    assert row["old_rate"] == row["new_rate"]
    assert row["old_share"] == row["new_share"]


def test_a_command_and_its_exec(program: Path, tmp_path: Path) -> None:
    """CMD's writes are named, though its main thread has ended before the last look.

    Pages that `main` has filled since the last look are those of memset, not of
    by_store.
    """
    path = tmp_path / "a.pagescan"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pagescan", "record", "--who", "-i", "60"),
            *("-o", path, "--", "sh", "-c", f"exec {program}"),
        ],
        input="again\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pagescan.open_recording(str(path)) as recording:
        view = recording.writers()
    pages = {row.function or "": row.pages for row in view.functions}
    named = sum(count for name, count in pages.items() if "memset" in name)
    assert named > 5000
    assert pages[""] < 10
    assert view.attributed == view.pages


def test_a_recording_without_writers(author: Author, tmp_path: Path) -> None:
    path = tmp_path / "a.pagescan"
    assert command("record", author.pid, "-o", path, "-n", "1", "-i", "0.1").code == 0
    result = command("report", path, "--view", "writers")
    assert result.code == 1
    assert "the recording does not say who wrote" in result.stderr
    assert "hint: record --who keeps it" in result.stderr
    assert command("report", path, "--json").json()["summary"]["writers"] is None
    document = command("diff", path, path, "--json").json()
    assert document["comparison"]["functions"] is None


def until_looked(path: Path) -> None:
    """Wait for one look more in a file."""
    before = looks_of(path)
    witness.wait_for(lambda: looks_of(path) > before)


@pytest.mark.parametrize("group", [False, True])
def test_a_budget(author: Author, program: Path, tmp_path: Path, group: bool) -> None:
    """The command: each page has a writer or is in a fixed row; the report says so."""
    path = tmp_path / "a.pagescan"
    words = ("--match", str(program)) if group else (str(author.pid),)
    recorder = subprocess.Popen(
        [
            *(sys.executable, "-m", "pagescan", "record", *words, "--who"),
            *("--budget", "0.01", "-i", "0.1", "-o", str(path)),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    witness.wait_for(lambda: looks_of(path) >= 1)
    for _ in range(10):
        author.say("again")
        until_looked(path)
    recorder.send_signal(signal.SIGINT)
    _, stderr = recorder.communicate(timeout=60)
    assert recorder.returncode == 0, stderr
    found = command("report", path, "--view", "writers", "--json").json()["writers"]
    known = sum(row["pages"] for row in found["functions"])
    assert known == found["attributed"]
    assert known + found["kernel_or_other"] + found["lost"] == found["pages"]
    for view in ((), ("--view", "writers")):
        assert (
            "wrote to the part that was tracked"
            in command("report", path, *view).stdout
        )


def record_as_stranger(pid: int, path: Path) -> subprocess.CompletedProcess[str]:
    """Record as another user, who may sample only code in user mode."""
    paths = os.pathsep.join([str(HERE.parent), *filter(None, map(str, sys.path))])
    words = ("record", "--who", str(pid), "-n", "3", "-i", "0.1", "-o", str(path))
    return subprocess.run(
        [str(python_of_all()), "-m", "pagescan", *words],
        capture_output=True,
        text=True,
        check=False,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": paths, "XDG_RUNTIME_DIR": ""},
        cwd="/",
    )


@pytest.mark.needs("root")
def test_without_the_rights_for_the_kernel(program: Path) -> None:
    """Where writes of the kernel cannot be sampled, file and report say so."""
    setting = Path("/proc/sys/kernel/perf_event_paranoid")
    before = setting.read_text()
    author = Author(program, STRANGER)
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, STRANGER, STRANGER)
        path = Path(folder) / "a.pagescan"
        try:
            setting.write_text("2")
            done = record_as_stranger(author.pid, path)
        finally:
            setting.write_text(before)
            author.process.kill()
            author.process.communicate()
        assert done.returncode == 0, done.stderr
        assert "writes of the kernel for the process" in done.stderr
        result = command("report", path, "--view", "writers", "--json")
        assert json.loads(result.stdout)["writers"]["user_only"] is True
        shown = command("report", path, "--view", "writers").stdout
        assert "could sample only code in user mode" in shown


@pytest.mark.parametrize(
    ("kernel", "code", "text"),
    [("no-perf", 4, "perf_event_paranoid"), ("unknown-perf", 5, "no software events")],
)
def test_refused_by_the_kernel(
    author: Author, tmp_path: Path, kernel: str, code: int, text: str
) -> None:
    """Without samples nothing is recorded, and no file is left."""
    path = tmp_path / "a.pagescan"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.filtered", kernel),
            *("record", "--who", str(author.pid), "-o", str(path)),
        ],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert not path.exists()
