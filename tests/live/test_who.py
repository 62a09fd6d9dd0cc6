"""Who wrote: targets that know which function and thread has written each page."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.attribution.callers import is_call
from pagescan.attribution.writers import WriterWatch
from pagescan.model.errors import NoSuchTargetError
from pagescan.model.writers import WriterReport
from tests.conftest import HERE, PAGE, STRANGER, Result, python_of_all

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
            group=user,
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
def program() -> Iterator[Path]:
    """The compiled target, where another user can run it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "authors"
        source = str(HERE / "targets/authors.c")
        subprocess.run(["cc", "-O2", "-w", "-pthread", "-o", made, source], check=True)
        made.parent.chmod(0o755)
        yield made


@pytest.fixture
def author(program: Path) -> Iterator[Author]:
    author = Author(program)
    yield author
    author.process.kill()
    author.process.communicate()


def command_of(user: int | None = None) -> list[str]:
    python = sys.executable if user is None else str(python_of_all())
    return [python, "-m", "pagescan"]


def rights_of(user: int | None = None) -> dict[str, Any]:
    """Return the arguments for a process of another user, with our modules."""
    if user is None:
        return {}
    paths = os.pathsep.join([str(HERE.parent), *filter(None, map(str, sys.path))])
    env = {**os.environ, "PYTHONPATH": paths, "XDG_RUNTIME_DIR": ""}
    return {"user": user, "group": user, "extra_groups": [], "env": env, "cwd": "/"}


@contextlib.contextmanager
def running_who(
    pid: int, *words: str, user: int | None = None
) -> Iterator[Callable[[], Result]]:
    """Run `who`; yield once it has armed the target, with a function that ends it."""
    more = () if user is None else (user,)
    process = subprocess.Popen(
        [*command_of(*more), "who", str(pid), *words, "-i", "60", "--duration", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **rights_of(*more),
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "sampling the first writes" in line:
            break

    def end() -> Result:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out, "".join(said) + err)

    yield end
    if process.poll() is None:
        process.kill()
        process.communicate()


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


def test_command_names_the_writers(author: Author, pagescan: Run) -> None:
    """The command's JSON is as the schema says; its sums are right."""
    with running_who(author.pid, "--json") as who:
        truth = author.say("again")
        result = who()
    document = result.json()
    (first, *_) = document["writers"]
    assert (first["function"], first["pages"]) == ("by_store", len(truth))
    assert first["threads"] == [
        {"tid": author.pid, "name": "authors", "pages": len(truth)}
    ]
    summary = document["summary"]
    assert sum(row["pages"] for row in document["writers"]) == summary["attributed"]
    missing = summary["kernel_or_other"] + summary["lost"]
    assert summary["attributed"] + missing == summary["written"]
    assert document["cost"]["samples"] >= len(truth)
    assert document["cost"]["estimated_ns_per_write"] > 500
    assert document["regions"] is None


@pytest.mark.parametrize("form", ["firefox", "speedscope", "collapsed"])
def test_profile_for_a_viewer(author: Author, tmp_path: Path, form: str) -> None:
    """The profile has the bytes of the answer, whatever the form of that is."""
    file = tmp_path / "profile"
    with running_who(author.pid, "--json", "--format", form, "-o", str(file)) as who:
        truth = author.say("again")
        result = who()
    written = result.json()["summary"]["written"] * PAGE
    text = file.read_text()
    if form == "collapsed":
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
        assert int(lines["authors;by_store"]) == len(truth) * PAGE
        assert sum(map(int, lines.values())) == written
        return
    document = json.loads(text)
    if form == "speedscope":
        weights = [
            weight for lane in document["profiles"] for weight in lane["weights"]
        ]
    else:
        weights = [w for lane in document["threads"] for w in lane["samples"]["weight"]]
    assert sum(weights) == written
    assert "by_store" in text


def test_a_refused_target_leaves_the_profile(
    pagescan: Run, author: Author, tmp_path: Path
) -> None:
    """An earlier profile is replaced by another one, and by nothing else."""
    file = tmp_path / "profile"
    file.write_text("dear" * 10_000)
    words = ("--format", "collapsed", "-o", str(file), "--duration", "0.2")
    assert pagescan("who", str(author.pid), "no-such-mapping", *words).code == 1
    assert file.read_text() == "dear" * 10_000
    assert pagescan("who", str(author.pid), *words).code == 0
    assert "dear" not in file.read_text()


def test_profile_that_has_no_room(author: Author) -> None:
    with running_who(author.pid, "--format", "firefox", "-o", "/dev/full") as who:
        author.say("again")
        result = who()
    assert result.code == 1
    assert "cannot write /dev/full: no space left" in result.stderr


@pytest.mark.parametrize(
    ("by", "text"),
    [("function", "by_store"), ("thread", "authors/"), ("mapping", "[anon]")],
)
def test_rows(author: Author, by: str, text: str) -> None:
    with running_who(author.pid, "--csv", "--by", by) as who:
        author.say("again")
        head, first, *_ = who().stdout.splitlines()
    assert head == "pages,bytes,share,function,module,threads,mapping"
    assert 500 <= int(first.partition(",")[0]) < 530
    assert text in first


def test_a_thread_has_more_functions_than_the_one_named(author: Author) -> None:
    """The row of a thread names the function that wrote most, and how many wrote."""
    with running_who(author.pid, "--json", "--by", "thread") as who:
        author.say("again")
        rows = who().json()["writers"]
    first = rows[0]
    assert first["function"]
    assert first["function_count"] > 1
    assert all(row["function_count"] >= 1 for row in rows)


def test_pages_have_their_writer(author: Author) -> None:
    with running_who(author.pid, "--json", "--by", "page") as who:
        truth = author.say("again")
        regions = who().json()["regions"]
    found = {
        page: (region["writer"]["function"], region["writer"]["tid"])
        for region in regions
        if region["writer"]
        for page in range(int(region["start"], 16), int(region["end"], 16), PAGE)
    }
    assert {page: found.get(page) for page in truth} == truth


def test_one_in_four(author: Author) -> None:
    """With --sample the shares are right, and no page counts as the kernel's."""
    with running_who(author.pid, "--json", "--sample", "4") as who:
        author.say("again")
        document = who().json()
    assert 100 <= document["writers"][0]["pages"] <= 150
    assert document["writers"][0]["share"] > 0.8
    assert document["summary"]["kernel_or_other"] is None


@pytest.mark.parametrize("pointers", ["", "no-"])
def test_callers(program: Path, pointers: str) -> None:
    """With frame pointers the caller is found; without them nothing false is."""
    made = program.with_name(f"callers{pointers}")
    source = str(HERE / "targets/authors.c")
    flags = ["-fomit-frame-pointer"]
    if not pointers:
        flags = ["-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]
    subprocess.run(
        ["cc", "-O2", "-w", "-pthread", *flags, "-o", made, source], check=True
    )
    author = Author(made)
    try:
        with running_who(author.pid, "--json", "--callers") as who:
            author.say("again")
            first = who().json()["writers"][0]
    finally:
        author.process.kill()
        author.process.communicate()
    assert (first["function"], first["pages"]) == ("by_store", 500)
    truth = ["relay", "main"]
    found = first["callers"][:2]
    assert found == truth if not pointers else found in ([], truth[:1], truth)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("0000e811223344", True),  # call rel32
        ("0000000000ffd0", True),  # call *%rax
        ("00000041ff5424" + "08", True),  # call *8(%rsp,...)
        ("00ff1511223344", True),  # call *0x44332211(%rip)
        ("ff942411223344", True),  # call *0x44332211(%rsp)
        ("00000000ffe000", False),  # jmp *%rax, and something else
        ("0000000000ffe0", False),  # jmp *%rax
        ("90909090909090", False),
    ],
)
def test_calls_are_recognised(code: str, expected: bool) -> None:
    assert is_call(bytes.fromhex(code)[-7:]) is expected


def test_command_and_its_exit_code(pagescan: Run) -> None:
    """The exit code is CMD's; an exec begins with new names."""
    code = "import os; x = [bytearray(4096) for _ in range(3000)]; os._exit(7)"
    result = pagescan("who", "--json", "--", sys.executable, "-c", code)
    assert result.code == 7
    document = result.json()
    assert document["summary"]["written"] > 3000
    assert document["summary"]["attributed"] / document["summary"]["written"] > 0.99


@pytest.mark.needs("stranger")
def test_a_user_sees_writes_in_user_mode(program: Path) -> None:
    """Without privilege the kernel's writes have no writer, and stderr says so."""
    author = Author(program, user=STRANGER)
    try:
        with running_who(author.pid, "--json", user=STRANGER) as who:
            truth = author.say("all")
            result = who()
    finally:
        author.process.kill()
        author.process.communicate()
    assert "only code in user mode" in result.stderr
    document = result.json()
    functions = {row["function"]: row["pages"] for row in document["writers"]}
    assert functions["by_store"] == 500
    assert document["user_only"] is True
    assert 1000 <= document["summary"]["kernel_or_other"] < 1100
    assert len(truth) > 5000


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ((), 2, "TARGET or -- CMD is missing"),
        (("1", "--by", "colour"), 2, "colour"),
        (("1", "--sample", "0"), 2, "0 is not in the range"),
        (("1", "-i", "0"), 2, "0"),
        (("1", "--json", "--csv"), 2, "exclude each other"),
        (("1", "--format", "firefox"), 2, "go together"),
        (("1", "-o", "/tmp/x.json"), 2, "go together"),
        (("1", "--format", "pdf", "-o", "/tmp/x.json"), 2, "pdf"),
        (("1", "--format", "firefox", "-o", "/no/x.json"), 1, "cannot write /no/x"),
        (
            ("1", "--by", "thread", "--format", "firefox", "-o", "/dev/null"),
            2,
            "--by function and --by line",
        ),
        (("1", "--callers", "--by", "page"), 2, "exclude each other"),
        (("4194303",), 3, "4194303"),
        (("--", "no-such-program-1"), 3, "cannot run"),
    ],
)
def test_refusals(pagescan: Run, words: tuple[str, ...], code: int, text: str) -> None:
    result = pagescan("who", *words)
    assert (result.code, text in result.stderr) == (code, True), result.stderr


@pytest.mark.needs("stranger")
def test_pid_0_is_no_process() -> None:
    """It must not mean the process that asks."""
    with pytest.raises(NoSuchTargetError):
        WriterWatch(0)


def test_process_of_another_user(author: Author) -> None:
    """Another user's process is refused, and goes on."""
    words = [*command_of(STRANGER), "who", str(author.pid)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, **rights_of(STRANGER)
    )
    assert (done.returncode, "hint: " in done.stderr) == (4, True), done.stderr
    assert author.say("again")
