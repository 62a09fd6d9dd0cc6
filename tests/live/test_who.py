"""Who wrote: targets that know which function and thread has written each page."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.attribution.writers import WriterWatch
from pagescan.model.writers import WriterReport
from tests.conftest import HERE, PAGE, Result

pytestmark = pytest.mark.needs("tracking")
Run = Callable[..., Result]
Truth = dict[int, tuple[str, int]]
"""The function and the thread, by page."""


class Author:
    """A process of authors.c."""

    def __init__(self, program: Path, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=user,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def say(self, line: str) -> Truth:
        """Let it write; return who has written each page, as it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        truth: Truth = {}
        for answer in self.process.stdout:
            if answer == "done\n":
                break
            address, pages, tid, function = answer.split()
            for page in range(int(pages)):
                truth[int(address, 16) + page * PAGE] = function, int(tid)
        return truth


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("authors") / "authors"
    source = str(HERE / "targets/authors.c")
    subprocess.run(["cc", "-O2", "-w", "-pthread", "-o", made, source], check=True)
    made.chmod(0o755)
    for folder in made.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o011)
    return made


@pytest.fixture
def author(program: Path) -> Iterator[Author]:
    author = Author(program)
    yield author
    author.process.kill()
    author.process.communicate()


def writers_of(report: WriterReport) -> Truth:
    """Return the reported function and thread, by page; "" without a writer."""
    found: Truth = {}
    for run in report.runs:
        writer = run.writer
        function = "" if writer is None else str(writer.function)
        thread = 0 if writer is None else writer.threads[0].tid
        for page in range(run.start, run.end, PAGE):
            found[page] = function, thread
    return found


def is_right(truth: tuple[str, int], found: tuple[str, int], *, user: bool) -> bool:
    """Whether a reported writer is the true one, or rightly none."""
    function, tid = truth
    if function == "(other)" or (user and function == "(kernel)"):
        return found == ("", 0)
    if function == "(kernel)":  # some function of the kernel, for this thread
        return found[0] != "" and found[1] == tid
    if function == "memset":
        return "memset" in found[0] and found[1] == tid
    return found == truth


@pytest.mark.needs("root", "thp")
@pytest.mark.parametrize("user", [False, True])
def test_every_way_to_write(author: Author, user: bool) -> None:
    """Each page has its true writer; those without one are in the fixed rows."""
    with (
        WriterWatch(author.pid, by="page", user_only=user) as writers,
        pagescan.track(author.pid) as tracking,
    ):
        writers.follow(tracking)
        truth = author.say("all")
        writers.look()
        truth |= author.say("again")
        writers.look()
        report = writers.report()
    found = writers_of(report)
    wrong = {
        page: (writer, found.get(page))
        for page, writer in truth.items()
        if page not in found or not is_right(writer, found[page], user=user)
    }
    assert wrong == {}
    nobody = sum(writer == ("", 0) for writer in found.values())
    missing = report.written - report.attributed
    assert (report.kernel_or_other, report.lost) == (missing, 0)
    assert nobody <= missing < (1000 if user else 500) + 60  # of two looks


@pytest.mark.needs("root")
def test_short_threads(author: Author) -> None:
    """Each of 20,000 threads that live for a moment is found, and nothing is lost."""
    with (
        WriterWatch(author.pid, by="page") as writers,
        pagescan.track(author.pid) as tracking,
    ):
        writers.follow(tracking)
        truth: Truth = {}
        for count in range(2000, 20001, 2000):
            truth |= author.say(f"storm {count}")
            writers.look()
        report = writers.report()
    found = writers_of(report)
    wrong = {page: found.get(page) for page in truth if found.get(page) != truth[page]}
    assert len(truth) >= 160_000
    assert wrong == {}
    assert report.lost == 0
    assert report.kernel_or_other == 0
