"""Shared memory that was written, and then dropped or paged out: an empty entry.

The page's contents still exist, so it is written like any other page, once per
baseline. Some kernels do not report such entries: `make kernels` tests them.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category
from pagescan.native import pace as native_pace, scan as native_scan
from pagescan.scanner.counts import count_by_mapping, scan_mappings
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps as mappings
from pagescan.target.process import Target as Process
from pagescan.target.selection import Selection
from pagescan.tracking.tracking import Tracking
from tests import machine, witness
from tests.conftest import PAGE, Result, Target, runs

pytestmark = pytest.mark.needs("tracking", "swap", "hugetlb")
Start = Callable[..., Target]
Run = Callable[..., Result]
HUGE = 512  # pages
WRITTEN = Query(require=Category.WRITTEN)

KINDS = {
    "shmem": "m=shmem,pages=600,fill=1",
    "sysv": "m=sysv,pages=600,fill=1",
    "memfd": "m=memfd,pages=600,shared=1,fill=1",
    "file": "m=file,pages=600,shared=1,fill=1",
}
LOSSES = ("dontneed", "pageout")


@pytest.fixture(autouse=True, scope="module")
def swap_and_huge_pages() -> Iterator[None]:
    """Swap for the pages, and huge pages."""
    with machine.swap_file(256), machine.huge_pages(16):
        yield


def _pages(batch: Batch, made: Target) -> set[int]:
    low, high = made.ranges["m"]
    return {
        (page.start - low) // PAGE for page in batch.pages() if low <= page.start < high
    }


class Views:
    """All answers of one process about the written pages of m."""

    def __init__(self, made: Target, tracking: Tracking) -> None:
        self.made = made
        self.tracking = tracking
        self.judged = [0, 0, 0]  # pages to be found, missed, in excess

    def look(self, *, rearm: bool = False) -> set[int]:
        """Return the pages of a look."""
        return _pages(self.tracking.look(rearm=rearm).batch, self.made)

    def scan(self, query: Query = WRITTEN) -> set[int]:
        """Return the pages of `scan --require written`; it protects nothing."""
        there = MappingSet(mappings.read(self.tracking.target))
        return _pages(
            scan_mappings(Scanner(self.tracking.target), there, query), self.made
        )

    def protect(self) -> set[int]:
        """Return the pages of `scan --require written --wp`."""
        low, high = self.made.ranges["m"]
        there = Selection.parse([f"{low}-{high}"]).select(
            mappings.read(self.tracking.target)
        )
        scanner = Scanner(self.tracking.target)
        found = scan_mappings(scanner, there, WRITTEN, self.tracking.uffd)
        return _pages(found, self.made)

    def count(self) -> int | None:
        """Return the number that `maps` counts."""
        low, high = self.made.ranges["m"]
        rows = count_by_mapping(
            Scanner(self.tracking.target),
            MappingSet(mappings.read(self.tracking.target)),
        )
        return sum(
            row.counts["written"] or 0
            for row in rows
            if low <= row.mapping.start < high
        )

    def agree_on(self, expected: set[int]) -> None:
        """Assert that each kind of answer is the same, twice."""
        for _ in range(2):
            for found in (self.look(), self.scan()):
                counts = (expected, expected - found, found - expected)
                self.judged = [
                    so_far + len(pages)
                    for so_far, pages in zip(self.judged, counts, strict=True)
                ]
                assert found == expected
            assert self.count() == len(expected)


@pytest.fixture
def tracked(
    target: Start, record_property: Callable[[str, object], None]
) -> Iterator[Callable[[str], Views]]:
    """Start a target and track it from this process."""
    views: list[Views] = []

    def start(words: str) -> Views:
        made = target(words)
        process = Process.open(made.pid)
        views.append(Views(made, Tracking.start(process)))
        return views[-1]

    yield start
    for view in views:
        record_property("judged", json.dumps(view.judged))
        view.tracking.close()
        view.tracking.target.close()


def drop_most(made: Target, loss: str, written: set[int]) -> None:
    """Drop pages 0 to 280 until more than half of the written ones are gone.

    A page that is just being written to its file stays for that time.
    """
    low, _ = made.ranges["m"]

    def drop() -> bool:
        made.tell(f"{loss} m 0-280")
        gone = written - witness.present(made.pid, low, low + 600 * PAGE)
        return 2 * len(gone) > len(written)

    witness.wait_for(drop)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_once(
    kind: str, loss: str, tracked: Callable[[str], Views], tmp_path: Path
) -> None:
    """Of the dropped pages, the written ones are reported, and again."""
    words = KINDS[kind]
    view = tracked(f"{words},file={tmp_path}/m" if "file," in words else words)
    made = view.made
    for written in ({0, 1, 77, 599}, set(range(200, 210)), {77, *range(100, 164)}):
        made.write("m", written)
        made.tell("read m 300-309")
        drop_most(made, loss, written)
        view.agree_on(written)
        made.tell("read m 77")  # it comes back, and is written all the same
        view.agree_on(written)
        assert view.look(rearm=True) == written
        view.agree_on(set())
        made.tell("read m 0-599")
        view.agree_on(set())
        assert view.look(rearm=True) == set()


@pytest.mark.parametrize("kind", ["shmem", "memfd"])
def test_with_all_of_a_page_table(kind: str, tracked: Callable[[str], Views]) -> None:
    """Linux frees the table with its last page: then no entry exists."""
    view = tracked(f"m={kind},pages=2600,shared=1,fill=1")
    made = view.made
    made.write("m", set(range(2600)))
    made.tell("dontneed m 0-2599")
    view.agree_on(set(range(2600)))
    made.tell("read m 1000-1003")
    assert view.look(rearm=True) == set(range(2600))
    view.agree_on(set())
    made.tell("read m 900-1700")
    made.write("m", {1500})
    assert view.look(rearm=True) == {1500}
    view.agree_on(set())


def test_huge_pages_of_hugetlb(tracked: Callable[[str], Views]) -> None:
    """The unit is the huge page; no kernel reports WRITTEN for a dropped one."""
    view = tracked(f"m=hugetlb,pages={4 * HUGE},shared=1,fill=1")
    made = view.made
    for number in (0, 2):
        pages = set(range(number * HUGE, (number + 1) * HUGE))
        made.write("m", {number * HUGE + 5})
        made.tell(f"dontneed m 0-{4 * HUGE - 1}")
        view.agree_on(pages)
        assert view.look(rearm=True) == pages
        view.agree_on(set())
        made.tell(f"read m 0-{4 * HUGE - 1}")
        view.agree_on(set())


@pytest.mark.parametrize(
    "words", [KINDS["shmem"], f"m=hugetlb,pages={2 * HUGE},shared=1"]
)
def test_got_and_protected_by_scan(words: str, tracked: Callable[[str], Views]) -> None:
    """`scan --wp` lists and protects them: the next look has none."""
    view = tracked(words)
    unit = HUGE if "hugetlb" in words else 1
    view.made.write("m", {0})
    view.made.tell(f"dontneed m 0-{2 * unit - 1}")
    assert view.protect() == set(range(unit))
    view.agree_on(set())
    assert view.protect() == set()


def test_masks_of_all_sorts(tracked: Callable[[str], Views]) -> None:
    """With any other categories, an empty entry is treated as written."""
    view = tracked("m=shmem,pages=64")
    view.made.write("m", {1, 2, 3})
    view.made.tell("dontneed m 0-2")
    one = Category.WRITTEN
    present = Category.PRESENT
    expected = {
        Query(require=one, exclude=present): {1, 2},
        Query(require=one | present): {3},
        Query(require=one, any_of=present | Category.HUGE): {3},
        Query(require=one, any_of=present | Category.WPALLOWED): {1, 2, 3},
        Query(any_of=one | Category.HUGE): {1, 2, 3},
        Query(require=Category.WPALLOWED, exclude=one): set(range(64)) - {1, 2, 3},
    }
    assert {query: view.scan(query) for query in expected} == expected


def test_slices_and_threads_do_not_show(
    tracked: Callable[[str], Views], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In short calls and with several threads, the same pages are found."""
    monkeypatch.setattr(native_pace, "_FIRST_SLICE", 2 << 20)
    monkeypatch.setattr(native_scan, "_WORTH_A_THREAD_NS", 0)
    view = tracked("m=shmem,pages=6000")
    view.tracking.scanner.threads = 4
    written = {page for page in range(6000) if page % 7 < 3 or 2000 < page < 2900}
    for _ in range(2):
        view.made.write("m", written)
        view.made.tell("dontneed m 500-5500")
        view.agree_on(written)
        assert view.look(rearm=True) == written
        view.agree_on(set())


def test_what_was_never_armed_is_not_written(target: Start) -> None:
    """Empty entries of untracked memory are not reported."""
    made = target(
        "a=anon,pages=8", "m=shmem,pages=600", "h=hugetlb,pages=1024,shared=1"
    )
    low, high = made.ranges["a"]
    words = [f"{low}-{high}"]
    with (
        Process.open(made.pid) as process,
        Tracking.start(process, Selection.parse(words)) as tracking,
    ):
        view = Views(made, tracking)
        made.write("m", {3})
        made.tell("dontneed m 0-599")
        assert view.scan() == set()
        assert view.look() == set()
        assert view.count() == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_commands(loss: str, armed: Start, pagescan: Run) -> None:
    """Every command that shows `written` reports them."""
    made = armed("m=shmem,pages=600,fill=1")
    low, high = made.ranges["m"]
    span = f"{low}-{high}"
    written = {5, *range(40, 50)}

    def drop() -> None:
        made.write("m", written)
        made.tell(f"{loss} m 0-599")

    def found(*words: object) -> set[int]:
        return made.pages(pagescan(*words, "--json").json(), "m")

    drop()
    assert found("diff", made.pid) == written
    assert found("scan", made.pid, span, "--require", "written") == written
    rows = pagescan("maps", made.pid, span, "--json").json()["mappings"]
    assert [row["counts"]["written"] for row in rows] == [len(written)]
    assert pagescan("changed", made.pid).code == 0
    assert found("diff", made.pid, "--rearm") == written
    assert found("diff", made.pid) == set()
    drop()
    assert found("scan", made.pid, span, "--require", "written", "--wp") == written
    assert found("diff", made.pid) == set()
    made.tell(f"read m {runs(written)}")
    assert found("diff", made.pid) == set()
