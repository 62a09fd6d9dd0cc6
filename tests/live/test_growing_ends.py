"""Memory that grows while it is tracked: exact, and no mapping stays behind for it.

The growing end is not registered. So beside the target's own list of its stores,
a second witness reads pagemap words where a mapping is registered, and bytes elsewhere.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pagescan.model.batch import Batch
from pagescan.target.process import Target as Process
from pagescan.tracking.growing_ends import GrowingEnds
from pagescan.tracking.page_digests import PageDigests
from pagescan.tracking.sample import Budget
from pagescan.tracking.sampled import SampledTracking
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Result, Target, checked
from tests.live.test_growing_targets import mappings_in
from tests.machine import swap_file

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]
PAGE = witness.PAGE
ROUNDS = 30


@contextmanager
def tracked(made: Target) -> Iterator[Tracking]:
    """Track a target in this process."""
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        yield tracking


def pages_of(batch: Batch, *ranges: tuple[int, int]) -> set[int]:
    """Return the addresses of a look's pages in some ranges."""
    return {
        address
        for start, end in zip(batch.starts, batch.ends, strict=True)
        for low, high in ranges
        for address in range(max(start, low), min(end, high), PAGE)
    }


def by_flags(pid: int) -> list[tuple[int, int, bool]]:
    """Return the mappings, and whether smaps shows each as registered."""
    flags = witness.smaps(pid, "VmFlags")
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        start, end = (int(word, 16) for word in line.split(None, 1)[0].split("-"))
        found.append((start, end, " uw" in f" {flags.get(start, '')} "))
    return found


@dataclass
class Blocks:
    """A target's blocks, which come, go, grow and move, and the stores to them."""

    made: Target
    roll: random.Random
    stored: set[int] = field(default_factory=set)
    """Addresses of pages stored to, or moved here, since the last look that rearmed."""
    heap: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    copied: dict[int, bytes] = field(default_factory=dict)
    """The bytes of each page at the last look that rearmed."""
    made_so_far: int = 0

    def name(self) -> str:
        """Return a new name."""
        self.made_so_far += 1
        return f"b{self.made_so_far}"

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of all blocks."""
        return [self.made.ranges[name] for name in self.heap + self.mapped]

    def touch(self, name: str) -> None:
        """Make the target store to some pages of a block."""
        low, high = self.made.ranges[name]
        count = (high - low) // PAGE
        pages = {self.roll.randrange(count) for _ in range(self.roll.randrange(1, 6))}
        self.made.write(name, pages)
        self.stored |= {low + page * PAGE for page in pages}

    def fill(self, name: str) -> None:
        """Make the target store to each page."""
        low, high = self.made.ranges[name]
        self.made.write(name, set(range((high - low) // PAGE)))
        self.stored |= set(range(low, high, PAGE))

    def grow_heap(self) -> None:
        """Grow the heap by sbrk, and store to it."""
        name = self.name()
        self.made.tell(f"brk {self.roll.randrange(1, 9)} {name}")
        self.heap.append(name)
        self.made.where(name)
        self.roll.choice((self.touch, self.fill))(name)

    def shrink_heap(self) -> None:
        """Give the last growth of the heap back."""
        if self.heap:
            self.drop(self.heap.pop())

    def map(self) -> None:
        """Map a block and store to it; a part of it may never be touched."""
        name = self.name()
        self.made.tell(f"map {name}=anon,pages={self.roll.randrange(1, 40)}")
        self.mapped.append(name)
        self.made.where(name)
        self.roll.choice((self.touch, self.fill))(name)

    def unmap(self) -> None:
        """Unmap one of the blocks."""
        if self.mapped:
            self.drop(self.mapped.pop(self.roll.randrange(len(self.mapped))))

    def map_larger(self) -> None:
        """Unmap the newest block, and map a larger one: it may end where that did."""
        if self.mapped:
            self.drop(self.mapped.pop())
        self.map()
        self.remap(self.mapped[-1], "size 50")

    def remap_any(self) -> None:
        """Change a block by mremap(2): this must work, whatever borders exist."""
        if self.mapped:
            how = self.roll.choice(("move", f"size {self.roll.randrange(1, 60)}"))
            self.remap(self.roll.choice(self.mapped), how)

    def remap(self, name: str, how: str) -> None:
        """Change a block by mremap(2); if it moves, its populated pages are new."""
        low, high = self.made.ranges[name]
        self.made.tell(f"mremap {name} {how}")
        start, end = self.made.where(name)
        moved = {page for page in self.stored if low <= page < high}
        self.stored -= moved
        if start == low:
            self.stored |= {page for page in moved if page < end}
        else:
            there = witness.present(self.made.pid, start, end)
            self.stored |= {start + page * PAGE for page in there}

    def drop(self, name: str) -> None:
        """Forget a block that has been unmapped."""
        low, high = self.made.ranges.pop(name)
        self.made.tell(f"drop {name}")
        self.stored = {page for page in self.stored if not low <= page < high}

    def store(self) -> None:
        """Store to any block."""
        names = self.heap + self.mapped
        if names:
            self.touch(self.roll.choice(names))

    def step(self) -> None:
        """Do one random action."""
        self.roll.choice(
            [self.grow_heap] * 4
            + [self.map] * 4
            + [self.store] * 4
            + [self.shrink_heap] * 2
            + [self.unmap, self.map_larger, self.remap_any]
        )()

    def witnessed(self) -> set[int]:
        """Return the written pages according to pagemap words and bytes."""
        found = set()
        memory = witness.memory(self.made.pid)
        for start, end, registered in by_flags(self.made.pid):
            for low, high in self.ranges:
                first, last = max(start, low), min(end, high)
                if first >= last:
                    continue
                if registered:
                    pages = witness.written(self.made.pid, first, last)
                    found |= {first + page * PAGE for page in pages}
                    continue
                for page in witness.present(self.made.pid, first, last):
                    address = first + page * PAGE
                    if memory[address] != self.copied.get(address):
                        found.add(address)
        return found

    def copy(self) -> None:
        """Remember the bytes of all pages."""
        self.copied = witness.memory(self.made.pid)
        self.stored.clear()


@pytest.mark.parametrize("seed", range(3))
def test_random_rounds(target: Start, seed: int) -> None:
    """Each look finds the stores; mremap works on each block; few mappings remain."""
    made = target("m=anon,pages=64,fill=1")
    made.tell("brk 4 first")
    blocks = Blocks(made, random.Random(seed), heap=["first"])
    made.where("first")
    blocks.fill("first")
    with tracked(made) as tracking:
        blocks.copy()
        for _ in range(ROUNDS):
            for _ in range(blocks.roll.randrange(6)):
                blocks.step()
            expected = set(blocks.stored)
            assert blocks.witnessed() == expected
            for rearm in (False, False, True):
                found = pages_of(tracking.look(rearm=rearm).batch, *blocks.ranges)
                assert found == expected
            blocks.copy()
            for rearm in (True, False):
                assert not pages_of(tracking.look(rearm=rearm).batch, *blocks.ranges)
        for name in list(blocks.mapped):
            blocks.remap(name, "size 70")
    assert witness.registered(made.pid) == 0


@pytest.mark.parametrize("rearm", [False, True])
@pytest.mark.parametrize("verb", ["munmap", "dontneed"])
def test_dropped_amid_a_look(
    target: Start, monkeypatch: pytest.MonkeyPatch, verb: str, rearm: bool
) -> None:
    """Pages that go before they are compared are not reported; the others are."""
    made = target("m=anon,pages=64,fill=1")
    read = PageDigests.read

    def drop_and_read(*words: Any) -> Iterator[tuple[int, bytes]]:
        made.tell(f"{verb} b 4-7")
        return read(*words)

    with tracked(made) as tracking:
        for name in "ab":
            made.tell(f"map {name}=anon,pages=16")
            made.where(name)
            made.write(name, set(range(16)))
            tracking.look(rearm=True)
        low, _ = made.ranges["b"]
        assert any(
            start <= low < end for start, end in tracking.unregistered.ends.pieces
        )
        made.write("b", {2, 9})
        monkeypatch.setattr(PageDigests, "read", drop_and_read)
        found = pages_of(tracking.look(rearm=rearm).batch, *made.ranges.values())
    assert found == {low + page * PAGE for page in (2, 9)}


def grows(made: Target, tracking: Tracking, verb: str, looks: int = 100) -> None:
    """Grow by three chunks before each look, all written: each look is exact."""
    for turn in range(looks):
        expected = set()
        for chunk in "abc":
            name = f"{chunk}{turn}"
            word = f"brk 16 {name}" if verb == "brk" else f"map {name}=anon,pages=16"
            made.tell(word)
            low, high = made.where(name)
            made.write(name, set(range(16)))
            expected |= set(range(low, high, PAGE))
        ranges = list(made.ranges.values())
        found = pages_of(tracking.look(rearm=True).batch, *ranges)
        assert found == expected


@pytest.mark.parametrize("verb", ["brk", "map"])
def test_growth_leaves_one_mapping(target: Start, verb: str) -> None:
    """Two more mappings while it is tracked, one after; a quiet target has none."""
    made = target("m=anon,pages=16,fill=1")
    made.tell("brk 16 heap")
    made.where("heap")
    made.write("heap", set(range(16)))
    before = mappings_in(made.pid)
    with tracked(made) as tracking:
        grows(made, tracking, verb)
        assert mappings_in(made.pid) - before == 2
        ranges = list(made.ranges.values())
        looks = [tracking.look(rearm=True) for _ in range(5)]
        assert not any(pages_of(look.batch, *ranges) for look in looks)
        assert looks[-1].cost.mappings_added == 2
        if verb == "map":
            for name in made.ranges:
                if name not in ("m", "heap"):
                    made.tell(f"mremap {name} size 20")
                    made.tell(f"mremap {name} size 16")
        made.where("m")
    if verb == "brk":
        assert mappings_in(made.pid) - before == 1


def test_an_edge_with_no_room_to_grow(target: Start) -> None:
    """The edge is registered and joined again, as when Go changes its advice.

    A later mapping over the reservation can never be joined with it.
    """
    made = target("m=reserve,gb=1")
    low, high = made.ranges["m"]
    made.tell("over m 0-15")
    made.write("m", set(range(16)))
    with tracked(made) as tracking:
        for turn in range(1, 5):
            first, last = 16 * turn, 16 * turn + 15
            made.tell(f"over m {first}-{last}")
            made.tell(f"{'thp' if turn % 2 else 'ro'} m {first}-{last}")
            made.tell(f"rw m {first}-{last}")
            made.write("m", set(range(first, last + 1)))
            assert pages_of(tracking.look(rearm=True).batch, (low, high)) == {
                low + page * PAGE for page in range(first, last + 1)
            }
            edges = [row for row in by_flags(made.pid) if low <= row[0] < high]
            assert [end for _, end, registered in edges if not registered] == [
                low + (last + 1) * PAGE
            ]
        made.tell("zero m 31")
        tracking.look(rearm=True)
        made.tell("zero m 31")  # the same bytes: found only if registered
        found = pages_of(tracking.look(rearm=True).batch, (low, high))
        assert found == {low + 31 * PAGE}


@pytest.mark.parametrize("frames", ["seen", "hidden"])
def test_blocks_with_empty_first_pages(
    target: Start, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CPython aligns its pools to 16 KiB, so three of four arenas begin with a hole."""
    if frames == "hidden":  # as for a user other than root
        monkeypatch.setattr(GrowingEnds, "frames", lambda *_: ())
    monkeypatch.setattr("pagescan.tracking.growing_ends.LIMIT", 40 * PAGE)
    made = target("m=anon,pages=16,fill=1")
    before = mappings_in(made.pid)
    with tracked(made) as tracking:
        for turn in range(20):
            name = f"b{turn}"
            made.tell(f"map {name}=anon,pages=16")
            low, _ = made.where(name)
            for pages in (set(range(3, 6)), set(range(6, 16))):
                made.write(name, pages)
                found = pages_of(tracking.look(rearm=True).batch, *made.ranges.values())
                assert found == {low + page * PAGE for page in pages}
        assert mappings_in(made.pid) - before <= 2
    assert mappings_in(made.pid) - before <= 1


def test_growth_with_long_pauses(target: Start) -> None:
    """Only one mapping stays, also with 40 looks between two blocks."""
    made = target("m=anon,pages=16,fill=1")
    made.tell("map first=anon,pages=512")
    made.where("first")
    made.write("first", set(range(512)))
    before = mappings_in(made.pid)
    with tracked(made) as tracking:
        for turn in range(4):
            made.tell(f"map b{turn}=anon,pages=512")
            made.where(f"b{turn}")
            made.write(f"b{turn}", set(range(512)))
            for _ in range(40):
                tracking.look(rearm=True)
    assert mappings_in(made.pid) - before == 1


def test_a_heap_that_shrinks_and_grows(target: Start) -> None:
    """If malloc trims the heap, its end is left out again, and nothing is missed."""
    made = target("m=anon,pages=16,fill=1")
    made.tell("brk 16 heap")
    low, high = made.where("heap")
    made.write("heap", set(range(16)))
    before = mappings_in(made.pid)
    with tracked(made) as tracking:
        for turn in range(50):
            made.tell("brk 20 more")
            made.where("more")
            made.write("more", set(range(20)))
            made.write("heap", {turn % 16, 15})
            found = pages_of(tracking.look(rearm=True).batch, *made.ranges.values())
            start, end = made.ranges["more"]
            expected = {low + turn % 16 * PAGE, high - PAGE, *range(start, end, PAGE)}
            assert found == expected
            made.tell("drop more")
            made.ranges.pop("more")
            made.write("heap", {turn % 3, 15})
            found = pages_of(tracking.look(rearm=True).batch, (low, high))
            assert found == {low + turn % 3 * PAGE, high - PAGE}
            made.write("heap", {15})
            assert pages_of(tracking.look().batch, (low, high)) == {high - PAGE}
        assert mappings_in(made.pid) - before <= 2
    assert mappings_in(made.pid) - before <= 1


@pytest.mark.parametrize("frames", ["seen", "hidden"])
def test_no_border_in_a_larger_block(
    target: Start, frames: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that replaced a smaller one has no border inside, whatever its bytes."""
    if frames == "hidden":  # as for users other than root
        monkeypatch.setattr(GrowingEnds, "frames", lambda *_: ())
    made = target("m=anon,pages=16,fill=1")
    low, _ = made.ranges["m"]
    beside = 0
    with tracked(made) as tracking:
        for small in range(1, 20):
            for large in {small + 1, 2 * small - 1, 2 * small} - {small}:
                for verb in ("zero", "write"):
                    made.tell(f"map b=anon,pages={small}")
                    _, end = made.where("b")
                    made.tell(f"{verb} b 0-{small - 1}")
                    tracking.look(rearm=True)
                    made.tell("drop b")
                    made.tell(f"map b=anon,pages={large}")
                    made.where("b")
                    made.tell(f"{verb} b 0-{large - 1}")
                    tracking.look(rearm=True)
                    beside += made.ranges["b"][1] == end == low
                    made.tell(f"mremap b size {large + 1}")
                    made.where("b")
                    made.tell("drop b")
    assert beside > 50, "nothing was tried"


def test_the_same_bytes_at_the_end(target: Start) -> None:
    """The same bytes are not seen, as the docs say; others are."""
    made = target("m=anon,pages=16,fill=1")
    made.tell("brk 8 first")
    made.where("first")
    made.write("first", set(range(8)))
    with tracked(made) as tracking:
        made.tell("brk 8 h")
        low, high = made.where("h")
        made.tell("zero h 0-7")
        found = pages_of(tracking.look(rearm=True).batch, (low, high))
        assert found == set(range(low, high, PAGE))
        made.tell("zero h 0-7")
        found = pages_of(tracking.look(rearm=True).batch, (low, high))
        assert found == set(range(low, high - PAGE, PAGE))
        made.write("h", {7})
        found = pages_of(tracking.look(rearm=True).batch, (low, high))
        assert found == {high - PAGE}


def test_a_session_keeps_the_ends(armed: Start, pagescan: Run) -> None:
    """A session stores digests of the ends in its files, and no bytes."""
    made = armed("m=anon,pages=16,fill=1")
    for turn in range(3):
        name = f"b{turn}"
        made.tell(f"brk 8 h{turn}")
        made.tell(f"map {name}=anon,pages=8")
        ranges = [made.where(f"h{turn}"), made.where(name)]
        made.write(f"h{turn}", {0, 7})
        made.write(name, {3, 0})
        for words in ([], ["--rearm"]):
            look = pagescan("diff", made.pid, "--json", *words).json()
            assert made.pages(look, f"h{turn}") == {0, 7}
            assert made.pages(look, name) == {0, 3}
        look = pagescan("diff", made.pid, "--json").json()
        assert not made.pages(look, f"h{turn}") | made.pages(look, name)
        made.write(f"h{turn}", {7})
        made.write(name, {0})
        look = pagescan("diff", made.pid, "--json", "--rearm").json()
        assert made.pages(look, f"h{turn}") == {7}
        assert made.pages(look, name) == {0}
        assert len(ranges) == 2
    assert pagescan("changed", made.pid).code in (1, 2)  # 2: [vvar] and the like
    made.write("h2", {7})
    assert pagescan("changed", made.pid).code == 0


def test_images_have_the_ends(armed: Start, pagescan: Run) -> None:
    """Each plan has the compared pages, which may have changed and changed back."""
    made = armed("m=anon,pages=16,fill=1")
    made.tell("brk 8 h")
    made.where("h")
    made.write("h", {0, 6, 7})
    first = pagescan("dump-plan", made.pid, "--epoch", 0, "--json").json()
    assert first["epoch"] == 1
    for epoch in (1, 2):
        made.write("h", {0})
        plan = checked(
            pagescan("dump-plan", made.pid, "--epoch", epoch, "--json").stdout
        )
        low, _ = made.ranges["h"]
        dumped = {
            (address - low) // PAGE
            for region in plan["regions"]
            if region["plan"] == "dump"
            for address in range(int(region["start"], 16), int(region["end"], 16), PAGE)
        }
        assert {page for page in dumped if 0 <= page < 8} == {0, 7}


def test_a_budget_counts_the_ends(target: Start) -> None:
    """With a budget growth also leaves one mapping, and is counted exactly."""
    made = target("m=anon,pages=8192,fill=1")
    made.tell("brk 16 heap")
    made.where("heap")
    made.write("heap", set(range(16)))
    before = mappings_in(made.pid)
    with (
        Process.open(made.pid) as process,
        SampledTracking.start_within(Budget(600.0), process) as tracking,
    ):
        for turn in range(40):
            name = f"g{turn}"
            made.tell(f"brk 16 {name}")
            low, high = made.where(name)
            made.write(name, set(range(16)))
            made.write("m", set(range(8192)))
            look = tracking.look(rearm=True)
            assert pages_of(look.batch, (low, high)) == set(range(low, high, PAGE))
            assert look.estimate is not None
            assert look.estimate.low >= 16
        assert mappings_in(made.pid) - before == 2
        assert not pages_of(tracking.look(rearm=True).batch, *made.ranges.values())
    assert mappings_in(made.pid) - before == 1


@pytest.mark.needs("swap")
def test_an_end_on_swap(target: Start) -> None:
    """An end on swap is read in, and reported only if it was written."""
    made = target("m=anon,pages=16,fill=1")
    made.tell("brk 8 h0")
    made.where("h0")
    made.write("h0", set(range(8)))
    with swap_file(64), tracked(made) as tracking:
        for turn in range(1, 4):
            name = f"h{turn}"
            made.tell(f"brk 8 {name}")
            low, high = made.where(name)
            made.write(name, set(range(8)))
            look = tracking.look(rearm=True)
            assert pages_of(look.batch, (low, high)) == set(range(low, high, PAGE))
            made.tell(f"pageout {name} 0-7")
            assert 7 in witness.swapped(made.pid, low, high)
            assert not pages_of(tracking.look(rearm=True).batch, (low, high))
            made.write(name, {7})
            made.tell(f"pageout {name} 0-7")
            look = tracking.look(rearm=True)
            assert pages_of(look.batch, (low, high)) == {high - PAGE}
