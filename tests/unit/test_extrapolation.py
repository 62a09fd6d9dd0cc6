"""The interval of `watch --budget` holds the truth as often as it claims: 95 %.

The workloads are steady, and all random numbers come from fixed seeds. A population of
known counts is sampled thousands of times. Where units have one of only two counts,
every possible sample is counted instead, and the coverage is exact.
"""

import random
from math import comb, sqrt
from statistics import fmean, pvariance

import pytest

from pagescan.model.results import Estimate
from pagescan.tracking.estimate import (
    Extremes,
    estimate,
    student,
    within_possible,
)

UNIT = 512  # pages
SAMPLES = 4000
# Three standard errors of a coverage of 0.95, for this number of samples.
NOISE = 3 * sqrt(0.95 * 0.05 / SAMPLES)

SIZES = ((20, 2), (20, 5), (128, 10), (128, 30), (1000, 100))


def workloads(units: int) -> dict[str, list[int]]:
    """Return the pages that steady workloads write in each unit."""
    rng = random.Random(units)
    full = max(1, units // 50)
    quiet = [0] * (units - full)
    noise = [rng.randrange(10) for _ in quiet]
    third = units // 3
    return {
        "uniform": [rng.randint(35, 60) for _ in range(units)],
        "any count": [rng.randint(0, UNIT) for _ in range(units)],
        "skewed": [min(UNIT, int(rng.lognormvariate(2, 1.5))) for _ in range(units)],
        "clustered": [UNIT] * third + [0] * (units - third),
        "few hot": [UNIT] * full + quiet,
        "few hot, noise": [UNIT] * full + noise,
        "few spared": [0] * full + [UNIT - count for count in noise],
    }


def coverage(counts: list[int], drawn: int, least: int, most: int) -> float:
    """Return how often the interval holds the truth."""
    rng = random.Random(drawn)
    truth = sum(counts)
    held = 0
    for _ in range(SAMPLES):
        said = estimate(rng.sample(counts, drawn), len(counts), least, most)
        held += said.low <= truth <= said.high
    return held / SAMPLES


@pytest.mark.parametrize("name", workloads(2))
@pytest.mark.parametrize(("units", "drawn"), SIZES)
def test_interval_holds_the_truth(name: str, units: int, drawn: int) -> None:
    """Once the extremes are known, coverage is 95 %; more for small samples."""
    counts = workloads(units)[name]
    assert coverage(counts, drawn, min(counts), max(counts)) >= 0.95 - NOISE


@pytest.mark.parametrize("name", ["uniform", "few hot, noise"])
def test_first_looks_are_careful(name: str) -> None:
    """Before the extremes are known, each unit may be empty or full."""
    assert coverage(workloads(128)[name], 30, 0, UNIT) >= 0.95 - NOISE


@pytest.mark.parametrize(
    ("units", "drawn"),
    [(8, 2), (8, 5), (20, 10), (128, 3), (128, 10), (128, 30), (128, 100), (500, 60)],
)
def test_interval_holds_any_number_of_full_units(units: int, drawn: int) -> None:
    """The hardest case: units are full or empty, any number of them full; exact."""
    said = [
        estimate([UNIT] * met + [0] * (drawn - met), units, 0, UNIT)
        for met in range(drawn + 1)
    ]
    for full in range(units + 1):
        ways = sum(
            comb(full, met) * comb(units - full, drawn - met)
            for met, one in enumerate(said)
            if one.low <= full * UNIT <= one.high
        )
        assert ways / comb(units, drawn) >= 0.95, full


@pytest.mark.parametrize(
    ("name", "wider"), [("uniform", 1.2), ("clustered", 1.2), ("few hot, noise", 1.6)]
)
def test_interval_is_not_held_by_being_wide(name: str, wider: float) -> None:
    """The interval is little wider than Student's interval from the true spread."""
    units, drawn = 1000, 100
    counts = workloads(units)[name]
    rng = random.Random(3)
    known = (min(counts), max(counts))
    said = [estimate(rng.sample(counts, drawn), units, *known) for _ in range(500)]
    error = sqrt(pvariance(counts) / drawn * (1 - drawn / units))
    plain = 2 * student(drawn - 1) * error * units
    assert fmean(one.high - one.low for one in said) <= wider * plain


def test_a_unit_like_no_other_is_the_limit() -> None:
    """The interval does not cover counts that no look has met, as the guide says."""
    counts = [5] * 127 + [UNIT]
    assert 0.22 <= coverage(counts, 32, 5, 5) <= 0.28  # 32 of 128 draw it
    assert coverage(counts, 32, 5, UNIT) >= 0.95


@pytest.mark.parametrize(
    ("hot", "least"), [(0, 0.95), (1, 0.95), (2, 0.95), (5, 0.95), (20, 0.95)]
)
def test_looks_learn_what_there_is(hot: int, least: float) -> None:
    """The interval holds from the first look on, while hot units are few."""
    rng = random.Random(hot)
    held = looks = 0
    for _ in range(40):
        counts = [UNIT] * hot + [rng.randrange(10) for _ in range(128 - hot)]
        extremes = Extremes()
        for _ in range(60):
            drawn = rng.sample(counts, 20)
            said = estimate(drawn, 128, *extremes.known(UNIT))
            extremes.learn(drawn, 128)
            looks += 1
            held += said.low <= sum(counts) <= said.high
    assert held / looks >= least


def test_extremes_are_forgotten() -> None:
    """Extremes are known after three times all units, and forgotten later."""
    extremes = Extremes()
    for count in (9, 200, 9):
        assert extremes.known(UNIT) == (0, UNIT)
        extremes.learn([count] * 10, 10)
    assert extremes.known(UNIT) == (9, 200)
    for _ in range(3):
        assert extremes.known(UNIT) == (9, 200)
        extremes.learn([10, 20] * 5, 10)
    assert extremes.known(UNIT) == (10, 20)


def test_equal_counts_are_not_exact() -> None:
    """A sample without variance does not prove that all units are equal."""
    said = estimate([0] * 50, 500, 0, UNIT)
    assert (said.low, said.pages) == (0, 0)
    assert said.high > 10 * UNIT
    said = estimate([7] * 50, 500, 0, UNIT)
    assert said.low < said.pages == 7 * 500 < said.high


def test_estimate_has_no_bias() -> None:
    rng = random.Random(8)
    counts = [rng.randint(0, UNIT) for _ in range(500)]
    said = [estimate(rng.sample(counts, 20), 500, 0, UNIT).pages for _ in range(2000)]
    assert abs(fmean(said) - sum(counts)) < 0.01 * sum(counts)


def test_all_tracked_is_no_estimate() -> None:
    said = estimate([3, 4, 5], 3, 0, UNIT)
    assert (said.low, said.pages, said.high, said.share) == (12, 12, 12, 1.0)


def test_one_unit_says_only_what_is_possible() -> None:
    said = estimate([7], 3, 0, UNIT)
    assert (said.low, said.high) == (7, 7 + 2 * UNIT)


def test_student_is_as_in_the_tables() -> None:
    table = {1: 12.706, 4: 2.776, 11: 2.201, 15: 2.131, 30: 2.042, 120: 1.980}
    for freedom, value in table.items():
        assert student(freedom) == pytest.approx(value, abs=0.0025)


@pytest.mark.parametrize(
    ("said", "found", "more", "most", "pages"),
    [
        ((400, 100, 900), 100, 0, 300, (300, 100, 300)),
        ((400, 100, 900), 100, 50, 300, (300, 150, 300)),
        ((0, 0, 900), 7, 0, 900, (7, 7, 900)),
        ((10, 5, 20), 5, 5, 3, (10, 10, 10)),  # a count that is older than the look
    ],
)
def test_estimate_is_possible(
    said: tuple[int, int, int],
    found: int,
    more: int,
    most: int,
    pages: tuple[int, int, int],
) -> None:
    """It says no less than was found, and no more than there can be."""
    made = within_possible(Estimate(*said, 0.5), found, more, most)
    assert made == Estimate(*pages, 0.5)
