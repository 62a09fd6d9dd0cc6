"""The countdown to the next look, and the line about the cost."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pagescan.commands.live_parts import countdown
from pagescan.commands.tick_text import end_line
from pagescan.model.batch import Batch
from pagescan.model.looks import Look, Tick, WatchedFacts
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Summary, TargetFacts
from pagescan.native import Columns
from pagescan.render.live_view.cost_line import cost_of_target
from pagescan.render.live_view.view_state import ViewState
from pagescan.tracking.ticks import Limits

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HIGH = Cost(target_share=0.123, target_ns=123_000_000, max_wait_ns=104_000, ioctls=4)


class Screen:
    """Counts how often it is drawn."""

    drawn = 0

    def refresh(self) -> None:
        """Count."""
        self.drawn += 1


class View:
    """A view that shows nothing."""

    state = ViewState()
    seconds_left: int | None = None

    def press(self, keys: object) -> None:
        """Do nothing."""


def test_countdown_draws_once_per_second() -> None:
    """A key wakes the loop in between: that is no reason to draw."""
    view, screen, limits = View(), Screen(), Limits(60)
    wait = countdown(view, screen, limits)  # type: ignore[arg-type]
    assert wait(59.25) == 0.25
    assert (view.seconds_left, screen.drawn) == (60, 1)
    assert wait(59.1) == pytest.approx(0.1)
    assert screen.drawn == 1
    assert wait(59.0) == 1
    assert (view.seconds_left, screen.drawn) == (59, 2)
    limits.paused = True
    assert wait(58.5) == math.inf
    assert (view.seconds_left, screen.drawn) == (None, 3)


@pytest.mark.parametrize(
    ("interval", "left"), [(1.0, 0.9), (2.0, 2.0), (60.0, math.inf)]
)
def test_no_countdown_of_a_short_interval(interval: float, left: float) -> None:
    """Nor without a time at which the look comes."""
    view, screen = View(), Screen()
    wait = countdown(view, screen, Limits(interval))  # type: ignore[arg-type]
    assert wait(left) == math.inf
    assert (view.seconds_left, screen.drawn) == (None, 0)


def tick(cost: Cost, share: float | None = None) -> Tick:
    """Return a tick of one second, whose look had a cost."""
    batch = Batch.join(Columns.empty(), MappingSet(), page_size=4096)
    look = Look(batch, (), NOON, cost)
    totals = Summary(1, 7, 7 << 12, {})
    return Tick(3, look, NOON, 1.0, "interrupted", totals, share, None, 42_000_000)


FACTS = WatchedFacts(TargetFacts(42, "x", None, 1, 4096), 1 << 20, 0, 204_000)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_a_high_cost_leaves_the_stop_in_the_line(width: int, sampled: bool) -> None:
    """The line begins where it begins with a low cost, and has one share."""
    low = replace(HIGH, target_share=0.012, target_ns=12_000_000)
    usual = cost_of_target(FACTS, tick(low), width, sampled=sampled).plain
    line = cost_of_target(FACTS, tick(HIGH), width, sampled=sampled).plain
    assert "stopped once 204 µs" in line
    assert line.startswith("cost: 12 %")
    assert usual.startswith("cost: 12 ms/s, 1.2 % of its processor time")
    assert line.count("%") == (1 if sampled or width == 60 else 2)
    assert ("--budget 2" in line) != sampled
    assert ("w ends" in line) == sampled
    assert max(len(line), len(usual)) <= width


def test_the_end_names_one_share_and_the_remedy() -> None:
    """The remedy stands beside the cost of all looks, if that is high."""
    remedy = "--budget 2 keeps that to 2 %"
    line = end_line(tick(HIGH, 0.082), Cost(), remedy=remedy)
    assert "42 ms of processor time, 8.2 % of its own (--budget 2 keeps" in line
    assert remedy not in end_line(tick(HIGH, 0.031), Cost(), remedy=remedy)
    assert "(" not in end_line(tick(HIGH, 0.082), Cost()).split("tracking", 1)[1]
