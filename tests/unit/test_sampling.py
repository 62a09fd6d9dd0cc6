"""The arithmetic of `watch --budget`: how many are drawn, and what is counted."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from pagescan.model import Mapping
from pagescan.regions import Batch
from pagescan.sampling import Budget, count_pages

UNIT = 512  # pages


@given(
    st.integers(2, 10_000),
    st.lists(st.integers(0, UNIT), min_size=1, max_size=200),
    st.floats(1, 1e6),
)
def test_no_more_is_drawn_than_paid_for(
    population: int, counts: list[int], faults: float
) -> None:
    units = Budget(faults).units(population, len(counts), counts)
    assert 2 <= units <= population
    mean = sum(counts) / len(counts)
    assert units == 2 or units * mean <= faults
    assert units <= max(2, 2 * len(counts))


def test_first_draw_fears_the_worst() -> None:
    """Nothing is known yet: each page of each unit may be written."""
    assert Budget(10 * UNIT).units(1000, 0, ()) == 10


def test_pages_are_counted_where_they_lie() -> None:
    size = 4096
    units = [
        Mapping(low * size, high * size, "rw-p", 0, (0, 0), 0, "")
        for low, high in ((512, 1024), (1024, 1536), (4096, 4608))
    ]
    regions = ((512, 513), (1000, 1030), (4600, 4608))
    batch = Batch(
        array("Q", (low * size for low, _ in regions)),
        array("Q", (high * size for _, high in regions)),
        array("Q", (0, 0, 0)),
        array("q", (0, 0, 0)),
        (),
        size,
    )
    assert count_pages(batch, units) == [1 + 24, 6, 8]
