"""Writers that are hard to tell: lost samples, shared and huge memory, lines, a JVM."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.attribution import samples
from pagescan.attribution.jit_maps import ask_java
from pagescan.attribution.samples import FaultSampler
from pagescan.attribution.writers import WriterWatch
from pagescan.model.writers import WriterReport
from tests import machine
from tests.authors import Author, Truth, ended_authors, is_right, sampling
from tests.conftest import HERE, PAGE, checked

pytestmark = [pytest.mark.needs("tracking", "root")]
Start = Callable[..., Author]
SOURCE = HERE / "targets/authors.c"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Compile the target, with more flags, and start it."""
    with ended_authors() as begin:

        def compiled(*flags: str) -> Author:
            program = tmp_path / "authors"
            words = [
                "cc",
                "-O2",
                "-w",
                "-pthread",
                *flags,
                "-o",
                str(program),
                str(SOURCE),
            ]
            subprocess.run(words, check=True)
            return begin(program)

        yield compiled


def wrong(truth: Truth, report: WriterReport) -> dict[int, Any]:
    """Return the pages whose writer is not the true one."""
    found = {
        page: (str(run.writer.function), run.writer.threads[0].tid)
        for run in report.runs
        if run.writer is not None
        for page in range(run.start, run.end, PAGE)
    }
    return {
        page: (writer, found.get(page))
        for page, writer in truth.items()
        if page not in found or not is_right(writer, found[page], user=False)
    }


# ---- lost samples ------------------------------------------------------------------


@pytest.fixture
def tiny_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings with room for some hundred samples, which no thread empties."""
    monkeypatch.setattr(samples, "RING_BYTES", PAGE)
    monkeypatch.setattr(samples, "DRAIN_SECONDS", 1000)


def faults_of(pid: int) -> int:
    """Return the page faults of a process, minor and major, as the kernel counts."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


@pytest.mark.usefixtures("tiny_rings")
def test_lost_samples_are_counted(start: Start) -> None:
    """The samples that came and those that were lost are all page faults.

    No thread begins here: the kernel counts lost records of threads as lost, too.
    """
    author = start()
    with FaultSampler([author.pid], children=False) as sampler:
        before = faults_of(author.pid)
        for _ in range(5):
            author.say("shared")
        after = faults_of(author.pid)
        taken = sum(map(len, sampler.take()))
        assert sampler.ring_bytes == PAGE
        assert taken > 0
        assert sampler.lost > 1000
        # Under load the kernel may handle a fault twice, and count it once.
        assert 0 <= taken + sampler.lost - (after - before) <= 2


@pytest.mark.usefixtures("tiny_rings")
def test_pages_whose_sample_is_lost(start: Start) -> None:
    """They are in a row of their own, and no other page is."""
    author = start()
    with (
        WriterWatch(author.pid, by="page") as writers,
        pagescan.track(author.pid) as tracking,
    ):
        writers.follow(tracking)
        writers.look()
        before = writers.report()
        truth = author.say("again")
        writers.look()
        report = writers.report()
    written = report.written - before.written
    attributed = report.attributed - before.attributed
    assert len(truth) <= written < len(truth) + 50
    assert 0 < attributed < 300
    assert report.lost is not None
    assert before.lost is not None
    assert report.lost - before.lost == written - attributed
    assert report.kernel_or_other == before.kernel_or_other
    missed = {page for page, found in wrong(truth, report).items() if found[1] is None}
    assert missed == wrong(truth, report).keys()
    assert dict(report.fixed_rows)["(lost)"] == report.lost


LOSING = """
import sys
from pagescan.attribution import samples
samples.RING_BYTES, samples.DRAIN_SECONDS = 4096, 1000
from pagescan.cli import run
sys.argv = ["pagescan", "who", *sys.argv[1:]]
sys.exit(run())
"""


def test_the_row_of_lost_samples(start: Start) -> None:
    """The command shows it, behind all writers, and the last line says how many."""
    author = start()
    with sampling(sys.executable, "-c", LOSING, str(author.pid), "-i", "60") as who:
        author.say("again")
        result = who()
    assert result.code == 0
    last = result.stdout.splitlines()[-1]
    assert " (lost)" in last, result.stdout
    pages = int(last.split()[0])
    assert 100 < pages < 700
    assert f"samples of up to {pages} pages were lost" in result.stderr


def test_lost_samples_of_a_group(start: Start, tmp_path: Path) -> None:
    """They are divided among the members, and none counts twice."""
    author = start()
    other = Author(tmp_path / "authors")
    words = ("--match", str(tmp_path / "authors"), "-i", "60", "--json")
    try:
        with sampling(sys.executable, "-c", LOSING, *words) as who:
            author.say("again")
            other.say("again")
            summary = checked(who().stdout)["summary"]
    finally:
        other.process.kill()
        other.process.communicate()
    assert 200 < summary["lost"] < 1400
    sums = summary["attributed"] + summary["lost"] + summary["kernel_or_other"]
    assert sums == summary["written"]
    assert summary["kernel_or_other"] == 0


# ---- shared and huge memory --------------------------------------------------------


def test_shared_memory_without_a_file(start: Start) -> None:
    """Anonymous shared memory, and that of System V, have their true writers."""
    author = start()
    with (
        WriterWatch(author.pid, by="page") as writers,
        pagescan.track(author.pid) as tracking,
    ):
        writers.follow(tracking)
        truth = author.say("shared")
        writers.look()
        report = writers.report()
    assert len(truth) == 1000
    assert wrong(truth, report) == {}


@pytest.mark.needs("hugetlb")
def test_hugetlb(start: Start) -> None:
    """One store writes a huge page: all its pages have that writer."""
    with machine.huge_pages(2):
        author = start()
        with (
            WriterWatch(author.pid, by="page") as writers,
            pagescan.track(author.pid) as tracking,
        ):
            writers.follow(tracking)
            truth = author.say("hugetlb")
            writers.look()
            report = writers.report()
        author.process.kill()
        author.process.wait()
    assert len(truth) == 1024
    assert wrong(truth, report) == {}


# ---- lines, and a JVM --------------------------------------------------------------


@pytest.mark.needs("symbolic")
def test_lines(start: Start) -> None:
    """A row is a line of the source, where the program has debug information."""
    lines = SOURCE.read_text().splitlines()
    (number,) = (at for at, line in enumerate(lines, 1) if "void by_store(byte" in line)
    author = start("-g")
    words = ("-m", "pagescan", "who", str(author.pid), "-i", "60", "--by", "line")
    with sampling(sys.executable, *words, "--json") as who:
        truth = author.say("again")
        first = checked(who().stdout)["writers"][0]
    assert first["pages"] == len(truth)
    assert first["function"] == "by_store"
    assert Path(first["file"]).name == "authors.c"
    assert first["line"] == number


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled class."""
    folder = tmp_path_factory.mktemp("java")
    source = str(HERE / "targets/Calling.java")
    subprocess.run(["javac", "-d", str(folder), source], check=True)
    return folder


@pytest.mark.needs("java", "jcmd")
@pytest.mark.parametrize("pointers", ["+", "-"])
def test_callers_in_a_jvm(calling: Path, pointers: str) -> None:
    """With frame pointers the callers are found; without them no false one is."""
    words = ["java", f"-XX:{pointers}PreserveFramePointer", "-Xmx64m"]
    # The JVM waits for its compiler: on a busy machine that may be late.
    words += ["-XX:+UseSerialGC", "-XX:CompileCommand=quiet", "-Xbatch"]
    for name in ("inner", "outer"):
        words.append(f"-XX:CompileCommand=dontinline,Calling::{name}")
    process = subprocess.Popen(
        [*words, "-cp", str(calling), "Calling"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        options = ("--callers", "--ask-runtime", "--json", "-i", "0.2")
        who = [sys.executable, "-m", "pagescan", "who", str(process.pid), *options]
        done = subprocess.run(
            [*who, "--duration", "1"],
            capture_output=True,
            text=True,
            check=True,
            cwd=HERE.parent,
        )
    finally:
        process.kill()
        process.communicate()
    rows = [
        row
        for row in json.loads(done.stdout)["writers"]
        if row["function"] and "Calling.inner" in row["function"]
    ]
    assert sum(row["pages"] for row in rows) > 2048
    callers = rows[0]["callers"]
    if pointers == "+":
        assert "Calling.outer" in callers[0]
    for row in rows:
        outer, main = (*row["callers"], "Calling.outer", "Calling.main")[:2]
        assert "Calling.outer" in outer, row["callers"]
        # Until main() itself has been compiled, the interpreter runs it.
        assert "Calling.main" in main or main == "Interpreter", row["callers"]


CATCHES = """
import signal, sys
signal.signal(signal.SIGQUIT, lambda *_: sys.exit("SIGQUIT"))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.mark.needs("jcmd")
def test_only_a_jvm_is_asked() -> None:
    """A program that catches SIGQUIT for another purpose, as Go does, gets none."""
    process = subprocess.Popen(
        [sys.executable, "-c", CATCHES],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert ask_java(process.pid) == f"{process.pid} is not a Java virtual machine"
        assert process.poll() is None
        process.send_signal(signal.SIGQUIT)  # this ends it
        assert "SIGQUIT" in process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.wait()
