"""Profiles of writers: what they hold, and what the real viewers read in them."""

import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import pytest

from pagescan.model.profile import (
    NO_THREAD,
    OTHERS,
    Course,
    Frame,
    Profile,
    Stack,
    ThreadProfile,
    profile_of,
)
from pagescan.model.results import TargetFacts
from pagescan.model.writers import LOST, Writer, WriterReport, WriterThread
from pagescan.render.profiles import FORMATS, write_profile
from tests import witness

PAGE = 4096
TARGET = TargetFacts(42, "redis-server", "/usr/bin/redis-server", 1, PAGE)
MAIN, IO = WriterThread(42, "redis-server", 6), WriterThread(43, "io;thd", 3)


def writer(
    pages: int, function: str | None, *threads: WriterThread, **facts: object
) -> Writer:
    keys: dict[str, object] = {
        "module": "/usr/bin/redis-server",
        "offset": None if function else 0x1234,
        "file": None,
        "line": None,
        **facts,
    }
    return Writer(
        pages,
        pages / 20,
        function,
        function_count=1,
        threads=threads,
        thread_count=len(threads),
        mapping="[heap]",
        mapping_count=1,
        **keys,  # type: ignore[arg-type]
    )


WRITERS = (
    writer(9, "sdsnew", MAIN, IO, callers=("createObject", "main"), file="s.c", line=7),
    writer(5, "dictAdd", WriterThread(42, "redis-server", 2)),
    writer(4, None, WriterThread(43, "io;thd", 4)),
)


@pytest.fixture
def profile() -> Profile:
    report = WriterReport(
        time=datetime(2026, 1, 2, tzinfo=UTC),
        target=TARGET,
        by="function",
        ticks=3,
        written=20,
        attributed=18,
        kernel_or_other=0,
        lost=2,
        ambiguous=0,
        writers=WRITERS,
        runs=(),
        samples=20,
        period=1,
        user_only=False,
        ring_bytes=0,
    )
    return profile_of(report)


def written(profile: Profile, form: str) -> str:
    stream = io.StringIO()
    write_profile(profile, form, stream)
    return stream.getvalue()


def test_every_page_is_in_it(profile: Profile) -> None:
    """Pages of threads that are not listed, and without a writer, are there, too."""
    assert profile.bytes == 20 * PAGE
    sums = {
        (thread.name, thread.tid): sum(stack.bytes for stack in thread.stacks) // PAGE
        for thread in profile.threads
    }
    assert sums == {
        ("redis-server", 42): 8,
        ("io;thd", 43): 7,
        (OTHERS, None): 3,
        (NO_THREAD, None): 2,
    }
    first = profile.threads[0].stacks[0]
    own = Frame("sdsnew", "/usr/bin/redis-server", "s.c", 7)
    assert first == Stack((Frame("main"), Frame("createObject"), own), 6 * PAGE)
    assert profile.threads[-1].stacks == (Stack((Frame(LOST),), 2 * PAGE),)


def test_collapsed(profile: Profile) -> None:
    """One line per stack; a name has no semicolon, since that separates names."""
    lines = written(profile, "collapsed").splitlines()
    assert lines[0] == f"redis-server;main;createObject;sdsnew {6 * PAGE}"
    assert f"io:thd;redis-server+0x1234 {4 * PAGE}" in lines
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == 20 * PAGE


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_written(form: str) -> None:
    """A profile without writers is a valid one."""
    empty = Profile("nothing", datetime(2026, 1, 2, tzinfo=UTC), TARGET, ())
    text = written(empty, form)
    assert form == "collapsed" or json.loads(text)


@pytest.fixture(scope="module")
def viewers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The viewers, as npm has them."""
    folder = tmp_path_factory.mktemp("viewers")
    packages = ["speedscope@1.25.0", "@firefox-devtools/profiler-cli@0.10.0"]
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, *packages], cwd=folder, check=True)
    return folder / "node_modules"


@pytest.mark.needs("npm")
def test_speedscope(profile: Profile, viewers: Path) -> None:
    """By the schema that the viewer ships: bytes, a lane per thread, all weights."""
    (path,) = viewers.glob("speedscope/dist/release/file-format-schema.json")
    document = json.loads(written(profile, "speedscope"))
    jsonschema.Draft7Validator(json.loads(path.read_text())).validate(document)
    lanes = document["profiles"]
    assert {lane["unit"] for lane in lanes} == {"bytes"}
    assert sum(sum(lane["weights"]) for lane in lanes) == 20 * PAGE
    names = document["shared"]["frames"]
    first = [names[at]["name"] for at in lanes[0]["samples"][0]]
    assert first == ["main", "createObject", "sdsnew"]


@pytest.fixture
def firefox(viewers: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The Firefox Profiler without its screen: its process ends with the test."""
    program = viewers / "@firefox-devtools/profiler-cli/dist/profiler-cli.js"
    words = ["env", f"HOME={tmp_path}", "node", str(program)]
    yield words
    subprocess.run([*words, "stop", "--all"], check=False, capture_output=True)


Ask = Callable[..., str]


def loaded(profile: Profile, firefox: list[str], file: Path) -> Ask:
    """Load a profile into the viewer; return a function that asks it."""
    file.write_text(written(profile, "firefox"))
    subprocess.run([*firefox, "load", str(file)], capture_output=True, check=False)

    def ask(*words: str) -> str:
        done = subprocess.run(
            [*firefox, *words], capture_output=True, text=True, check=False
        )
        return done.stdout

    return ask


@pytest.mark.needs("npm", "node")
def test_firefox_reads_the_looks_of_two_processes(
    firefox: list[str], tmp_path: Path
) -> None:
    """A recording's profile has times, several processes, and tracks of bytes."""
    child = TARGET._replace(pid=43, name="child")
    stacks = tuple(Stack((Frame("sdsnew"),), PAGE, at * 1000.0) for at in range(1, 4))
    points = ((1000.0, 8 * PAGE), (2000.0, 9 * PAGE))
    profile = Profile(
        "two",
        datetime(2026, 1, 2, tzinfo=UTC),
        TARGET,
        (
            ThreadProfile("redis-server", 42, stacks, TARGET),
            ThreadProfile("child", 43, stacks[:2], child),
        ),
        tuple(Course("resident", "Resident", one, points) for one in (TARGET, child)),
    )
    ask = loaded(profile, firefox, tmp_path / "profile.json")
    witness.wait_for(lambda: "redis-server" in ask("thread", "list"), 30)
    assert "child" in ask("thread", "list")
    assert f"({3 * PAGE} running samples)" in ask("thread", "samples", "--include-idle")


@pytest.mark.needs("npm", "node")
def test_firefox_profiler(profile: Profile, firefox: list[str], tmp_path: Path) -> None:
    """The viewer's own loader upgrades the file, and sums up the same bytes."""
    ask = loaded(profile, firefox, tmp_path / "profile.json")
    witness.wait_for(lambda: "redis-server" in ask("thread", "list"), 30)
    listed = ask("thread", "list")
    assert len(re.findall(r"^\*? +t-\d", listed, re.MULTILINE)) == 4
    samples = ask("thread", "samples", "--include-idle")
    assert f"({8 * PAGE} running samples)" in samples  # all bytes of the thread
    assert "redis-server!sdsnew - self: 24.6KB (75.0%)" in samples
    assert "redis-server!dictAdd - self: 8,192B (25.0%)" in samples
    assert "main - total: 24.6KB (75.0%)" in samples
