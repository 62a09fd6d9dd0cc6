"""`maps` and `scan` at groups: the sum is that of the members found alone."""

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import Target, command

Start = Callable[..., Target]
KINDS = ("m=anon,pages=300", "n=anon,pages=64,fill=1")
COUNTED = ("present", "swapped", "pfnzero", "huge", "guard")


@pytest.fixture
def still(target: Start) -> Iterator[list[Target]]:
    """Four targets that have populated different pages, and stand."""
    targets = [target(*KINDS) for _ in range(4)]
    with contextlib.ExitStack() as undo:
        for index, made in enumerate(targets):
            made.write("m", set(range(0, 300, index + 1)))
        for made in targets:
            undo.enter_context(witness.stopped(made.pid))
        yield targets


def test_maps_of_all_and_of_each(still: list[Target], mkmem: Path) -> None:
    """Every row of a member is there with its pid; private memory adds up."""
    whole = command("maps", "--match", mkmem, "[anon]", "--json").json()
    assert whole["target"] is None
    assert whole["group"] == {"kind": "match", "name": str(mkmem)}
    totals = dict.fromkeys(COUNTED, 0)
    for made in still:
        alone = command("maps", made.pid, "[anon]", "--json").json()
        assert alone["group"] is None
        own = [
            {key: value for key, value in row.items() if key != "pid"}
            for row in whole["mappings"]
            if row["pid"] == made.pid
        ]
        assert own == alone["mappings"]
        (process,) = [
            item for item in whole["processes"] if item["target"] == alone["target"]
        ]
        assert process["summary"]["pages"] == alone["summary"]["pages"]
        for name in COUNTED:
            totals[name] += alone["summary"]["categories"][name]
        low, high = made.ranges["m"]
        pages = len(witness.present(made.pid, low, high))
        assert pages == len(made.expected["m"])
    found = whole["summary"]["categories"]
    assert {name: found[name] for name in COUNTED} == totals


def test_scan_of_all_and_of_each(still: list[Target], mkmem: Path) -> None:
    """The regions are those of each alone; the sum of private memory adds up."""
    words = ("[anon]", "--require", "present", "--return", "present", "--json")
    whole = command("scan", "--match", mkmem, *words).json()
    pages = 0
    for made in still:
        alone = command("scan", made.pid, *words).json()
        own = [
            {key: value for key, value in row.items() if key != "pid"}
            for row in whole["regions"]
            if row["pid"] == made.pid
        ]
        assert own == alone["regions"]
        pages += alone["summary"]["pages"]
    assert whole["summary"]["pages"] == pages
    assert whole["summary"]["regions"] == len(whole["regions"])


SHARING = """
import mmap, os, sys
shared = mmap.mmap(-1, 1 << 20)
shared[:] = b"x" * len(shared)
for _ in range(2):
    if os.fork() == 0:
        shared[: 40 * 4096]  # 40 pages of it are in the child's page table
        os.write(1, b"ready\\n")
        os.read(0, 1)
        os._exit(0)
os.write(1, b"ready\\n")
os.read(0, 1)
"""


@pytest.fixture
def sharing() -> Iterator[int]:
    """The root of a family of three that shares 256 pages."""
    with subprocess.Popen(
        [sys.executable, "-c", SHARING], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("words", [("maps",), ("scan", "--require", "present")])
def test_shared_memory_counts_once(sharing: int, words: tuple[str, ...]) -> None:
    """All three have pages of the same memory: in the sum there are 256."""
    verb, *options = words
    whole = command(verb, "--tree", sharing, "/dev/zero*", *options, "--json").json()
    each = [item["summary"]["categories"]["present"] for item in whole["processes"]]
    assert max(each) == 256
    assert sum(each) > 256 + 2 * 30
    assert whole["summary"]["categories"]["present"] == 256


def test_rows_of_processes(still: list[Target], mkmem: Path) -> None:
    """--by process: a row per process, in each form, sorted as asked."""
    group = ("--match", mkmem, "[anon]")
    result = command("maps", *group, "--by", "process", "--sort", "-present")
    head, *rows = (line.split() for line in result.stdout.splitlines())
    assert head[:3] == ["pid", "name", "present"]
    assert [int(row[0]) for row in rows] == [made.pid for made in still]
    assert rows[0][head.index("written")] == "-"
    found = command("scan", *group, "--by", "process", "--csv").stdout.splitlines()
    assert found[0].startswith("pid,name,pages,bytes")
    assert len(found) == 1 + len(still)
    document = command("maps", *group, "--by", "process", "--json").json()
    assert document["mappings"] == []
    assert len(document["processes"]) == len(still)


def test_rows_have_the_pid(still: list[Target], mkmem: Path) -> None:
    """In CSV and in a pipe each row begins with the pid."""
    group = ("--match", mkmem, "[anon]")
    pids = {made.pid for made in still}
    for verb in ("maps", "scan"):
        head, *rows = command(verb, *group, "--csv").stdout.splitlines()
        assert head.startswith("pid,start")
        assert {int(row.split(",")[0]) for row in rows} == pids
        head, *rows = command(verb, *group).stdout.splitlines()
        assert head.split()[:2] == ["pid", "start"]
        assert {int(row.split()[0]) for row in rows} == pids


def test_a_range_that_one_member_lacks(target: Start, mkmem: Path) -> None:
    """A member without the mapping is left out, with the reason; not the others."""
    lacks, has = target("m=anon,pages=4"), target("m=memfd,pages=4,fill=1")
    result = command("maps", "--match", mkmem, "/memfd*", "--json")
    assert result.code == 0
    document = result.json()
    assert {row["pid"] for row in document["mappings"]} == {has.pid}
    (item,) = document["untracked"]
    assert item["pid"] == lacks.pid
    assert "no mapping is named" in item["why"]
    assert f"left out: {lacks.pid} mkmem: no mapping is named" in result.stderr
    result = command("maps", "--match", mkmem, "/nowhere*")
    assert result.code == 1
    assert "no mapping is named" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("scan", "--match", "x", "--wp"), 2, "--wp does not go with a group"),
        (("scan", "--match", "x", "--wp-only"), 2, "--wp-only does not go with"),
        (("scan", "--match", "x", "--max-pages", "1"), 2, "--max-pages does not go"),
        (("maps", "--match", "x", "--ask-runtime"), 2, "--ask-runtime does not go"),
        (("maps", "1", "--by", "process"), 2, "--by process needs a group"),
        (("scan", "1", "--by", "process"), 2, "--by process needs a group"),
        (("maps", "--unit", "no-such-unit-at-all"), 3, "no process in unit"),
        (("maps", "--tree"), 2, "TARGET is missing"),
        (("scan", "--match", "x", "1"), 2, "--match and TARGET exclude each other"),
    ],
)
def test_refusals(words: tuple[str, ...], code: int, said: str) -> None:
    """Options that a group does not take are refused before anything is read."""
    result = command(*words)
    assert result.code == code, result
    assert said in result.stderr
