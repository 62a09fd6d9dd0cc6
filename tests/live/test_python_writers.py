"""who --python: Python programs that know which function has written each page."""

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan.attribution.writers import WriterWatch
from pagescan.model.writers import WriterReport
from tests.conftest import HERE, PAGE, STRANGER, command, python_of_all
from tests.pythons import VERSIONS, Scribe, interpreter, interpreters, scribe

pytestmark = pytest.mark.needs("tracking", "root")
_Answer = Counter[tuple[str, str | None, str | None]]
"""Pages by the function that has written, the function in the report, and how it was
found."""


def answers(report: WriterReport, truth: dict[str, list[tuple[int, int]]]) -> _Answer:
    """Return what a report says of the pages whose function is known."""
    page_of = {
        page: name
        for name, ranges in truth.items()
        for first, end in ranges
        for page in range(first // PAGE, -(-end // PAGE))
    }
    found: _Answer = Counter()
    for run in report.runs:
        for page in range(run.start // PAGE, run.end // PAGE):
            if page in page_of and run.writer is not None:
                found[page_of[page], run.writer.function, run.writer.python] += 1
    return found


def watched(target: Scribe, rounds: int) -> _Answer:
    """Return the answers about some rounds of a target."""
    found: _Answer = Counter()
    with (
        WriterWatch(target.pid, by="page", python=True) as writers,
        pagescan.track(target.pid) as tracking,
    ):
        writers.check_python()
        writers.follow(tracking)
        writers.look()
        for _ in range(rounds):
            target.go_on()
            writers.look()
            found += answers(writers.report(), target.truth)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_function_is_right(version: str) -> None:
    """No page has a wrong function; nearly all have one, in each version."""
    with scribe(interpreter(version)) as target:
        found = watched(target, 10)
    named = {key: pages for key, pages in found.items() if key[2] is not None}
    assert [key for key in named if key[0] != key[1]] == []
    assert {how for _, _, how in named} == {"likely"}
    assert sum(named.values()) > 0.95 * sum(found.values())
    assert {name for name, _, _ in named} == target.truth.keys()


@pytest.mark.parametrize("version", VERSIONS[1:])
def test_perf_support_is_exact(version: str) -> None:
    """With -X perf CPython names its functions itself, and all are found.

    CPython 3.13 runs some __init__ in the frame of the caller: the stack tells them.
    The line is shown only if the stack tells the same function.
    """
    with (
        scribe(interpreter(version), "-X", "perf") as target,
        WriterWatch(target.pid, by="page", python=True) as writers,
        pagescan.track(target.pid) as tracking,
    ):
        writers.follow(tracking)
        for _ in range(5):
            target.go_on()
            writers.look()
        report = writers.report()
    found = answers(report, target.truth)
    named = {key: pages for key, pages in found.items() if key[2] is not None}
    assert [key for key in named if key[0] != key[1]] == []
    assert {name for name, _, how in named if how == "likely"} <= {"Made.__init__"}
    assert sum(named.values()) > 0.95 * sum(found.values())
    exact = [run.writer for run in report.runs if run.writer and run.writer.python]
    assert sum(writer.line is not None for writer in exact) > 0.8 * len(exact)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_return_writes_is_not_of_the_last_call(version: str) -> None:
    """The stack still has the instruction of a function that has returned.

    `holder` gives up its references when it returns, right after a call of `wait`.
    """
    found: _Answer = Counter()
    with (
        scribe(interpreter(version), mode="late") as target,
        WriterWatch(target.pid, by="page", python=True) as writers,
        pagescan.track(target.pid) as tracking,
    ):
        writers.follow(tracking)
        target.line()
        writers.look()
        for _ in range(10):
            target.go_on()
            writers.look()
            found += answers(writers.report(), target.truth)
    names = {name for _, name, how in found if how is not None}
    assert names <= {"holder", "take"}
    assert sum(found.values()) >= 10 * 198


FILL = """
import sys
def fill():
    return [bytearray(9000) for _ in range(1000)]
print("ready", flush=True)
for _ in range(int(sys.argv[1])):
    fill()
"""


def test_a_command_that_becomes_python_later(tmp_path: Path) -> None:
    """Who -- CMD names the functions, and the summary counts them."""
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    words = ("sh", "-c", 'exec "$@"', "sh", interpreter("3.11"), script, 200)
    options = ("--python", "--json", "-i", "0.1")
    done = command("who", *options, "--", *words)
    assert done.code == 0, done.stderr
    document = done.json()
    rows = [row for row in document["writers"] if row["python"]]
    assert {row["python"] for row in rows} == {"likely"}
    (row, *_) = [row for row in rows if row["function"].startswith("fill")]
    assert (row["module"], row["line"]) in ((str(script), 3), (str(script), 4))
    assert document["summary"]["python"]["likely"] > 500
    assert document["summary"]["python"]["exact"] == 0
    assert "were written in a known function of Python: likely" in done.stderr


FORKS = """
import os, sys
def of_child(number):
    return [bytearray(9000) for _ in range(1000)]
def of_parent():
    return [bytearray(9000) for _ in range(1000)]
pids = [os.fork() for _ in range(1)]
if 0 not in pids:
    print("ready", flush=True)
while True:
    of_child(1) if 0 in pids else of_parent()
"""


@contextlib.contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program that prints a line when it is ready; end its whole group."""
    process = subprocess.Popen(
        [*map(str, words)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_each_process_of_a_group(tmp_path: Path) -> None:
    """Who --tree names the functions of parent and child."""
    script = tmp_path / "forks.py"
    script.write_text(FORKS)
    with running(interpreter("3.13"), script) as parent:
        done = command(
            *("who", "--tree", parent.pid, "--python", "--json", "-i", "0.2"),
            *("--duration", "2"),
        )
    assert done.code == 0, done.stderr
    rows = {row["function"]: row for row in done.json()["writers"] if row["python"]}
    assert rows["of_parent"]["pid"] == parent.pid
    assert rows["of_child"]["pid"] not in (parent.pid, None)


def test_rows_and_profile_of_functions(tmp_path: Path) -> None:
    """The table shows where a function begins; a profile has it as a frame."""
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    profile = tmp_path / "profile.txt"
    with running(interpreter("3.13"), script, 10**9) as process:
        done = command(
            *("who", process.pid, "--python", "-i", "0.2", "--duration", "1"),
            *("--format", "collapsed", "-o", profile),
        )
    assert done.code == 0, done.stderr
    assert re.search(r" fill +\S*fill.py:3 ", done.stdout)
    assert re.search(r";fill \d+$", profile.read_text(), re.MULTILINE)


def test_no_python_is_refused() -> None:
    """A TARGET without a CPython gets an error that tells what can be read."""
    with running("sh", "-c", "echo ready; exec sleep 1000") as process:
        done = command("who", process.pid, "--python")
    assert done.code == 3
    assert f"process {process.pid} is no CPython" in done.stderr
    assert "CPython 3.11 to 3.13" in done.stderr


def test_another_version_is_refused() -> None:
    """So does an older CPython."""
    older = [version for version in interpreters() if version not in VERSIONS]
    if not older:
        pytest.skip("no other version of CPython is found")
    script = "import signal; print('ready', flush=True); signal.pause()"
    with running(interpreters()[older[0]], "-c", script) as process:
        done = command("who", process.pid, "--python", "--json")
    assert done.code == 3
    assert "whose functions cannot be read" in done.error()["error"]


@pytest.mark.needs("stranger")
def test_memory_that_cannot_be_read() -> None:
    """The error says whose memory it is, and which call was refused."""
    code = """
import sys
from pagescan.attribution.python_frames import PythonFrames
try:
    PythonFrames().add(int(sys.argv[1]))
except PermissionError as error:
    print(error.pid, error.call, error.errno)
"""
    python = [str(python_of_all()), "-c", code, str(os.getpid())]
    paths = os.pathsep.join([str(HERE.parent), *filter(None, map(str, sys.path))])
    done = subprocess.run(
        python,
        capture_output=True,
        text=True,
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": paths},
        cwd="/",
        check=False,
    )
    assert done.stdout.split() == [str(os.getpid()), "open", str(errno.EACCES)], done
