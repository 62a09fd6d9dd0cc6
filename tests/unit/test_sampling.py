"""The arithmetic of `watch --budget`: how many units are drawn."""

from hypothesis import given, strategies as st

from pagescan.tracking.sampled import Budget

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
    """The first draw assumes that every page of every unit is written."""
    assert Budget(10 * UNIT).units(1000, 0, ()) == 10
