"""Written pages stay written on swap; other pages do not become written."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import machine, witness
from tests.conftest import PAGE, Result, Target

pytestmark = pytest.mark.needs("tracking", "swap")
Start = Callable[..., Target]
Run = Callable[..., Result]


@pytest.fixture(autouse=True, scope="module")
def swap() -> Iterator[None]:
    """A real swap file."""
    with machine.swap_file(256):
        yield


@pytest.mark.parametrize(
    "kind",
    [
        *("anon,pages=600", "shmem,pages=600", "sysv,pages=600"),
        *("memfd,pages=600,shared=1", "memfd,pages=600", "file,pages=600"),
        pytest.param("thp,pages=1024", marks=pytest.mark.needs("thp")),
    ],
)
def test_out_and_in_again(
    kind: str, armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """Written and unwritten pages go to swap; exactly the written are reported."""
    made = armed(f"m={kind},fill=1,file={tmp_path}/backing")
    low, _ = made.ranges["m"]
    made.write("m", {1, 77, *range(300, 320)})
    made.tell("pageout m 0-599")
    out = len(witness.present(made.pid, low, low + 600 * PAGE))
    assert out < 60, "the kernel kept most of it: nothing is tested"
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == made.expected["m"]
    made.tell("read m 0-599")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == made.expected["m"]
    made.tell("pageout m 0-599")
    made.tell("read m 0-299")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()
    made.expected["m"].clear()
    made.write("m", {5, 400})  # one is back, one still out
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {5, 400}


_MAPS = """
import sys
names = []
sys.addaudithook(lambda event, words: names.append(str(words[0]))
                 if event == "open" else None)
import pagescan
for row in pagescan.maps(int(sys.argv[1])):
    if row.mapping.start == int(sys.argv[2]):
        smaps = [name for name in names if "/proc/" in name and "smaps" in name]
        print(row.counts["swapped"], bool(smaps))
"""


@pytest.mark.parametrize("kind", ["shmem", "sysv", "memfd,shared=1"])
def test_swap_of_shared_memory_is_asked_of_its_file(
    kind: str, target: Start, pagescan: Run
) -> None:
    """The files are asked, not smaps, which walks all memory under the lock."""
    made = target(f"m={kind},pages=600,fill=1")
    made.tell("pageout m 0-599")
    low, _ = made.ranges["m"]
    expected = int(witness.smaps(made.pid, "Swap")[low].split()[0]) // 4
    assert expected > 500
    words = [sys.executable, "-c", _MAPS, str(made.pid), str(low)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(expected), "False"]


def test_among_holes(armed: Start, pagescan: Run) -> None:
    """Pages behind a long hole are found, also if all are on swap."""
    made = armed("m=sparse,gb=16")
    low, _ = made.ranges["m"]
    first = 5 << 18
    pages = set(range(first, first + 50))
    made.write("m", pages)
    made.tell(f"pageout m {first}-{first + 49}")
    start = low + first * PAGE
    assert not witness.present(made.pid, start, start + 50 * PAGE)
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == pages


def test_armed_while_it_is_out(target: Start, pagescan: Run) -> None:
    """Pages are protected while they are on swap."""
    made = target("m=anon,pages=600,fill=1")
    made.tell("pageout m 0-599")
    assert witness.swapped(made.pid, *made.ranges["m"])
    assert pagescan("arm", made.pid).code == 0
    made.tell("read m 0-99")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()
    made.write("m", {50, 500})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {50, 500}


def test_swapped_is_what_pagemap_says(target: Start, pagescan: Run) -> None:
    """`scan` and `maps` agree with the second witness on swapped pages."""
    made = target("m=anon,pages=600,fill=1")
    made.tell("pageout m 100-399")
    low, high = made.ranges["m"]
    out = witness.swapped(made.pid, low, high)
    assert len(out) > 200
    span = f"{low}-{high}"
    scan = pagescan("scan", made.pid, span, "--require", "swapped", "--json").json()
    assert made.pages(scan, "m") == out
    maps = pagescan("maps", made.pid, "--json").json()["mappings"]
    row = next(
        row for row in maps if int(row["start"], 16) <= low < int(row["end"], 16)
    )
    assert row["counts"]["swapped"] >= len(out)


def test_a_dropped_page_of_a_file_is_not_on_swap(
    armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """MADV_DONTNEED on a protected private copy leaves a marker, not swap."""
    (tmp_path / "file").write_bytes(bytes(64 * witness.PAGE))
    made = armed(f"m=file,pages=64,fill=1,file={tmp_path}/file")
    made.tell("pageout m 0-31")
    made.tell("dontneed m 8-39")
    out = witness.swapped(made.pid, *made.ranges["m"])
    assert out, "the kernel kept all of it: nothing is tested"
    scan = pagescan("scan", made.pid, "--require", "swapped", "--json").json()
    assert made.pages(scan, "m") == out
    assert out <= set(range(8))
