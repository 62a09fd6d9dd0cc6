"""`cost.target_share`: the cost of tracking is reported, and within a budget."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median

import pytest

from pagescan.target.process import Target as Process
from pagescan.tracking.fault_cost import FaultCost
from pagescan.tracking.target_cost import TargetCost
from pagescan.tracking.tracking import Tracking
from tests.conftest import Target, checked, command

pytestmark = pytest.mark.needs("tracking")
PAGES = 16384
FAULT = 1e-7  # less than the real cost, so that the share stays below 1
BUSY = f"""
import mmap
memory = mmap.mmap(-1, {PAGES} * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
print("ready", flush=True)
while True:
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
"""


@pytest.fixture
def busy() -> Iterator[int]:
    """A process that writes all of 64 MiB over and over."""
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    yield child.pid
    child.kill()
    child.wait()
    child.stdout.close()


def counted(process: Process) -> Tracking:
    """Track a process, and count the cost."""
    tracking = Tracking.start(process)
    tracking.toll = TargetCost(FaultCost(FAULT))
    tracking.toll.begin(process.pid)
    return tracking


def test_first_writes_are_counted(target: Callable[..., Target]) -> None:
    """Each first write counts once; a second store to a page costs nothing."""
    made = target(f"heap=anon,pages={PAGES},fill=1")
    with Process.open(made.pid) as process, counted(process) as tracking:
        toll = tracking.toll
        assert toll is not None
        made.write("heap", set(range(10_000)))  # the target grows by the long command
        tracking.look(rearm=True)
        for pages in (range(10_000), range(5000, 15_000)):
            before = toll.spent
            made.write("heap", set(pages))
            made.write("heap", set(pages))
            share = tracking.look(rearm=True).cost.target_share
            assert toll.spent - before == pytest.approx(10_000 * FAULT, rel=0.1)
            assert share
            assert 0 < share <= 1
        assert tracking.look().cost.target_share is None  # it moves no baseline


def test_growth_costs_nothing(target: Callable[..., Target]) -> None:
    """Newly populated pages had no protection, though they count as written."""
    made = target(f"heap=anon,pages={PAGES}")
    with Process.open(made.pid) as process, counted(process) as tracking:
        made.write("heap", set(range(10_000)))
        look = tracking.look(rearm=True)
        assert look.batch.summary().pages >= 10_000
        assert tracking.toll
        assert tracking.toll.spent < 500 * FAULT


def test_it_is_said_once(busy: int) -> None:
    """Each look and the totals report it; over 5 % stderr does, once."""
    words = ("watch", busy, "-i", "0.2", "-n", "8")
    result = command(*words, "--json")
    looks = [checked(line) for line in result.stdout.splitlines()]
    shares = [look["cost"]["target_share"] for look in looks]
    assert all(0 <= share <= 1 for share in shares[1:])
    assert max(shares) > 0.05
    assert looks[0]["totals"] is None
    assert min(shares) <= looks[-1]["totals"]["target_share"] <= max(shares)
    assert result.stderr.count("--budget 2") == 1
    assert " of processor time, " in result.stderr.splitlines()[-1]
    times = [look["cost"]["target_ns"] for look in looks]
    assert all(0 < time < 60e9 for time in times[1:])
    assert looks[-1]["totals"]["target_ns"] == pytest.approx(sum(times), rel=0.01)
    assert command(*words, "-q").stderr == ""
    assert command("scan", busy, "--json").json()["cost"]["target_share"] is None


@pytest.mark.parametrize("percent", ["2", "2%"])
def test_budget_is_kept(busy: int, percent: str) -> None:
    """The cost stays in the budget from the third look on; no advice is given."""
    words = ("watch", busy, "-i", "0.5", "-n", "10", "--budget", percent, "-v")
    result = command(*words, "--json")
    looks = [checked(line) for line in result.stdout.splitlines()]
    assert len(looks) == 10, result.stderr
    shares = [look["cost"]["target_share"] for look in looks]
    assert median(shares[2:]) <= 0.02, shares
    assert looks[-1]["estimated"]
    assert "--budget 2" not in result.stderr
    assert "a first write to a page costs about " in result.stderr
