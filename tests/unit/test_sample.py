"""The sample of `watch --budget`: how many units are drawn, and which ones."""

import random

import pytest
from hypothesis import given, strategies as st

from pagescan.tracking.sample import Budget, Sample

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


def last(units: list[int], number: int) -> list[int]:
    """Draw the last units of a list, in place of a random draw."""
    return units[len(units) - number :]


def test_half_of_a_sample_stays_at_most() -> None:
    """With 4 of 10: 2 are units of the sample before, 2 are drawn of all others."""
    sample = Sample[int](last)
    sample.draw(range(10), 4)
    assert sample.drawn == [6, 7, 8, 9]
    sample.draw(range(10), 4)
    assert sample.drawn == [6, 7, 8, 9]  # 8 and 9 stay, 6 and 7 are drawn again
    sample.draw([*range(8), 20, 21], 4)  # 8 and 9 are gone
    assert sample.drawn == [6, 7, 20, 21]
    assert sample.population == [*range(8), 20, 21]


@given(
    st.lists(st.tuples(st.sets(st.integers(0, 40)), st.floats(0, 1)), max_size=8),
)
def test_a_sample_is_a_part_of_its_population(
    steps: list[tuple[set[int], float]],
) -> None:
    """It has the wanted size, has no unit twice, and up to half of it are old ones."""
    sample = Sample[int]()
    for population, share in steps:
        wanted = int(len(population) * share)
        sample.draw(sorted(population), wanted)
        assert len(sample.drawn) == wanted
        assert sample.drawn == sorted(set(sample.drawn))
        assert set(sample.drawn) <= population


def test_each_unit_is_drawn_as_often_as_any_other() -> None:
    """2000 draws of 3 of 12: each is drawn 500 times, give or take 5 deviations."""
    sample = Sample[int](random.Random(1).sample)
    drawn = [0] * 12
    for _ in range(2000):
        sample.draw(range(12), 3)
        for unit in sample.drawn:
            drawn[unit] += 1
    assert min(drawn) > 400
    assert max(drawn) < 600


def test_a_unit_may_shrink_or_go() -> None:
    sample = Sample[int](last)
    sample.draw(range(6), 3)
    sample.replace(lambda unit: None if unit == 5 else unit * 10)
    assert sample.population == [0, 10, 20, 30, 40]
    assert sample.drawn == [30, 40]


def test_a_sample_expects_the_fullest_unit_of_late() -> None:
    """Units that were quiet by chance do not let the next sample cost much more."""
    budget = Budget(471, 0.01)
    quiet = [1] * 16
    assert budget.units(128, 16, quiet) == 32
    assert budget.units(128, 16, quiet, extreme=512) <= 16


@pytest.mark.parametrize(("use", "faults"), [(0.05, 50), (1.0, 1000), (3.0, 1000)])
def test_first_sample_fits_the_use_of_the_target(use: float, faults: float) -> None:
    """A target that uses little of a processor may lose little."""
    assert Budget(1000, 0.01).of_use(use).faults == pytest.approx(faults)
    assert Budget(1000).of_use(use).faults == 1000
