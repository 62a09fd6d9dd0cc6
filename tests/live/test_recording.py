"""`record` on live processes: what is in the file is what the target says it wrote."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.model.mapping_set import MappingSet
from pagescan.recording.store import open_recording
from tests import witness
from tests.conftest import HERE, PAGE, Result, Target, command
from tests.fronts import PAGES, Front, begun, check, compiled, looks_of
from tests.synthetic import Made, mapping, some_pages

KILLS = int(os.environ.get("PAGESCAN_KILLS", "8"))
SEED = int(os.environ.get("PAGESCAN_SEED", "0")) or random.SystemRandom().getrandbits(
    32
)

pytestmark = pytest.mark.needs("tracking")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("front"))


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


def spawn(*words: str) -> subprocess.Popen[str]:
    """Start `pagescan record WORDS…`."""
    return subprocess.Popen(
        [sys.executable, "-m", "pagescan", "record", *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_look_is_what_the_target_says(
    fronts: Callable[[], Front], tmp_path: Path
) -> None:
    front, path = fronts(), tmp_path / "a.pagescan"
    result = command("record", *front.words, "-o", path, "-i", "0.05", "-n", "20")
    assert result.code == 0, result.stderr
    assert "20 looks in 1 file" in result.stderr
    assert f"hint: pagescan report {path}" in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["a.pagescan", "log-0"]
    with open_recording(str(path)) as recording:
        assert len(recording.looks) == 20
        assert recording.facts.ending == "count"
        assert sum(look.pages for look in recording.looks) > 100
        check(recording, front)


@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_kill_loses_no_look(
    fronts: Callable[[], Front],
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """SIGKILL at random moments: each look that was readable is there, and is true."""
    rolled = random.Random(SEED)
    print("seed", SEED)  # noqa: T201 - shown when it fails
    looks = 0
    for at in range(KILLS):
        front, path = fronts(), tmp_path / f"{at}.pagescan"
        recorder = spawn(*front.words, "-o", str(path), "-i", "0.01")
        wanted = rolled.randrange(0, 30)
        witness.wait_for(lambda: looks_of(path) >= wanted)  # noqa: B023
        threshold = rolled.uniform(0, 0.02)
        begun = os.times().elapsed
        while os.times().elapsed - begun < threshold:
            pass
        before = looks_of(path)
        recorder.kill()
        recorder.communicate(timeout=60)
        if before:
            with open_recording(str(path)) as recording:
                assert len(recording.looks) >= before
                assert recording.facts.ending is None
                check(recording, front)
                looks += len(recording.looks)
        assert front.process.poll() is None
        front.process.communicate(timeout=60)
    record_property("looks", looks)
    print("kills", KILLS, "looks", looks)  # noqa: T201 - pytest -s
    command("sessions")  # removes the lock files of killed recorders


def test_ctrl_c_ends_it(fronts: Callable[[], Front], tmp_path: Path) -> None:
    front, path = fronts(), tmp_path / "a.pagescan"
    recorder = spawn(*front.words, "-o", str(path), "-i", "0.05")
    witness.wait_for(lambda: looks_of(path) > 2)
    recorder.send_signal(signal.SIGINT)
    _, stderr = recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    assert "interrupted:" in stderr
    assert "hint: pagescan report" in stderr
    with open_recording(str(path)) as recording:
        assert recording.facts.ending == "interrupted"
        check(recording, front)


def test_files_follow_each_other(fronts: Callable[[], Front], tmp_path: Path) -> None:
    """--rotate: several files are one recording, without a gap."""
    front, path = fronts(), tmp_path / "a.pagescan"
    (tmp_path / "a-2.pagescan").write_text("another file")
    result = command(
        *("record", *front.words, "-o", path, "-i", "0.05", "-n", "12"),
        *("--rotate", "0.2"),
    )
    assert result.code == 0, result.stderr
    files = sorted(str(one) for one in tmp_path.glob("a*.pagescan"))
    assert len(files) > 3
    assert (tmp_path / "a-2.pagescan").read_text() == "another file"
    files.remove(str(tmp_path / "a-2.pagescan"))
    with open_recording(*files) as recording:
        assert [look.number for look in recording.looks] == list(range(1, 13))
        check(recording, front)
    report = command("report", *files, "--json").json()
    assert report["summary"]["looks"] == 12


def test_a_flight_recorder(fronts: Callable[[], Front], tmp_path: Path) -> None:
    front, path = fronts(), tmp_path / "a.pagescan"
    result = command(
        *("record", *front.words, "-o", path, "-i", "0.05", "-n", "40"),
        *("--last", "1"),
    )
    assert result.code == 0, result.stderr
    with open_recording(str(path)) as recording:
        kept = recording.looks
        assert [look.number for look in kept] == [*range(41 - len(kept), 41)]
        seconds = (kept[-1].time_ns - kept[0].time_ns) / 1e9
        assert 1 - kept[0].seconds <= seconds <= 1.25, "neither too few nor too many"


def test_a_command(tmp_path: Path) -> None:
    """CMD's own exit status is that of `record`; its name is in the file's."""
    code = "import os; b = bytearray(8 << 20); os._exit(7)"  # with its memory
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pagescan", "record", "-i", "0.05", "--"),
            *(sys.executable, "-c", code),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    assert done.returncode == 7, done.stderr
    (name,) = os.listdir(tmp_path)
    assert name.endswith(".pagescan")
    with open_recording(str(tmp_path / name)) as recording:
        assert recording.facts.ending == "exited"
        assert sum(look.pages for look in recording.looks) * PAGE > 8 << 20


@pytest.mark.needs("root")
def test_a_full_disk_ends_it(fronts: Callable[[], Front], tmp_path: Path) -> None:
    front = fronts()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], check=True
    )
    try:
        path = disk / "a.pagescan"
        result = command(
            "record", *front.words, "-o", path, "-i", "0.005", "-n", "5000"
        )
        assert result.code == 1
        assert "the disk is full" in result.stderr
        assert "Traceback" not in result.stderr
        with open_recording(str(path)) as recording:
            assert len(recording.looks) > 5
            check(recording, front)
    finally:
        subprocess.run(["umount", disk], check=True)


REFUSED = [
    ((), 2, "TARGET or -- CMD is missing"),
    (("--last", "x"), 2, "neither a time nor a size"),
    (("--last", "10K"), 2, "a ring has at least"),
    (("--last", "1m", "--rotate", "1h"), 2, "does not go with it"),
    (("-i", "0"), 2, "not a time above zero"),
    (("--rotate", "0"), 2, "not a time above zero"),
    (("4194304",), 3, "no process"),
]


@pytest.mark.parametrize(("words", "code", "message"), REFUSED)
def test_refusals_of_record(words: tuple[str, ...], code: int, message: str) -> None:
    result = command("record", *words)
    assert (result.code, message in result.stderr) == (code, True), result.stderr


def test_an_existing_file_stays(target: Callable[..., Target], tmp_path: Path) -> None:
    path = tmp_path / "a.pagescan"
    path.write_text("dear")
    pid = target("m=anon,pages=16").pid
    result = command("record", pid, "-o", path, "-n", "1", "-i", "0.1")
    assert result.code == 1
    assert "exists" in result.stderr
    assert "--force" in result.stderr
    assert path.read_text() == "dear"
    assert (
        command("record", pid, "-o", path, "-n", "1", "-i", "0.1", "--force").code == 0
    )
    assert looks_of(path) == 1


def test_a_refused_target_overwrites_nothing(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """With --force the file is lost only to a look; a journal stays with its file."""
    pid = target("m=anon,pages=16").pid
    path, journal = tmp_path / "a.pagescan", tmp_path / "a.pagescan-wal"
    path.write_text("dear")
    journal.write_text("dear, too")
    words = ("-o", path, "-n", "1", "-i", "0.1", "--force")
    assert command("record", pid, "no-such-mapping", *words).code == 1
    assert (path.read_text(), journal.read_text()) == ("dear", "dear, too")
    assert len(list(tmp_path.iterdir())) == 2
    assert command("record", pid, *words).code == 0
    assert looks_of(path) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_left_where_nothing_could_be_armed(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    pid = target("m=anon,pages=16").pid
    path = tmp_path / "a.pagescan"
    result = command("record", pid, "nowhere", "-o", path)
    assert result.code == 1
    assert os.listdir(tmp_path) == []


# ---- report ------------------------------------------------------------------------

VIEWS = (
    *("summary", "timeline", "heatmap", "ages", "working-set", "phases", "migration"),
    "processes",
)


@pytest.fixture(scope="module")
def recorded(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short recording of a front."""
    path = tmp_path_factory.mktemp("recorded") / "a.pagescan"
    log = path.with_name("log")
    with subprocess.Popen(
        [str(program), str(PAGES), str(log), "100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        result = command("record", process.pid, "-o", path, "-i", "0.05", "-n", "20")
        assert process.stdin is not None
        process.stdin.close()
    assert result.code == 0, result.stderr
    return path


def report(path: Path, *words: str) -> Result:
    return command("report", path, *words)


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_in_every_form(recorded: Path, view: str) -> None:
    document = report(recorded, "--view", view, "--json").json()
    key = view.replace("-", "_")
    assert document["kind"] == "report"
    assert document["view"] == view
    assert document[key] is not None
    others = {name.replace("-", "_") for name in (*VIEWS, "writers")} - {key}
    assert {document[name] for name in others} == {None}
    forms = [(), ("--csv",), ("--csv", "--no-header")]
    if view != "heatmap":  # it has no sizes
        forms.append(("--bytes",))
    for form in forms:
        result = report(recorded, "--view", view, *form)
        assert result.code == 0, result.stderr
        assert result.stderr == ""
        assert len(result.stdout.splitlines()) > (0 if form else 1)


def test_a_damaged_file_is_shown_with_code_1(tmp_path: Path) -> None:
    heap = mapping(1 << 40, 5000, "[heap]")
    made = Made(tmp_path / "cut.pagescan", MappingSet([heap]))
    rolled = random.Random(1)
    for _ in range(200):
        made.look(some_pages(rolled, heap, 500))
    path = Path(made.close())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    result = report(path)
    assert result.code == 1, result.stdout
    assert "is damaged" in result.stderr
    assert "written" in result.stdout
    document = report(path, "--json")
    assert document.code == 1
    assert json.loads(document.stdout)["recording"]["damage"] != []


@pytest.mark.parametrize("form", ["firefox", "speedscope", "collapsed"])
def test_a_profile_in_place_of_a_report(
    recorded: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "profile"
    result = report(recorded, "--format", form, "-o", str(file))
    assert (result.code, result.stdout) == (0, "")
    written = report(recorded, "--json").json()["summary"]["bytes"]
    text = file.read_text()
    if form == "collapsed":
        weights = [int(line.rpartition(" ")[2]) for line in text.splitlines()]
    elif form == "speedscope":
        weights = [w for one in json.loads(text)["profiles"] for w in one["weights"]]
    else:
        threads = json.loads(text)["threads"]
        weights = [w for one in threads for w in one["samples"]["weight"]]
    assert sum(weights) == written


REPORT_REFUSED = [
    (("--format", "firefox"), 2, "--format and -o go together"),
    (("-o", "x.json"), 2, "--format and -o go together"),
    (("--format", "collapsed", "-o", "x", "--html", "y"), 2, "exclude each other"),
    (("--format", "collapsed", "-o", "x", "--view", "ages"), 2, "takes no --view"),
    (("--format", "collapsed", "-o", "x", "--json"), 2, "does not go with --format"),
    (("--format", "collapsed", "-o", "/dev/full"), 1, "no space left"),
    (("--format", "collapsed", "-o", "/no/x"), 1, "cannot write /no/x"),
    (("--view", "nothing"), 2, "nothing"),
    (("--bandwidth", "1G"), 2, "need --view migration"),
    (("--view", "migration", "--bandwidth", "0"), 2, "moves nothing"),
    (("--time", "x"), 2, "not a time span"),
    (("--time", "1h-2h"), 1, "no look in that time"),
    (("--range", "libnothing"), 1, "no mapping is named"),
    (("--range", "libnothing"), 1, "--view ages lists the names"),
    (("--range", "0x10+16"), 1, "hint: pagescan report FILE --view ages lists"),
    (("--json", "--no-header"), 2, "does not go with"),
]


@pytest.mark.parametrize(("words", "code", "message"), REPORT_REFUSED)
def test_refusals_of_report(
    recorded: Path, words: tuple[str, ...], code: int, message: str
) -> None:
    result = report(recorded, *words)
    assert (result.code, message in result.stderr) == (code, True), result.stderr


def test_what_is_no_recording(tmp_path: Path) -> None:
    result = report(tmp_path / "nothing")
    assert result.code == 1
    assert "cannot read" in result.stderr
    (tmp_path / "text").write_text("this is no recording, but a text")
    result = report(tmp_path / "text")
    assert result.code == 1
    assert "is not a recording" in result.stderr


@pytest.mark.needs("root")
@pytest.mark.parametrize("words", [("report",), ("diff", "other")])
def test_a_recording_that_may_not_be_read(
    recorded: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    """It is no mistake in the words of the command."""
    path = tmp_path / "secret"
    path.write_bytes(recorded.read_bytes())
    path.chmod(0)
    (tmp_path / "other").write_bytes(recorded.read_bytes())
    done = subprocess.run(
        [
            *("setpriv", "--bounding-set", "-dac_override,-dac_read_search"),
            *(sys.executable, "-m", "pagescan", *words, str(path)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"pagescan: cannot read {path}: permission denied\n"
    assert done.returncode == 1


def test_two_recordings_side_by_side(recorded: Path) -> None:
    document = command("diff", recorded, recorded, "--json").json()
    assert document["kind"] == "comparison"
    rows = document["comparison"]["mappings"]
    assert rows != []
    assert {row["similarity"] for row in rows} == {1.0}
    assert all(row["old_rate"] == row["new_rate"] for row in rows)
    assert command("diff", recorded, recorded).code == 0
    assert command("diff", recorded, recorded, "--csv").stdout.startswith("old_rate,")
    for words in (("--by", "page"), ("--jsonl",), ("--rearm",)):
        assert command("diff", recorded, recorded, *words).code == 2
    assert command("diff", "1", "2", "3").code == 2
    assert "cannot read" in command("diff", recorded, "nowhere").stderr


def test_other_commands_say_who_tracks(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """The session's holder is the command, also where another one is refused."""
    made = target("m=anon,pages=40,fill=1")
    words = ["record", str(made.pid), "-o", str(tmp_path / "a"), "-i", "0.1"]
    with subprocess.Popen(
        [sys.executable, "-m", "pagescan", *words], stderr=subprocess.DEVNULL
    ) as recording:
        try:
            witness.wait_for(lambda: witness.registered(made.pid))
            witness.wait_for(lambda: command("sessions", "--json").json()["watches"])
            (watch,) = command("sessions", "--json").json()["watches"]
            assert watch["holder"] == "record"
            assert "tracked already: by record" in command("arm", made.pid).stderr
        finally:
            recording.send_signal(signal.SIGINT)
        assert recording.wait(60) == 0
