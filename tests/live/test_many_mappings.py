"""Large address spaces: 100,000 mappings, and reserved memory without pages."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pagescan import Category, Query
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.native import Columns
from pagescan.scanner.counts import largest_mappings
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps as mappings
from pagescan.target.process import Target as Process
from pagescan.target.selection import Selection
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Target
from tests.machine import setting

pytestmark = pytest.mark.needs("tracking")
MAP_COUNT = Path("/proc/sys/vm/max_map_count")
COUNT = 100_000


@pytest.mark.needs("max-map-count")
@pytest.mark.timeout(300)
def test_a_hundred_thousand(target: Callable[..., Target]) -> None:
    """Each look is exact; unchanged mappings are not made again."""
    with setting(MAP_COUNT, 3 * COUNT):
        made = target(f"m=many,pages={COUNT},fill=1", "other=anon,pages=64,fill=1")
        low, high = made.ranges["m"]
        with Process.open(made.pid) as process:
            tracking = Tracking.start(process, Selection())
            assert witness.registered(made.pid) >= COUNT
            chosen = tracking.mappings.trackable()
            assert len(chosen) >= COUNT
            for pages in ({0, 777, COUNT - 1}, set(range(5, COUNT, 9973)), set()):
                made.write("m", pages)
                assert witness.written(made.pid, low, high) == pages
                batch = tracking.look(rearm=True).batch
                assert pages_in(batch, low, high) == pages
                assert batch.mappings is chosen
            made.tell("map new=anon,pages=16")
            low, high = made.where("new")
            made.write("new", {3, 4})
            batch = tracking.look(rearm=True).batch
            assert pages_in(batch, low, high) == {3, 4}
            assert {one.start >> 12 for one in batch.regions() if one.new} == {
                (low >> 12) + 3
            }
            kept = set(map(id, chosen))
            assert sum(id(one) not in kept for one in batch.mappings) < 10
            tracking.close()
        assert witness.registered(made.pid) == 0


def pages_in(found: Batch | Columns, low: int, high: int) -> set[int]:
    """Return the pages of [low, high) in a look or a scan, counted from 0."""
    return {
        (address - low) // witness.PAGE
        for start, end in zip(found.starts, found.ends, strict=True)
        for address in range(max(start, low), min(end, high), witness.PAGE)
    }


def test_reserved_memory_costs_nothing(target: Callable[..., Target]) -> None:
    """1 TiB reserved and 64 GiB sparse: no page table is made for it."""
    made = target("none=reserve,gb=1024", "sparse=sparse,gb=64")
    pages = {0, 5 << 20, (64 << 18) - 1}
    made.write("sparse", pages)
    before = int(witness.status(made.pid, "VmPTE").split()[0])
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process, Selection())
        made.write("sparse", {5 << 20})
        look = tracking.look(rearm=True)
        low, high = made.ranges["sparse"]
        assert pages_in(look.batch, low, high) == {5 << 20}
        assert look.cost.ioctls < 4096  # not one per 256 MiB reserved
        tracking.close()
    after = int(witness.status(made.pid, "VmPTE").split()[0])
    assert after - before <= 64, (before, after)


def test_a_call_that_protects_is_short(target: Callable[..., Target]) -> None:
    """No call takes dense memory behind a long hole whole."""
    made = target("filling=anon,pages=20480,fill=1", "sparse=sparse,gb=64")
    dense = set(range(8 << 18, (8 << 18) + (512 << 8)))
    with Process.open(made.pid) as process:
        calls = []
        for pages in (set(), dense):
            made.write("sparse", pages)
            counts = []
            for _ in range(3):  # a busy machine adds calls
                tracking = Tracking.start(process, Selection())
                counts.append(tracking.cost.ioctls)
                tracking.scanner.take_cost()
                tracking.armer.populated_outside(tracking.mappings.trackable())
                # 262,144 tables reserved
                assert tracking.scanner.take_cost().ioctls < 2000
                tracking.close()
            calls.append(min(counts))
        assert 512 // 64 <= calls[1] - calls[0] < 2000


@pytest.mark.parametrize("seed", range(3))
def test_pages_among_holes(target: Callable[..., Target], seed: int) -> None:
    """Holes are skipped and pages between them found, at any border."""
    chance = random.Random(seed)
    made = target("sparse=sparse,gb=512")
    end = 512 << 18
    pages = {0, end - 1}
    while len(pages) < 500:
        border = chance.randrange(end) >> (shift := chance.randrange(24)) << shift
        at = border + chance.choice((-1, 0, 0, 1, 7))
        pages |= set(range(max(at, 0), min(at + chance.choice((1, 1, 1, 70)), end)))
    low, high = made.ranges["sparse"]
    with Process.open(made.pid) as process:
        made.write("sparse", pages)
        found = scanned(process, low, high, Query(require=Category.PRESENT))
        assert pages_in(found, low, high) == pages
        tracking = Tracking.start(process, Selection())
        for _ in range(3):
            assert not pages_in(tracking.look(rearm=True).batch, low, high)
            fresh = {chance.randrange(end) for _ in range(30)}
            again = set(chance.sample(sorted(pages), 60)) | fresh
            made.write("sparse", again)
            assert pages_in(tracking.look().batch, low, high) == again
            assert pages_in(tracking.look(rearm=True).batch, low, high) == again
            pages |= fresh
        tracking.close()


def scanned(process: Process, low: int, high: int, query: Query) -> Columns:
    """Scan the mappings that begin in [low, high)."""
    selected = MappingSet(
        item for item in mappings.read(process) if low <= item.start < high
    )
    return Scanner(process).scan(selected, query)


def test_masks_that_contradict_each_other(target: Callable[..., Target]) -> None:
    """Contradicting masks select as in the kernel: all of a hole, or none."""
    made = target("dense=anon,pages=80000,fill=1", "sparse=sparse,gb=64")
    low, high = made.ranges["sparse"]
    made.write("sparse", set(range(0, 64 << 18, 4 << 18)))
    query = Query(any_of=Category.PRESENT | Category.SWAPPED, exclude=Category.PRESENT)
    with Process.open(made.pid) as process:
        found = scanned(process, low, high, query)
    pages = (sum(found.ends) - sum(found.starts)) // witness.PAGE
    assert pages == (high - low) // witness.PAGE - 64 // 4


def test_the_largest_mappings(target: Callable[..., Target]) -> None:
    """Those with most pages in memory, by address; one without a page never."""
    made = target(
        "a=anon,pages=9000,fill=1", "b=memfd,pages=8000,fill=1", "c=anon,pages=90000"
    )
    with Process.open(made.pid) as process:
        rows = largest_mappings(Scanner(process), Selection(), 2)
        everything = largest_mappings(Scanner(process), Selection(), 10_000)
    assert [row.mapping.start for row in rows] == sorted(
        made.ranges[name][0] for name in "ab"
    )
    assert sorted(row.counts["present"] or 0 for row in rows) == [8000, 9000]
    assert all(row.counts["present"] for row in everything)
    assert len(everything) > 2


def test_counted_without_making_them(target: Callable[..., Target]) -> None:
    """The number of mappings is that of the lines of maps."""
    made = target("m=many,pages=3000,fill=1")
    with Process.open(made.pid) as process:
        assert mappings.count(process) == len(mappings.read(process))
