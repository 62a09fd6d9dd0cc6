"""Who wrote: targets that know which function and thread has written each page."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.attribution.callers import is_call
from pagescan.attribution.writers import WriterWatch
from pagescan.model.errors import NoSuchTargetError
from pagescan.model.writers import WriterReport
from tests.authors import Author, Truth, compiled_authors, is_right, sampling
from tests.conftest import HERE, PAGE, STRANGER, Result, python_of_all

pytestmark = pytest.mark.needs("tracking")
Run = Callable[..., Result]


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
    words = (*command_of(*more), "who", str(pid), *words, "-i", "60")
    with sampling(*words, "--duration", "100", **rights_of(*more)) as end:
        yield end


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
        {
            "tid": author.pid,
            "name": "authors",
            "pages": len(truth),
            "pid": author.pid,
        }
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
    assert head == "pages,bytes,share,function,module,threads,label,mapping"
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
        (("1", "--sample", "0"), 2, "--sample: not a whole number from 1 to"),
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


LABELLED = """\
import mmap, os, threading, time
fd = os.memfd_create("queue")
os.ftruncate(fd, 1 << 20)
memory = mmap.mmap(fd, 1 << 20)
def fill():
    print("ready", flush=True)
    while True:
        memory[:] = bytes(1 << 20)
        time.sleep(0.1)  # its stack pointer can be read while it sleeps
threading.Thread(target=fill).start()
"""


@pytest.fixture
def labelled() -> Iterator[int]:
    """A program that writes to a memfd, and to a thread's stack."""
    words = [sys.executable, "-c", LABELLED]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


@pytest.mark.parametrize("group", [(), ("--tree",)], ids=["process", "group"])
def test_mappings_have_labels(
    labelled: int, pagescan: Run, group: tuple[str, ...]
) -> None:
    """Rows and pages have the labels that `maps` gives to the same memory."""
    known: set[tuple[str, str | None]] = set()
    who = ("who", labelled, *group, "--duration", 1)
    found: list[tuple[str, str | None]] = []
    for _ in range(20):  # until its thread sleeps when its stack pointer is read
        rows = pagescan(*who, "--by", "mapping", "--json").json()["writers"]
        found = [(row["mapping"], row["label"]) for row in rows]
        assert len(found) == len(set(found)), "two rows for one name and label"
        assert ("/memfd:queue (deleted)", "[memfd queue]") in found
        if any((label or "").startswith("[stack of ") for _, label in found):
            break
    else:
        raise AssertionError(found)
    named = {place for place in found if place[1]}
    for _ in range(20):  # as above
        rows = pagescan("maps", labelled, "--json").json()["mappings"]
        known |= {(row["mapping"], row["label"]) for row in rows}
        if named <= known:
            break
    assert named <= known
    pages = pagescan(*who, "--by", "page", "--json").json()["regions"]
    assert sum(row["pages"] for row in pages if row["label"] == "[memfd queue]") == 256
    csv = pagescan(*who, "--by", "mapping", "--csv").stdout.splitlines()
    assert csv[0].endswith(",threads,label,mapping")
    assert any(",[memfd queue],/memfd:queue (deleted)" in line for line in csv)


def test_labels_of_the_command_are_on_a_terminal(labelled: int) -> None:
    """A table of 80 columns shows the label in place of the name, as `watch` does."""
    words = [*command_of(), "who", str(labelled), "--by", "mapping", "--duration", "1"]
    screen = subprocess.run(
        ["script", "-qec", f"stty cols 80 rows 24; {shlex.join(words)}", "/dev/null"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "[memfd queue]" in screen
    assert max(map(len, screen.splitlines())) <= 80
