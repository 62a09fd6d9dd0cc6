"""Checkpoints: images made from plans alone, against the memory of the process."""

import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import HERE, PAGE, Target, checked, command, runs

pytestmark = pytest.mark.needs("tracking")

Start = Callable[..., Target]

EPOCHS = 10
DELAY = 0.4
"""Seconds within which a consumer is killed: it takes about half of that."""


def memory(pid: int) -> dict[int, bytes]:
    """Return what an image has to have, by address: the second witness.

    Private memory that is populated, the pages of files left out.
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
    """Have one image made; with `kill`, end the consumer after so many seconds.

    Returns:
        Whether it came to its end.
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
    """Return what the consumer has: epoch, image, how many it has made."""
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
    """Return random pages as the target takes them."""
    return runs({chance.randrange(pages) for _ in range(chance.randint(1, most))})


def disturb(made: Target, chance: random.Random) -> None:
    """Have the target do something to its memory."""
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
    """A target with every kind of private memory, armed."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(128 * PAGE))
    return armed(*RANGES, f"file=file,pages=128,file={file}")


@pytest.mark.parametrize(
    ("form", "seed"), [("json", 1), ("json", 2), ("binary", 3), ("binary", 4)]
)
@pytest.mark.timeout(240)
def test_ten_epochs_with_a_consumer_that_is_killed(
    busy: Target, tmp_path: Path, form: str, seed: int
) -> None:
    """The last image is the memory, byte by byte, whoever was killed on the way."""
    folder = tmp_path / "images"
    folder.mkdir()
    chance = random.Random(seed)
    done = killed = 0
    while done < EPOCHS:
        disturb(busy, chance)
        kill = chance.uniform(0, DELAY) if chance.random() < 0.6 else None
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
    assert killed > 0


@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_every_form_follows_the_schema(busy: Target, form: str) -> None:
    """Now, the beginning of a chain, and the next of it."""
    for words in ((), ("--epoch", 0), ("--epoch", 1)):
        said = command("dump-plan", busy.pid, *words, form)
        assert said.code == 0, said.stderr
        documents = [said.stdout] if form == "--json" else said.stdout.splitlines()
        assert all(checked(text) for text in documents)
