"""Many looks that C reads in one call, against Python that reads page by page."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import sqlite3
import tempfile
import zlib
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from pagescan import native
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import HUGE_PAGE, Mapping
from pagescan.recording import views
from pagescan.recording.by_page import Unique
from pagescan.recording.excerpt import Excerpt, TimeSpan
from pagescan.recording.over_time import slots_of
from pagescan.recording.records import nanoseconds
from pagescan.recording.store import open_recording
from pagescan.target.selection import Selection
from tests.synthetic import BEGUN, PAGE, Made, columns_of, mapping, pages_of

BASE = 0x7F00_0000_0000
BLOCK = HUGE_PAGE // PAGE
# Some neighbours at the borders of blocks, and pages far away from them.
NUMBERS = st.one_of(
    st.integers(0, 20),
    st.integers(BLOCK - 5, BLOCK + 5),
    st.integers(3 * BLOCK - 2, 3 * BLOCK + 2),
    st.integers(1 << 25, (1 << 25) + 3),
)
LOOKS = st.lists(st.sets(NUMBERS, max_size=25), min_size=1, max_size=12)
EDGES = st.lists(NUMBERS, max_size=8, unique=True).map(sorted)


def addresses(pages: set[int]) -> list[int]:
    """Return the addresses of pages with numbers."""
    return [BASE + at * PAGE for at in sorted(pages)]


def packed(looks: Sequence[set[int]]) -> list[bytes]:
    """Return looks in their packed form."""
    return [native.pack(columns_of(addresses(look)), PAGE) for look in looks]


def ranges_of(edges: list[int]) -> tuple[array[int], array[int]]:
    """Return the ranges between each two edges, as numbers of pages."""
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return (
        array("Q", [BASE + low * PAGE for low, _ in pairs]),
        array("Q", [BASE + high * PAGE for _, high in pairs]),
    )


def inside(pages: set[int], edges: list[int]) -> set[int]:
    """Return the pages in the ranges of `ranges_of`."""
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return {at for at in pages if any(low <= at < high for low, high in pairs)}


@dataclass
class Truth:
    """Counts per page, look by look.

    Attributes:
        last: The last look that found each page.
        first: The first one.
        number: How many did.
        stretches: How often a page was not found by N looks.
    """

    last: dict[int, int]
    first: dict[int, int]
    number: Counter[int]
    stretches: Counter[int]

    @classmethod
    def of(cls, looks: Sequence[set[int]]) -> Truth:
        """Count looks."""
        truth = cls({}, {}, Counter(), Counter())
        for look, pages in enumerate(looks, 1):
            for at in pages:
                truth.stretches[look - truth.last.get(at, 0) - 1] += 1
                truth.last[at] = look
                truth.first.setdefault(at, look)
            truth.number.update(pages)
        truth.stretches.update(len(looks) - last for last in truth.last.values())
        return truth

    def classes(self, looks: int, percent: int) -> dict[int, int]:
        """Return the class of each page."""
        found = {}
        for at, times in self.number.items():
            most = (looks - self.first[at] + 1) * percent / 100
            found[at] = 1 if times == 1 else 4 if times > most else 2
        return found


def classes_of(counts: native.PageCounts, percent: int) -> dict[int, int]:
    """Return the class of each page, by its number."""
    columns = counts.classes(percent)
    for before, after in zip(columns.ends, columns.starts[1:], strict=False):
        assert before <= after
    found: dict[int, int] = {}
    for start, end, bits in zip(*columns, strict=True):
        numbers = range((start - BASE) // PAGE, (end - BASE) // PAGE)
        found |= dict.fromkeys(numbers, bits)
    return found


@given(LOOKS, st.one_of(st.none(), EDGES), st.integers(1, 5), st.integers(0, 100))
@settings(max_examples=200)
def test_page_counts(
    looks: list[set[int]], edges: list[int] | None, step: int, percent: int
) -> None:
    """Counts of looks, some at a time, in some ranges."""
    counts = native.PageCounts(PAGE, len(looks))
    bounds = None if edges is None else ranges_of(edges)
    for at in range(0, len(looks), step):
        part = native.UnpackedLooks(packed(looks[at : at + step]), PAGE, bounds)
        assert part.damaged == []
        counts.add(part)
    mine = looks if edges is None else [inside(look, edges) for look in looks]
    truth = Truth.of(mine)
    assert classes_of(counts, percent) == truth.classes(len(looks), percent)
    written, stretches = counts.stretches()
    assert written == len(truth.last)
    assert {at: n for at, n in enumerate(stretches) if n} == dict(truth.stretches)
    unique = Unique(counts, len(looks))
    for window in range(1, len(looks) + 1):
        number = len(looks) - window + 1
        sizes = [len(set().union(*mine[at : at + window])) for at in range(number)]
        assert abs(unique.in_window(window) - sum(sizes) / number) < 1e-6


@given(LOOKS, st.one_of(st.none(), EDGES), st.integers(1, 5))
def test_written_pages(
    looks: list[set[int]], edges: list[int] | None, step: int
) -> None:
    """The pages of looks, some at a time, in some ranges; as regions they are apart."""
    pages = native.WrittenPages(PAGE)
    bounds = None if edges is None else ranges_of(edges)
    for at in range(0, len(looks), step):
        pages.add(native.UnpackedLooks(packed(looks[at : at + step]), PAGE, bounds))
    mine = looks if edges is None else [inside(look, edges) for look in looks]
    regions = pages.regions()
    assert pages_of(regions) == addresses(set().union(*mine))
    for before, after in zip(regions.ends, regions.starts[1:], strict=False):
        assert before < after
    assert not any(regions.categories)


@given(LOOKS)
def test_fresh_pages(looks: list[set[int]]) -> None:
    """The pages of a look that no look after another one has found."""
    counts = native.PageCounts(PAGE)
    since = 0
    last: dict[int, int] = {}
    for look, pages in enumerate(looks, 1):
        fresh = sum(last.get(at, 0) <= since for at in pages)
        assert counts.add(native.UnpackedLooks(packed([pages]), PAGE), since) == fresh
        last |= dict.fromkeys(pages, look)
        since = look - 1 if look % 3 else since


def test_more_looks_than_room_are_refused() -> None:
    counts = native.PageCounts(PAGE, 2)
    looks = native.UnpackedLooks(packed([{1}, {2}]), PAGE)
    counts.add(looks)
    with pytest.raises(ValueError, match="more than 2 looks"):
        counts.add(looks)


@given(LOOKS, st.one_of(st.none(), EDGES), EDGES)
def test_shares(
    looks: list[set[int]], edges: list[int] | None, pieces: list[int]
) -> None:
    bounds = None if edges is None else ranges_of(edges)
    part = native.UnpackedLooks(packed(looks), PAGE, bounds)
    mine = looks if edges is None else [inside(look, edges) for look in looks]
    pairs = zip(pieces[::2], pieces[1::2], strict=False)
    sums = native.RangeSums(*ranges_of(pieces))
    sums.add(part)
    rows = zip(sums.bytes, sums.first, sums.last, strict=True)
    for (low, high), (size, first, last) in zip(pairs, rows, strict=True):
        here = sorted(at for look in mine for at in look if low <= at < high)
        assert size == len(here) * PAGE
        assert (first < last) == bool(here)
        if here:
            assert [first, last] == addresses({here[0], here[-1] + 1})


@given(st.lists(st.binary(max_size=12), max_size=8))
def test_damaged_looks_are_those_that_cannot_be_unpacked(looks: list[bytes]) -> None:
    def pages(data: bytes) -> int:
        columns = native.unpack(data, 4, PAGE)
        return (sum(columns.ends) - sum(columns.starts)) // PAGE

    damaged = []
    for at, data in enumerate(looks):
        try:
            if pages(data) > 1 << 31:  # more than a process writes
                damaged.append(at)
        except ValueError:
            damaged.append(at)
    part = native.UnpackedLooks(looks, PAGE)
    assert part.damaged == damaged
    assert len(part) == len(looks)


# ---- views of whole recordings -------------------------------------------------------

NAMES = ("", "[heap]", "/lib/a.so")
PLACES = st.tuples(st.integers(0, 30), st.integers(1, 30), st.sampled_from(NAMES))


def apart(places: Sequence[tuple[int, int, str]]) -> MappingSet:
    """Return mappings at some places, without those that overlap an earlier one."""
    found: list[Mapping] = []
    for start, pages, name in places:
        one = mapping(BASE + start * 40 * PAGE, pages * 4, name)
        if all(one.end <= other.start or other.end <= one.start for other in found):
            found.append(one)
    return MappingSet(sorted(found, key=lambda one: one.start))


@st.composite
def courses(
    draw: st.DrawFn,
) -> list[tuple[MappingSet, list[int]]]:
    """Draw looks; their mappings come, go and grow, and overlap earlier ones."""
    looks = []
    mappings = apart(draw(st.lists(PLACES, min_size=1, max_size=4)))
    for _ in range(draw(st.integers(1, 12))):
        if draw(st.booleans()):
            mappings = apart(draw(st.lists(PLACES, min_size=1, max_size=4)))
        room = [at for one in mappings for at in range(one.start, one.end, PAGE)]
        pages = draw(st.sets(st.sampled_from(room), max_size=30))
        looks.append((mappings, sorted(pages)))
    return looks


@given(
    courses(),
    st.sampled_from(
        [(), ("[heap]",), ("[anon]",), (f"{BASE:#x}-{BASE + 999 * PAGE:#x}",)]
    ),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_pages_of_any_recording(
    looks: list[tuple[MappingSet, list[int]]], ranges: tuple[str, ...], skipped: int
) -> None:
    """The views of pages, with mappings that change, in a part of time and memory."""
    with tempfile.TemporaryDirectory() as folder:
        made = Made(Path(folder) / "a", MappingSet())
        for mappings, pages in looks:
            made.mappings = mappings
            made.look(pages)
        span = TimeSpan(nanoseconds(BEGUN + timedelta(seconds=skipped)))
        with open_recording(made.close()) as recording:
            excerpt = Excerpt(recording, Selection.parse(ranges), span)
            try:
                excerpt.check()
            except PagescanError:
                return  # it has no such mapping, or no look in that time
            check_pages(excerpt)


def check_pages(excerpt: Excerpt) -> None:
    """Compare the views of pages with the regions of each look."""
    found = [set(pages_of(excerpt.columns(look))) for look in excerpt.looks]
    truth = Truth.of(found)
    counts = excerpt.page_counts[0]
    classes = {
        at: bits
        for start, end, bits in zip(*counts.classes(50), strict=True)
        for at in range(start, end, PAGE)
    }
    assert classes == truth.classes(len(found), 50)
    ages = views.ages(excerpt)
    for class_, name in ((1, "once"), (2, "sometimes"), (4, "always")):
        number = sum(bits == class_ for bits in classes.values())
        assert sum(getattr(row, name) for row in ages) == number * PAGE
    working_set = views.working_set(excerpt)
    assert working_set[-1].bytes == len(classes) * PAGE
    slots = slots_of(excerpt, 5)
    position = {look.position: at for at, look in enumerate(excerpt.looks)}
    # With two rows each is all of a mapping: its shares come from counts.
    for row in [
        *views.heatmap(excerpt, slots=5, rows=9),
        *views.heatmap(excerpt, slots=5, rows=2),
    ]:
        for share, (looks, _) in zip(row.shares, slots, strict=True):
            assert (share is None) == (not looks)
            if share is not None:
                here = [found[position[look.position]] for look in looks]
                pages = sum(row.start <= at < row.end for one in here for at in one)
                assert abs(share - pages / len(looks) / row.pages) < 1e-9


@pytest.mark.parametrize("hurt", [zlib.compress(b"\x81"), b"no zlib", 7])
def test_damaged_regions_are_named_and_left_out(hurt: object, tmp_path: Path) -> None:
    """A view of pages shows the looks that are whole."""
    made = Made(tmp_path / "a", MappingSet([mapping(BASE, 100)]))
    for at in range(3):
        made.look([BASE + at * PAGE])
    path = made.close()
    with closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE looks SET written = ? WHERE id = 2", (hurt,))
        file.commit()
    with open_recording(path) as recording:
        assert recording.damage == []
        (row,) = views.ages(Excerpt(recording))
        assert row.once == 2 * PAGE
        (heat,) = views.heatmap(Excerpt(recording), slots=3, rows=1)
        assert heat.shares == [1 / 3, 0, 1 / 3]
        assert recording.damage == ["the regions of the look at 03:04:07"]


def test_stretches_of_counts_without_gaps_are_refused() -> None:
    """There is no room for them: C would write behind it."""
    counts = native.PageCounts(PAGE)
    counts.add(native.UnpackedLooks(packed([{1}]), PAGE))
    with pytest.raises(ValueError, match="gaps are not counted"):
        counts.stretches()
