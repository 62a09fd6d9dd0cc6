"""The arithmetic of `watch --budget`: what is extrapolated, and how many are drawn."""

import random
from array import array

from hypothesis import given
from hypothesis import strategies as st

from pagescan.model import Mapping
from pagescan.regions import Batch
from pagescan.sampling import Budget, count_pages, estimate

UNIT = 512  # pages


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    """95 % of the intervals hold it, whatever the memory is written like."""
    rng = random.Random(7)
    populations = {
        "evenly": [rng.randint(40, 60) for _ in range(2000)],
        "half of it": [rng.choice((0, UNIT)) for _ in range(2000)],
        "skewed": [min(UNIT, int(rng.expovariate(1 / 40))) for _ in range(2000)],
    }
    for name, counts in populations.items():
        truth = sum(counts)
        held = 0
        for _ in range(1000):
            said = estimate(rng.sample(counts, 100), len(counts))
            held += said.low <= truth <= said.high
        assert 915 <= held <= 985, (name, held)


def test_estimate_has_no_bias() -> None:
    rng = random.Random(8)
    counts = [rng.randint(0, UNIT) for _ in range(500)]
    said = [estimate(rng.sample(counts, 20), 500).pages for _ in range(2000)]
    mean = sum(said) / len(said)
    assert abs(mean - sum(counts)) < 0.01 * sum(counts)


def test_all_tracked_is_no_estimate() -> None:
    said = estimate([3, 4, 5], 3)
    assert (said.low, said.pages, said.high, said.share) == (12, 12, 12, 1.0)


def test_one_unit_says_only_what_is_possible() -> None:
    said = estimate([7], 3)
    assert (said.low, said.high) == (7, 7 + 2 * UNIT)


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
