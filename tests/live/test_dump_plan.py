"""Checkpoints: images made from plans alone equal the memory of the process."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagescan.session.lookup import find_session
from pagescan.session.opened import open_session
from tests import machine, witness
from tests.conftest import (
    HERE,
    PAGE,
    Result,
    Target,
    checked,
    command,
    runs,
    session_files,
)

pytestmark = pytest.mark.needs("tracking")

Start = Callable[..., Target]

EPOCHS = 10


def memory(pid: int) -> dict[int, bytes]:
    """Return the pages that an image must have, by address: the second witness.

    These are populated private pages, without the pages of files.
    """
    pages: dict[int, bytes] = {}
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, perms, *rest = line.split()
        name = rest[3] if len(rest) > 3 else ""
        if perms[3] == "s" or name.startswith(("[vvar", "[vdso", "[vsyscall")):
            continue
        start, end = (int(word, 16) for word in span.split("-"))
        for index, word in enumerate(witness.words(pid, start, end)):
            if not word & (witness.PRESENT | witness.SWAPPED):
                continue
            if word & (witness.FILE | witness.GUARD) or witness.is_marker(word):
                continue
            pages[start + index * PAGE] = os.pread(fd, PAGE, start + index * PAGE)
    os.close(fd)
    return pages


def consume(
    folder: Path, pid: int, form: str, *words: str, kill: float | None = None
) -> bool:
    """Make one image in a consumer; `kill`: kill it after that many seconds.

    Returns:
        Whether the consumer finished.
    """
    script = HERE / "targets/consumer.py"
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(pid), form, *words],
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    try:
        _, said = process.communicate(timeout=kill if kill is not None else 60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and the command that it runs
        process.communicate()
        assert kill is not None
        return False
    assert process.returncode == 0, said.decode()
    return True


def current(folder: Path) -> dict[str, Any]:
    """Return the consumer's epoch and image, and how many images it has made."""
    found: dict[str, Any] = pickle.loads((folder / "current").read_bytes())
    return found


RANGES = (
    "anon=anon,pages=512,fill=1",
    "holes=anon,pages=512",
    "thp=thp,pages=1024,fill=1",
    "sparse=sparse,gb=2",
    "reserve=reserve,gb=1",
    "shared=shmem,pages=64,fill=1",
)


def some(chance: random.Random, pages: int, most: int) -> str:
    """Return random pages in the target's notation."""
    return runs({chance.randrange(pages) for _ in range(chance.randint(1, most))})


def disturb(made: Target, chance: random.Random) -> None:
    """Make the target change its memory."""
    sizes = {"anon": 512, "holes": 512, "thp": 1024, "file": 128}
    for _ in range(chance.randint(1, 8)):
        name = chance.choice(list(sizes))
        pages = some(chance, sizes[name], 40)
        verb = chance.choices(
            ("write", "kread", "read", "dontneed", "zero", "none", "again", "mremap"),
            (10, 3, 3, 3, 2, 1, 1, 1),
        )[0]
        if verb == "none":
            low = chance.randrange(sizes[name] - 4)
            made.tell(f"write {name} {low}-{low + 3}")
            made.tell(f"none {name} {low}-{low + 3}")
            if chance.random() < 0.7:
                made.tell(f"rw {name} {low}-{low + 3}")
            else:
                made.tell(f"munmap {name} {low}-{low + 3}")
                made.tell(f"again {name}")
        elif verb in ("again", "mremap"):
            made.tell("again holes" if verb == "again" else "mremap anon move")
        else:
            made.tell(f"{verb} {name} {pages}")
    low = chance.randrange(1 << 18)
    made.tell(f"write sparse {low}-{low + 2}")
    made.tell(f"rw reserve {low}-{low + 1}")
    made.tell(f"write reserve {low}-{low + 1}")
    made.tell(f"write shared {chance.randrange(64)}")
    if chance.random() < 0.3:
        half = chance.choice((0, 512))
        made.tell(f"zero thp {half}-{half + 511}")


@pytest.fixture
def busy(armed: Start, tmp_path: Path) -> Target:
    """An armed target with every kind of private memory."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(128 * PAGE))
    return armed(*RANGES, f"file=file,pages=128,file={file}")


@pytest.mark.parametrize(("form", "seed"), [("json", 2), ("binary", 3)])
@pytest.mark.timeout(240)
def test_ten_epochs_with_a_consumer_that_is_killed(
    busy: Target, tmp_path: Path, form: str, seed: int
) -> None:
    """The last image equals the memory byte by byte, whichever process was killed."""
    folder = tmp_path / "images"
    folder.mkdir()
    chance = random.Random(seed)
    begun = time.monotonic()
    assert consume(folder, busy.pid, form)
    takes = time.monotonic() - begun  # so that kills hit all of its phases
    done = killed = 0
    while done < EPOCHS or not killed:
        disturb(busy, chance)
        kill = chance.uniform(0, takes) if chance.random() < 0.6 else None
        words = ("--ack",) if chance.random() < 0.5 else ()
        if consume(folder, busy.pid, form, *words, kill=kill):
            done += 1
        else:
            killed += 1
        if chance.random() < 0.2:
            command("diff", busy.pid, "--rearm", "-q")
        if chance.random() < 0.1:
            command("scan", busy.pid, "--require", "written", "--wp-only", "-q")
    disturb(busy, chance)
    with witness.stopped(busy.pid):
        assert consume(folder, busy.pid, form)
        image, truth = current(folder)["image"], memory(busy.pid)
    assert image.keys() == truth.keys()
    wrong = [hex(at) for at in truth if image[at] != truth[at]]
    assert wrong == []


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_every_form_follows_the_schema(busy: Target, form: str) -> None:
    """A complete plan, the first of a chain and the next follow the schema."""
    for words in ((), ("--epoch", 0), ("--epoch", 1)):
        said = command("dump-plan", busy.pid, *words, form)
        assert said.code == 0, said.stderr
        documents = [said.stdout] if form == "--json" else said.stdout.splitlines()
        assert all(checked(text) for text in documents)


def regions_of(result: Result) -> dict[int, str]:
    """Return the action for each page."""
    return {
        at: one["plan"]
        for one in result.json()["regions"]
        for at in range(int(one["start"], 16), int(one["end"], 16), PAGE)
    }


def take(pid: int, epoch: int) -> Result:
    result = command("dump-plan", pid, "--epoch", epoch, "--json")
    assert result.code == 0, result.stderr
    return result


def dumped(made: Target, result: Result, name: str = "m") -> set[int]:
    low, high = made.ranges[name]
    plan = regions_of(result)
    return {
        (at - low) // PAGE for at in range(low, high, PAGE) if plan.get(at) == "dump"
    }


def test_full_plan_needs_no_session(target: Start) -> None:
    made = target("m=anon,pages=8", "s=shmem,pages=8,fill=1")
    made.tell("write m 1-2")
    made.tell("read m 5")
    result = command("dump-plan", made.pid, "--json")
    low, _ = made.ranges["m"]
    plan = regions_of(result)
    assert {page: plan.get(low + page * PAGE) for page in range(8)} == {
        0: None, 1: "dump", 2: "dump", 3: None, 4: None, 5: "zero", 6: None, 7: None,
    }  # fmt: skip
    document = result.json()
    assert (document["epoch"], document["parent"], document["session"]) == (None,) * 3
    shared, _ = made.ranges["s"]
    assert shared not in plan
    assert hex(shared) in {item["start"] for item in document["left_out"]}
    assert witness.registered(made.pid) == 0


def test_unacknowledged_is_merged(armed: Start) -> None:
    """Pages of an unacknowledged plan or diff --rearm are in the next plan."""
    made = armed("m=anon,pages=16,fill=1")
    assert take(made.pid, 0).json()["epoch"] == 1
    made.tell("write m 1")
    assert dumped(made, take(made.pid, 1)) == {1}  # epoch 2, lost
    made.tell("write m 2")
    assert command("diff", made.pid, "--rearm").code == 0  # epoch 3
    made.tell("write m 3")
    low, _ = made.ranges["m"]
    words = ("scan", made.pid, f"{low}+{8 * PAGE}", "--require", "written", "--wp")
    assert command(*words).code == 0
    last = take(made.pid, 1)
    assert dumped(made, last) == {1, 2, 3}
    assert (last.json()["epoch"], last.json()["parent"]) == (5, 1)
    made.tell("write m 4")
    assert dumped(made, take(made.pid, 2)) == {1, 2, 3, 4}  # an older one: a superset
    assert dumped(made, take(made.pid, 6)) == set()


def test_partial_protection_after_a_plan(armed: Start) -> None:
    """Pages that scan --wp protected after a plan stay in the chain."""
    made = armed("m=anon,pages=16,fill=1")
    take(made.pid, 0)
    made.tell("write m 7")
    words = ("scan", made.pid, "--require", "written", "--wp-only")
    assert command(*words).code == 0
    assert command("dump-plan", made.pid, "--ack", 1).code == 0
    assert command("changed", made.pid).code == 0
    assert 7 in dumped(made, take(made.pid, 1))


def test_refusals(armed: Start) -> None:
    made = armed("m=anon,pages=16,fill=1")
    take(made.pid, 0)
    result = command("dump-plan", made.pid, "--epoch", 9)
    assert result.code == 1
    assert "no plan of epoch 9" in result.stderr
    assert "hint: " in result.stderr
    assert take(made.pid, 1).json()["parent"] == 1  # and the chain goes on
    assert command("dump-plan", made.pid, "--ack", 2).code == 0
    stale = take(made.pid, 1)
    assert stale.json()["parent"] is None
    assert "this plan is complete" in stale.stderr
    assert command("dump-plan", made.pid, "--ack", 2).code == 0  # that image is stored
    assert dumped(made, take(made.pid, 2)) == set(range(16))
    assert command("dump-plan", made.pid, "--ack", 1, "--epoch", 1).code == 2
    assert command("dump-plan", made.pid, "--binary", "--json").code == 2
    with_none = command("dump-plan", os.getpid(), "--epoch", 0)
    assert (with_none.code, "no session" in with_none.stderr) == (1, True)


def test_binary_is_nothing_for_a_terminal(target: Start) -> None:
    made = target("m=anon,pages=16,fill=1")
    screen, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pagescan", "dump-plan", str(made.pid), "--binary"],
            stdout=terminal,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(screen)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 2)


@pytest.mark.parametrize("damage", ["remove", "cut", "flip"])
def test_lost_list(armed: Start, damage: str) -> None:
    made = armed("m=anon,pages=16,fill=1")
    take(made.pid, 0)
    made.tell("write m 1")
    take(made.pid, 1)
    (path,) = [
        Path(one) for one in session_files() if one.endswith(f"/{made.pid}.pages")
    ]
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-16])
    else:
        data[60] ^= 0x10
        path.write_bytes(data)
    assert command("changed", made.pid).code == 0
    after = take(made.pid, 1)
    assert after.json()["parent"] is None
    assert "no longer known" in after.stderr
    assert dumped(made, after) == set(range(16))


def test_files_go_with_the_session(armed: Start) -> None:
    made = armed("m=anon,pages=16,fill=1")
    take(made.pid, 0)
    assert command("disarm", made.pid).code == 0
    assert not [one for one in session_files() if f"/{made.pid}." in one]


def test_changed(armed: Start) -> None:
    """Exit code 0 if written, 1 if not; nothing changes and nothing is printed."""
    made = armed("m=anon,pages=4096,fill=1")
    command("diff", made.pid, "--rearm")
    assert command("changed", made.pid) == Result(1, "", "")
    made.tell("write m 4000")
    assert command("changed", made.pid) == Result(0, "", "")
    assert command("changed", made.pid).code == 0
    take(made.pid, 0)
    assert command("changed", made.pid).code == 0  # no image has it yet
    assert command("changed", made.pid, "--epoch", 2).code == 1
    made.tell("write m 1")
    take(made.pid, 2)
    assert command("changed", made.pid).code == 0  # in epoch 3, without an image
    assert command("dump-plan", made.pid, "--ack", 3).code == 0
    quiet = command("changed", made.pid, "-v")
    assert (quiet.code, "nothing was written" in quiet.stderr) == (1, True)
    made.tell("map k=anon,pages=4,fill=1")
    assert command("changed", made.pid).code == 0


def test_changed_fails_with_two(armed: Start) -> None:
    """Failures exit with 2, because 1 means that nothing was written."""
    made = armed("m=anon,pages=16,fill=1")
    assert command("changed", os.getpid()).code == 2
    assert command("changed", made.pid, "--epoch", 7).code == 2
    sessions = command("sessions", "--json").json()["sessions"]
    (keeper,) = [one["keeper_pid"] for one in sessions if one["name"] == str(made.pid)]
    os.kill(keeper, signal.SIGKILL)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{keeper}"))
    for _ in range(2):
        lost = command("changed", made.pid)
        assert lost.code == 2


def test_dropped_copy_of_a_file(armed: Start, tmp_path: Path) -> None:
    """A dropped private copy leaves a marker like swap: it is planned, not kept."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(16 * PAGE))
    made = armed(f"m=file,pages=16,file={file}")
    made.tell("write m 3-4")
    assert dumped(made, take(made.pid, 0)) == {3, 4}
    made.tell("dontneed m 3")
    low, _ = made.ranges["m"]
    plan = regions_of(take(made.pid, 1))
    assert plan.get(low + 3 * PAGE) in (None, "dump")
    assert plan[low + 4 * PAGE] == "keep"


def test_death_between_protecting_and_commit(armed: Start) -> None:
    """The list of protected pages is lost: no earlier epoch can be a parent."""
    made = armed("m=anon,pages=16,fill=1")
    take(made.pid, 0)
    assert command("dump-plan", made.pid, "--ack", 1).code == 0
    made.tell("write m 3")
    with open_session(find_session(made.pid), rearm=True) as session:
        session.tracking.look(rearm=True)  # and disconnects
    assert command("changed", made.pid).code == 0
    after = take(made.pid, 1)
    assert after.json()["parent"] is None
    assert dumped(made, after) == set(range(16))


def test_changed_after_a_part_was_protected(armed: Start) -> None:
    """Without a record of earlier writes, `changed` does not exit with 1."""
    made = armed("m=anon,pages=16,fill=1")
    made.tell("write m 3")
    words = ("scan", made.pid, "--require", "written", "--wp-only")
    assert command(*words).code == 0
    assert command("changed", made.pid).code == 0
    assert command("diff", made.pid, "--rearm").code == 0
    assert command("changed", made.pid).code == 1


@pytest.mark.needs("hugetlb")
def test_hugetlb(armed: Start) -> None:
    """Huge pages of hugetlb are whole; if only read, zeros unless an image has them."""
    with machine.huge_pages(8):
        made = armed("m=hugetlb,pages=2048")
        made.tell("write m 0")
        first = take(made.pid, 0)
        assert dumped(made, first) == set(range(512))
        made.tell("read m 600")
        made.tell("write m 1025")
        second = take(made.pid, 1)
        assert dumped(made, second) == set(range(1024, 1536))
        low, _ = made.ranges["m"]
        plan = regions_of(second)
        assert [plan.get(low + page * PAGE) for page in (0, 600, 1600)] == [
            "keep", "keep", None,
        ]  # fmt: skip
        made.tell("dontneed m 0-511")
        third = regions_of(take(made.pid, 2))
        assert low not in third
        made.tell("quit")
        made.process.wait(60)
