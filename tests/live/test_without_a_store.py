"""Pages that count as written without a store: the exceptions of the contract."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import machine, witness
from tests.conftest import PAGE, Result, Target

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]
THP = Path("/sys/kernel/mm/transparent_hugepage")


def look(made: Target, pagescan: Run, *words: str) -> set[int]:
    """Return the written pages of the range m."""
    return made.pages(pagescan("diff", made.pid, "--json", *words).json(), "m")


@pytest.mark.needs("thp")
def test_a_huge_page_counts_whole_when_it_is_populated(
    armed: Start, pagescan: Run
) -> None:
    """The kernel fills 2 MiB at the first store; from the rearm on a page is a page."""
    made = armed("m=thp,pages=1024")
    made.write("m", {3})
    assert look(made, pagescan, "--rearm") == set(range(512))
    made.write("m", {3, 700})
    assert look(made, pagescan) == {3, *range(512, 1024)}


@pytest.mark.needs("folios", "root")
def test_a_large_folio_counts_whole_when_it_is_populated(
    target: Start, pagescan: Run
) -> None:
    """64 KiB are filled at the first store; from the rearm on a page is a page."""
    with machine.setting(THP / "hugepages-64kB/enabled", "always"):
        made = target("m=folios,pages=256")
        assert pagescan("arm", made.pid).code == 0
        made.write("m", {100})
        found = look(made, pagescan, "--rearm")
    first = made.ranges["m"][0] // PAGE

    def folio(page: int) -> set[int]:
        return {
            other
            for other in range(256)
            if (first + other) // 16 == (first + page) // 16
        }

    assert found in ({100}, folio(100))
    made.write("m", {101, 200})
    assert look(made, pagescan) in ({101, 200}, {101} | folio(200))


@pytest.mark.needs("root")
def test_huge_pages_of_tmpfs(target: Start, pagescan: Run, tmp_path: Path) -> None:
    """Shared huge pages are armed whole, and written page by page."""
    with machine.tmpfs(tmp_path, "huge=always,size=64m"):
        made = target(f"m=file,pages=2048,shared=1,fill=1,file={tmp_path}/huge")
        mapped = witness.smaps(made.pid, "ShmemPmdMapped")
        assert pagescan("arm", made.pid).code == 0
        made.write("m", {5, 700, 701})
        made.tell("read m 1500")
        assert look(made, pagescan, "--rearm") == {5, 700, 701}
        made.write("m", {6})
        assert look(made, pagescan) == {6}
        made.tell("quit")
        made.process.wait()
    assert mapped[made.ranges["m"][0]] != "", "no kernel that says so"


@pytest.mark.parametrize("what", ["mlock", "populate"])
def test_populating_counts(what: str, armed: Start, pagescan: Run) -> None:
    """mlock(2) and MADV_POPULATE_WRITE write-fault every page of private memory."""
    made = armed("m=anon,pages=64")
    made.tell(f"{what} m 8-15")
    assert look(made, pagescan, "--rearm") == set(range(8, 16))
    assert look(made, pagescan) == set()


def test_mlock_of_what_is_there_does_not_count(armed: Start, pagescan: Run) -> None:
    made = armed("m=anon,pages=64,fill=1")
    made.tell("mlock m 0-31")
    found = look(made, pagescan)
    assert found in (set(), set(range(32))), "once at most"
    assert look(made, pagescan, "--rearm") == found
    made.write("m", {40})
    assert look(made, pagescan) == {40}


@pytest.mark.needs("ksm")
def test_pages_that_were_merged_before(target: Start, pagescan: Run) -> None:
    """A store to a merged page gets a copy of it, and is found."""
    made = target("m=anon,pages=256,fill=1")
    made.tell("zero m 0-127")
    made.tell("merge m 0-127")
    with machine.merging():
        machine.wait_for_scans(3)
        assert machine.merged(made.pid) >= 100, "else nothing is tested"
        assert pagescan("arm", made.pid).code == 0
        assert look(made, pagescan) == set()
        made.write("m", {5, 100, 200})
        assert look(made, pagescan) == {5, 100, 200}
        made.tell("read m 0-127")
        assert look(made, pagescan, "--rearm") == {5, 100, 200}
        assert look(made, pagescan) == set()


@pytest.mark.needs("ksm")
def test_merged_pages_count_at_most_once(armed: Start, pagescan: Run) -> None:
    """KSM replaces pages: no store is missed, and none is found twice."""
    made = armed("m=anon,pages=256,fill=1")
    made.tell("zero m 0-127")
    assert look(made, pagescan, "--rearm") == set(range(128))
    made.tell("merge m 0-127")
    with machine.merging():
        machine.wait_for_scans(3)
        # Armed memory may be left alone by KSM, or merged at any later scan; merged or
        # not, nothing is missed.
        first = look(made, pagescan, "--rearm")
        machine.wait_for_scans(2)
        second = look(made, pagescan, "--rearm")
        assert first | second <= set(range(128))
        assert first & second == set()
        made.write("m", {5, 200})
        third = look(made, pagescan)
        assert third >= {5, 200}
        merged = third - {5, 200}
        assert merged <= set(range(128)) - first - second


def test_reading_does_not_count(armed: Start, pagescan: Run) -> None:
    """The zero page is mapped by a read; the first store after it counts."""
    made = armed("m=anon,pages=64")
    made.tell("read m 0-63")
    low, high = made.ranges["m"]
    assert witness.present(made.pid, low, high) == set(range(64))
    assert look(made, pagescan) == set()
    made.write("m", {7})
    assert look(made, pagescan) == {7}


def test_freed_lazily_and_used_again(armed: Start, pagescan: Run) -> None:
    """MADV_FREE is no store; a store after it is reported."""
    made = armed("m=anon,pages=64,fill=1")
    made.tell("free m 0-31")
    assert look(made, pagescan) == set()
    made.write("m", {3, 31, 40})
    assert look(made, pagescan) == {3, 31, 40}


def test_freed_lazily_and_taken(armed: Start, pagescan: Run) -> None:
    """Pages that the kernel takes after MADV_FREE are not written."""
    made = armed("m=anon,pages=64,fill=1")
    made.tell("free m 0-31")
    made.tell("pageout m 0-31")
    left = witness.present(made.pid, *made.ranges["m"])
    assert len(left) < 48, "the kernel kept most of it: nothing is tested"
    made.tell("read m 0-31")
    assert look(made, pagescan) == set()
    made.write("m", {3, 31, 40})
    assert look(made, pagescan) == {3, 31, 40}


@pytest.mark.parametrize("how", ["punch m 8-15", "dontneed m 8-15"])
def test_dropped_contents_do_not_count(how: str, armed: Start, pagescan: Run) -> None:
    """Dropping shared memory is no store; a store into the hole is."""
    made = armed("m=memfd,pages=32,shared=1,fill=1")
    made.tell(how)
    assert look(made, pagescan) == set()
    made.write("m", {9, 20})
    assert look(made, pagescan) == {9, 20}


@pytest.mark.parametrize("shared", [",shared=1", ""])
def test_truncated_file(
    shared: str, armed: Start, pagescan: Run, tmp_path: Path
) -> None:
    """Cut pages are not reported; pages that grow back are, if stored to."""
    made = armed(f"m=file,pages=32{shared},fill=1,file={tmp_path}/backing")
    made.write("m", {3, 30})
    made.tell("truncate m 16")
    # Written and cut off: a shared mapping keeps the mark, a private copy is gone.
    assert look(made, pagescan) in ({3}, {3, 30})
    made.tell("truncate m 32")
    made.tell("read m 16-31")
    assert look(made, pagescan, "--rearm") in ({3}, {3, 30})
    assert look(made, pagescan) == set()
    made.write("m", {4, 20})
    assert look(made, pagescan) == {4, 20}


@pytest.mark.needs("thp", "root")
def test_zero_filled_and_split(armed: Start, pagescan: Run) -> None:
    """A split huge page may lose pages of zeros; only those may be missed."""
    made = armed("m=thp,pages=1024,fill=1")
    made.tell("zero m 0-255")
    made.write("m", {300})
    underused = THP / "khugepaged/max_ptes_none"
    with machine.setting(underused, 0):
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        found = look(made, pagescan)
    assert {300} <= found <= {*range(256), 300}
    low, _ = made.ranges["m"]
    zero = f"{low}-{low + 256 * PAGE}"
    pages = pagescan("scan", made.pid, zero, "--require", "pfnzero", "--json").json()
    assert found >= set(range(256)) - made.pages(pages, "m")
