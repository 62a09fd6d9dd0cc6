"""The arithmetic of the tracking cost, with invented figures."""

import os
import time

import pytest

from pagescan.model.batch import Batch
from pagescan.model.looks import Look, Tick
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Summary
from pagescan.model.units import now
from pagescan.native import Columns
from pagescan.session.watched import CostWarning
from pagescan.tracking.fault_cost import USUAL, FaultCost
from pagescan.tracking.target_cost import TargetCost, Usage

FAULT = 1e-6


@pytest.fixture
def usages(monkeypatch: pytest.MonkeyPatch) -> list[Usage | None]:
    """The usages that the target will report, the last one first."""
    made: list[Usage | None] = []
    monkeypatch.setattr(Usage, "of", staticmethod(lambda _: made.pop()))
    return made


def after(usages: list[Usage | None], now: Usage | None) -> TargetCost:
    """Return the cost of a target whose usage was 0 and will be `now`."""
    usages += [now, Usage(0.0, 0.0, 0, 0)]
    cost = TargetCost(FaultCost(FAULT))
    cost.begin(4242)
    return cost


def test_share(usages: list[Usage | None]) -> None:
    cost = after(usages, Usage(0.5, 0.2, 60_000, 0))
    assert cost.look(50_000) == pytest.approx(0.1)
    assert cost.share == pytest.approx(0.1)
    assert (cost.used, cost.spent) == pytest.approx((0.5, 0.05))


@pytest.mark.parametrize(
    ("now", "written", "new", "first"),
    [
        (Usage(1, 1, 1000, 0), 50_000, 0, 1000),  # at most the number of faults
        (Usage(1, 1, 50_000, 20_000), 50_000, 0, 30_000),  # the others are growth
        (Usage(1, 1, 50_000, 0), 50_000, 45_000, 5000),  # those are in new mappings
        (Usage(1, 1, 50_000, 60_000), 50_000, 45_000, 0),
        (Usage(1, 1, 50_000, -60_000), 50_000, 0, 50_000),  # it shrank
    ],
)
def test_first_writes(
    usages: list[Usage | None], now: Usage, written: int, new: int, first: int
) -> None:
    """Pages populated since had no protection; pages without a fault cost nothing."""
    share = after(usages, now).look(written, new)
    assert share == pytest.approx(first * FAULT)


@pytest.mark.parametrize("now", [None, Usage(0.0, 0.0, 0, 0)])
def test_nothing_is_known(usages: list[Usage | None], now: Usage | None) -> None:
    """The share is None if the target has ended, or used no processor time."""
    cost = after(usages, now)
    assert cost.look(0) is None
    assert cost.share is None


@pytest.mark.parametrize(
    ("system", "expected"),
    [(0.1, 0.6e-6), (0.02, 0.5e-6), (0.5, 1e-6)],
)
def test_time_in_the_kernel_bounds_the_cost(
    usages: list[Usage | None], system: float, expected: float
) -> None:
    """200,000 faults took no longer than that time; half at most is subtracted."""
    cost = after(usages, Usage(1.0, system, 200_000, 0))
    cost.look(200_000)
    assert cost.fault_seconds == pytest.approx(expected)


def test_a_share_is_no_more_than_all(usages: list[Usage | None]) -> None:
    cost = after(usages, Usage(0.001, 0.001, 10_000, 0))
    assert cost.look(10_000) == 1
    assert cost.share == 1


def test_no_trial_where_it_matters_little(usages: list[Usage | None]) -> None:
    """For a quiet target the usual figure is enough: no child is started."""
    usages += [Usage(1.0, 0.1, 100, 0), Usage(0.0, 0.0, 0, 0)]
    cost = TargetCost()
    cost.begin(4242)
    assert cost.look(100) == pytest.approx(100 * USUAL)
    assert cost.settled


def test_usage_is_that_of_the_process() -> None:
    first = time.process_time()
    before = Usage.of(os.getpid())
    begun = time.process_time()
    while time.process_time() - begun < 0.05:
        pass
    now = Usage.of(os.getpid())
    assert before
    assert now
    whole = time.process_time() - first + 1e-6
    assert 0.05 <= now.since(before).processor < whole
    assert now.resident > 1000
    assert Usage.of(4194303) is None


def test_an_idle_target_is_no_reason_to_warn() -> None:
    """An idle target is no reason to warn: half of a tiny figure is tiny."""
    toll = TargetCost()
    warning = CostWarning(toll)
    nothing = Batch.join(Columns.empty(), MappingSet(), page_size=4096)

    def tick(spent: float) -> Tick:
        toll.last = spent
        cost = Cost(target_share=0.5, target_ns=int(spent * 1e9))
        look = Look(nothing, (), now(), cost)
        return Tick(1, look, now(), 1.0, None, Summary.none())

    assert warning.text(tick(0.0005)) is None
    assert CostWarning(toll, bounded=True).text(tick(0.005)) is None
    assert "--budget 2" in str(warning.text(tick(0.005)))
    assert warning.text(tick(0.005)) is None
