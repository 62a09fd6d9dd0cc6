"""For each kind of memory exactly the pages that the target stored to are reported.

The target's own list judges all kinds; pagemap bits judge private memory too.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import PAGE, Result, Target, runs

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]

KINDS = {
    "anon": "m=anon,pages=600",
    "anon-filled": "m=anon,pages=600,fill=1",
    "shmem": "m=shmem,pages=600",
    "shmem-filled": "m=shmem,pages=600,fill=1",
    "memfd": "m=memfd,pages=600,shared=1",
    "memfd-private": "m=memfd,pages=600",
    "sysv": "m=sysv,pages=600",
    "file-shared": "m=file,pages=600,shared=1,fill=1",
    "file-private": "m=file,pages=600",
    "file-private-filled": "m=file,pages=600,fill=1",
}


def _words(kind: str, folder: Path) -> str:
    word = KINDS[kind]
    return f"{word},file={folder}/backing" if "=file," in word else word


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_what_was_stored_to(
    kind: str, armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """Reads are not reported, stores are, over rearms and over plain looks."""
    made = armed(_words(kind, tmp_path))
    low, high = made.ranges["m"]
    rolled = random.Random(kind)
    for _ in range(4):
        made.write("m", set(rolled.sample(range(600), 60)))
        made.tell(f"read m {runs(set(rolled.sample(range(600), 60)))}")
        look = pagescan("diff", made.pid, "--json").json()
        assert made.pages(look, "m") == made.expected["m"]
        if "anon" in kind:
            seen = witness.written(made.pid, low, high)
            zero = {
                page
                for page in seen - made.expected["m"]
                if page not in made.pages(look, "m")
            }
            assert seen - zero == made.expected["m"]
        again = pagescan("diff", made.pid, "--json").json()
        assert again["regions"] == look["regions"], "a plain look changes nothing"
        rearmed = pagescan("diff", made.pid, "--rearm", "--json").json()
        assert made.pages(rearmed, "m") == made.expected["m"]
        made.expected["m"].clear()
        assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()


@pytest.mark.needs("thp")
def test_huge_page_is_split_by_the_first_store(armed: Start, pagescan: Run) -> None:
    """In an armed transparent huge page one store is one page."""
    made = armed("m=thp,pages=2048,fill=1")
    made.write("m", {5, 700, 701, 2047})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {5, 700, 701, 2047}


@pytest.mark.parametrize("how", ["kread", "kreadv", "krecv", "kgetrandom", "kgetcwd"])
@pytest.mark.parametrize("kind", ["anon,pages=32,fill=1", "shmem,pages=32"])
def test_stores_of_the_kernel_count(
    how: str, kind: str, armed: Start, pagescan: Run
) -> None:
    """The kernel's stores for the target are reported like its own."""
    made = armed(f"m={kind}")
    made.tell(f"{how} m 3-4,9")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {3, 4, 9}


def test_stores_from_outside_count(armed: Start, pagescan: Run) -> None:
    """A store through /proc/PID/mem by another process is reported."""
    made = armed("m=anon,pages=32,fill=1")
    with open(f"/proc/{made.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(made.ranges["m"][0] + 7 * PAGE)
        memory.write(b"outside")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {7}


def test_every_thread_counts(armed: Start, pagescan: Run) -> None:
    """A store of another thread is reported, and its stack is new memory."""
    made = armed("m=anon,pages=32,fill=1")
    made.tell("thread m 1,30")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {1, 30}


def test_memory_that_comes_later_is_new(armed: Start, pagescan: Run) -> None:
    """New memory is reported where populated, as new, and tracked after a rearm."""
    made = armed("m=anon,pages=8")
    for kind in ("anon", "shmem"):
        made.tell(f"map {kind}={kind},pages=50")
        made.where(kind)
        made.write(kind, {2, 3, 40})
        made.tell(f"read {kind} 10-12")
    low, high = made.ranges["anon"]
    for words in ((), (), ("--rearm",)):
        look = pagescan("diff", made.pid, "--json", *words).json()
        assert made.pages(look, "anon") == {2, 3, 40}
        # Pages of shared memory that were read are populated as well.
        assert made.pages(look, "shmem") == {2, 3, 10, 11, 12, 40}
        new = [
            region["new"]
            for region in look["regions"]
            if low <= int(region["start"], 16) < high
        ]
        assert new == [True, True]
    for kind in ("anon", "shmem"):
        made.expected[kind].clear()
        made.write(kind, {7})
    quiet = pagescan("diff", made.pid, "--json").json()
    for kind in ("anon", "shmem"):
        assert made.pages(quiet, kind) == {7}
    assert not any(region["new"] for region in quiet["regions"])


def written_in(document: dict[str, Any], low: int, high: int) -> set[int]:
    """Return the addresses of the written pages of [low, high)."""
    return {
        address
        for region in document["regions"]
        for address in range(int(region["start"], 16), int(region["end"], 16), PAGE)
        if low <= address < high
    }


def assert_stack(document: dict[str, Any], told: str) -> None:
    """Assert that a stack was written to the requested depth, and no deeper."""
    lowest, top = (int(word) // PAGE * PAGE for word in told.split())
    assert written_in(document, lowest, top) == set(range(lowest, top, PAGE))
    # One more call below the last store may have touched the next page.
    assert not written_in(document, lowest - 64 * PAGE, lowest - PAGE)


def test_brk_and_stack_growth(armed: Start, pagescan: Run) -> None:
    """Growth of the heap is reported, and of the stack below its old end."""
    made = armed("m=anon,pages=8")
    made.tell("brk 40")
    made.where("brk")
    made.write("brk", {1, 39})
    told = made.tell("stack 200")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "brk") == {1, 39}
    assert_stack(look, told)
    made.expected["brk"].clear()
    made.write("brk", {7})
    told = made.tell("stack 100")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "brk") == {7}
    assert_stack(look, told)


def test_stacks_of_threads(target: Start, pagescan: Run) -> None:
    """Stacks of threads from before and after arming are exact."""
    made = target("m=anon,pages=8")
    made.tell("start-thread")
    made.tell("its-stack 100")
    assert pagescan("arm", made.pid).code == 0
    told = made.tell("its-stack 50")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert_stack(look, told)
    assert not any(region["new"] for region in look["regions"])
    assert not written_in(
        pagescan("diff", made.pid, "--json").json(), *map(int, told.split())
    )


def test_stack_of_a_later_thread(armed: Start, pagescan: Run) -> None:
    """The stack of a later thread is new, and tracked after a rearm."""
    made = armed("m=anon,pages=8")
    made.tell("start-thread")
    told = made.tell("its-stack 50")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert_stack(look, told)
    assert any(region["new"] for region in look["regions"])
    told = made.tell("its-stack 20")
    look = pagescan("diff", made.pid, "--json").json()
    assert_stack(look, told)
    assert not any(region["new"] for region in look["regions"])


def test_dropped_and_written_again(armed: Start, pagescan: Run) -> None:
    """MADV_DONTNEED is no store; a store after it is one."""
    made = armed("m=anon,pages=32,fill=1")
    made.tell("dontneed m 0-15")
    made.tell("read m 0-3")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()
    made.write("m", {2, 9})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {2, 9}


def test_guard_regions_are_not_written(armed: Start, pagescan: Run) -> None:
    """Installing or removing a guard is no store, and no swap."""
    made = armed("m=anon,pages=32,fill=1")
    made.tell("guard m 4-7")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()
    low, high = made.ranges["m"]
    shown = pagescan(
        "scan", made.pid, f"{low}-{high}", "--json", "--return", "guard,swapped,written"
    ).json()
    assert shown["summary"]["categories"] == {"written": 0, "swapped": 0, "guard": 4}
    made.tell("unguard m 4-7")
    made.write("m", {5})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {5}


def test_markers_are_no_swap(armed: Start, pagescan: Run) -> None:
    """The markers of arming in holes of shared memory are not swap."""
    made = armed("m=shmem,pages=64")
    made.write("m", {5})
    low, high = made.ranges["m"]
    marked = sum(
        bool(word & witness.SWAPPED) for word in witness.words(made.pid, low, high)
    )
    assert marked == 63, "else nothing is tested"
    words = (f"{low}-{high}", "--json", "--return", "written,swapped")
    found = pagescan("scan", made.pid, *words).json()["summary"]["categories"]
    assert found == {"written": 1, "swapped": 0}
    words = (f"{low}-{high}", "--json", "--require", "swapped")
    assert pagescan("scan", made.pid, *words).json()["regions"] == []


@pytest.mark.needs("thp")
def test_huge_pages_stay_huge(target: Start, pagescan: Run) -> None:
    """Arming and looking cut no huge page: slices end between them."""
    made = target("a=anon,pages=3", f"m=thp,pages={256 * 512},fill=1")
    before = witness.smaps(made.pid, "AnonHugePages")
    assert pagescan("arm", made.pid, "--max-stall", "20us").code == 0
    look = pagescan("diff", made.pid, "--rearm", "--max-stall", "20us", "--json").json()
    assert made.pages(look, "m") == set()
    huge = [
        sum(int(size.split()[0]) for size in found.values())
        for found in (before, witness.smaps(made.pid, "AnonHugePages"))
    ]
    assert huge[0] == huge[1] >= 500 << 10


def test_reservation_turned_writable(armed: Start, pagescan: Run) -> None:
    """A PROT_NONE reservation costs nothing, and is tracked once it is used."""
    made = armed("m=reserve,gb=64")
    assert int(witness.status(made.pid, "VmPTE").split()[0]) < 1024
    # It is registered, so that it stays one mapping
    assert " uw" in witness.smaps(made.pid, "VmFlags")[made.ranges["m"][0]]
    made.tell("rw m 0-999")
    made.write("m", {3, 999})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {3, 999}
    pagescan("diff", made.pid, "--rearm")
    made.write("m", {5})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {5}


def test_sparse_memory_costs_no_tables(armed: Start, pagescan: Run) -> None:
    """Arming 64 GiB of untouched private memory makes no page tables."""
    made = armed("m=sparse,gb=64")
    made.write("m", {1, 5_000_000, 16_777_215})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {1, 5_000_000, 16_777_215}
    assert int(witness.status(made.pid, "VmPTE").split()[0]) < 1024


def test_holes_of_shared_memory_have_a_limit(target: Start, pagescan: Run) -> None:
    """16 GiB of holes would need 32 MiB of page tables: refused by default."""
    made = target(f"m=memfd,pages={16 << 18},shared=1", "s=shmem,pages=16")
    start, _ = made.ranges["m"]

    def tables() -> int:
        return int(witness.status(made.pid, "VmPTE").split()[0])

    before = tables()
    assert pagescan("arm", made.pid).code == 0
    assert tables() - before < 1024
    made.write("s", {3})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "s") == {3}
    why = {int(item["start"], 16): item["why"] for item in look["untracked"]}
    assert "32.0 MiB of page tables" in why[start]
    assert pagescan("disarm", made.pid).code == 0
    assert pagescan("arm", made.pid, "--max-tables", "33M").code == 0
    assert 32 << 10 <= tables() - before < 33 << 10
    made.write("m", {5, 4_000_000})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {5, 4_000_000}


@pytest.mark.parametrize("kind", ["anon,pages=64,fill=1", "shmem,pages=64,fill=1"])
@pytest.mark.parametrize("how", ["none", "ro"])
def test_protection_to_and_fro(
    how: str, kind: str, armed: Start, pagescan: Run
) -> None:
    """Mprotect is no store, and pages written before it stay written."""
    made = armed(f"m={kind}")
    made.write("m", {3, 50})
    made.tell(f"{how} m 0-31")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {3, 50}
    made.tell("rw m 0-31")
    made.write("m", {4})
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == {3, 4, 50}
    made.tell(f"{how} m 0-63")
    made.tell("rw m 0-63")
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()


@pytest.mark.parametrize("kind", ["anon,pages=64,fill=1", "shmem,pages=64,fill=1"])
def test_mapped_again_at_the_same_place(kind: str, armed: Start, pagescan: Run) -> None:
    """A mapping that replaced an armed one is new memory."""
    made = armed(f"m={kind}")
    made.tell("again m")
    made.write("m", {8, 9})
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == {8, 9}
    start = made.ranges["m"][0] + 8 * PAGE
    new = [region for region in look["regions"] if int(region["start"], 16) == start]
    assert [(region["pages"], region["new"]) for region in new] == [(2, True)]
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()


def test_moved_memory_is_new(armed: Start, pagescan: Run) -> None:
    """After mremap to another place all populated pages count as written."""
    made = armed("m=anon,pages=64,fill=1")
    made.tell("mremap m move")
    made.where("m")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == set(range(64))
    made.write("m", {60})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == {60}


def test_unmapped_is_no_error(armed: Start, pagescan: Run) -> None:
    """A mapping that is gone is not reported, and the rest is exact."""
    made = armed("gone=anon,pages=32,fill=1", "m=anon,pages=32,fill=1")
    made.tell("munmap gone 0-31")
    made.write("m", {31})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {31}
    assert made.pages(look, "gone") == set()


@pytest.mark.parametrize("kind", ["anon,pages=64,fill=1", "shmem,pages=64,fill=1"])
def test_parent_stays_exact_over_fork(kind: str, armed: Start, pagescan: Run) -> None:
    """A child's stores do not count; copy-on-write does not disturb the parent."""
    made = armed(f"m={kind}")
    child = made.tell("fork m 10-20")
    made.write("m", {1, 15})
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == {1, 15}
    made.write("m", {2, 30})
    # A message says that the child is not tracked; nothing in it is protected.
    assert "no session" in pagescan("diff", child).stderr
    assert witness.registered(int(child)) == 0
    made.tell(f"reap {child}")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {2, 30}


def test_many_mappings(armed: Start, pagescan: Run) -> None:
    """20,000 mappings are armed and scanned like one."""
    made = armed("m=many,pages=20000,fill=1")
    made.write("m", {0, 777, 19_999})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {0, 777, 19_999}


def test_another_userfaultfd_is_said(
    armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """Untrackable memory is in `untracked`, with the reason.

    Nothing is said of memory that no store can reach: nothing is missed there.
    """
    backing = tmp_path / "ro"
    backing.write_bytes(bytes(8 * PAGE))
    made = armed(
        f"m=file,pages=8,shared=1,read_only=1,file={backing}", "a=anon,pages=4"
    )
    result = pagescan("diff", made.pid, "--json")
    reasons = {item["mapping"]: item["why"] for item in result.json()["untracked"]}
    assert reasons[str(backing)] == "shared and never writable"
    assert "[vvar]" in reasons
    assert "not tracked" not in result.stderr


def test_a_dropped_page_of_a_file_is_nothing(
    armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """The marker left by a dropped, protected private copy is not a page."""
    (tmp_path / "file").write_bytes(bytes(64 * PAGE))
    made = armed(f"m=file,pages=64,fill=1,file={tmp_path}/file")
    made.tell("dontneed m 8-39")
    low, high = made.ranges["m"]
    assert sum(map(witness.is_marker, witness.words(made.pid, low, high))) == 32
    scan = pagescan("scan", made.pid, "--any", "present,swapped", "--json").json()
    assert made.pages(scan, "m") == {*range(8), *range(40, 64)}
    rows = pagescan("maps", made.pid, f"{low}-{high}", "--json").json()["mappings"]
    assert [row["counts"]["swapped"] for row in rows] == [0] * len(rows)
    made.write("m", {10})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {10}
