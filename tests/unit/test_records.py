"""Batches against a set of pages, pickled errors, and drawn strips."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category, Mapping
from pagescan.native import Columns
from pagescan.render.cells import elide_middle
from pagescan.render.columns import REGION_COLUMNS, select
from pagescan.render.strip import bars, compact, log_block, signed

PAGE = 4096
Spans = list[tuple[int, int, int]]


@st.composite
def ascending(draw: st.DrawFn) -> Spans:
    """Return ascending, disjoint (first page, pages, bits)."""
    spans: Spans = []
    at = 1
    for gap, length, bits in draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(1, 8), st.integers(0, 511)),
            max_size=25,
        )
    ):
        spans.append((at + gap, length, bits))
        at += gap + length
    return spans


def _columns(spans: Spans) -> Columns:
    return Columns(
        array("Q", (first * PAGE for first, _, _ in spans)),
        array("Q", ((first + length) * PAGE for first, length, _ in spans)),
        array("Q", (bits for _, _, bits in spans)),
    )


def _pages(columns: Columns) -> dict[int, int]:
    return {
        page: bits
        for low, high, bits in zip(*columns, strict=True)
        for page in range(low // PAGE, high // PAGE)
    }


@given(ascending(), ascending())
def test_join_keeps_every_page(regions: Spans, maps: Spans) -> None:
    """Each page keeps its bits, and is owned by the mapping around it."""
    mappings = [
        Mapping(first * PAGE, (first + length) * PAGE, "rw-p", 0, (0, 0), 0, "")
        for first, length, _ in maps
    ]
    columns = _columns(regions)
    batch = Batch.join(columns, MappingSet(mappings), page_size=PAGE)
    joined = Columns(batch.starts, batch.ends, batch.categories)
    assert _pages(joined) == _pages(columns)
    for region in batch.regions():
        owners = [
            mapping
            for mapping in mappings
            if mapping.start <= region.start and region.end <= mapping.end
        ]
        assert region.mapping == (owners[0] if owners else None)
    # Maximal: no two neighbours could be joined.
    rows = list(zip(*joined, batch.owners, strict=True))
    for left, right in pairwise(rows):
        assert left[1] <= right[0]
        assert not (left[1] == right[0] and left[2:] == right[2:])


@given(ascending())
def test_tally_counts_pages(regions: Spans) -> None:
    """The summary equals a count page by page."""
    batch = Batch.join(
        _columns(regions), MappingSet(), page_size=PAGE, returned=Category(511)
    )
    pages = _pages(_columns(regions))
    summary = batch.summary()
    assert summary.pages == len(pages)
    assert list(summary.categories.values()) == [
        sum(bits >> bit & 1 for bits in pages.values()) for bit in range(9)
    ]


def test_columns_are_buffers() -> None:
    """Nothing is copied: memoryviews of 64-bit integers."""
    batch = Batch.join(_columns([(1, 2, 3)]), MappingSet(), page_size=PAGE)
    for column in (batch.starts, batch.ends, batch.categories):
        assert memoryview(column).itemsize == 8


def test_rules_of_the_shim_are_those_of_python() -> None:
    """C and Python interpret the bits in the same way."""
    from pagescan.model.memory import Kind
    from pagescan.scanner.bits import read_bits
    from pagescan.scanner.query import Query
    from pagescan.scanner.rules import query_rule

    wanted = Query(require=Category.WRITTEN)
    for kind in Kind:
        rule = query_rule(kind, wanted)
        if rule is None:
            assert kind is Kind.SPECIAL
            continue
        hole = Category.WPALLOWED | Category.WRITTEN
        private = kind in (Kind.ANON, Kind.PRIVATE_FILE)
        assert bool(read_bits(rule, hole) & Category.WRITTEN) is not private
        assert read_bits(rule, hole | Category.PRESENT) & Category.WRITTEN
        empty, marker = Category.WPALLOWED, Category.WPALLOWED | Category.SWAPPED
        assert bool(read_bits(rule, empty) & Category.WRITTEN) is not private
        assert not read_bits(rule, marker) & Category.WRITTEN
        assert not read_bits(rule, 0) & Category.WRITTEN
        unarmed = Category.WRITTEN | Category.PRESENT
        assert not read_bits(rule, unarmed) & Category.WRITTEN


@given(st.integers(0, 2**63))
def test_compact_numbers_fit(count: int) -> None:
    """Five characters at most."""
    assert len(compact(count)) <= 5


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (10_239, "+10K"), ((1 << 20) - 1, "+1.0M"), (-10_239, "-10K")],
)
def test_changes_are_rounded_once(count: int, text: str) -> None:
    """A number that is rounded up to the next unit is written in that unit."""
    assert signed(count) == text


def test_bars_are_as_wide_as_asked() -> None:
    """The highest bar fills its cell, and anything above 0 is visible."""
    assert bars([0, 1, 1000], 5) == "   ▁█"
    assert bars([], 3) == "   "


def test_shares_do_not_saturate() -> None:
    """A share has its place on a log scale; only a whole cell has the full block."""
    shares = [0.0, 0.00001, 0.001, 0.01, 0.1, 0.5, 0.99, 1.0]
    assert "".join(map(log_block, shares)) == " ▁▁▃▆▇▇█"


def test_growth_has_a_sign() -> None:
    """What shrank has a minus, what grew a plus."""
    assert [signed(n << 10) for n in (-3, 0, 1536)] == ["-3.0K", "0", "+1.5M"]


@pytest.mark.parametrize("width", [1, 2, 5, 10, 40])
def test_elided_text_fits(width: int) -> None:
    """Elided text keeps both its ends."""
    shown = elide_middle("/usr/lib/x86_64-linux-gnu/libc.so.6", width)
    assert len(shown) <= width
    assert width < 10 or shown.endswith("so.6")


def test_native_refuses_nothing_silently() -> None:
    """A closed descriptor raises an OSError with its errno."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        native.uffd_api(-1)


def test_a_column_is_shown_once() -> None:
    """A column of the default that is added, or named twice, is not repeated."""
    chosen = select("+pages,start,mapping,mapping", "start,pages", REGION_COLUMNS)
    assert [column.key for column in chosen] == ["start", "pages", "mapping"]
