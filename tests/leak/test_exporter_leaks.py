"""The exporter in fast motion: ticks and scrapes without a pause leave nothing behind.

PAGESCAN_TICKS sets their number: 100,000 are 24 hours of a tick every 0.86 s. Members
come and go all the time.
"""

import gc
import os
import subprocess
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagescan.exporter.collector import MemoryCollector, families
from pagescan.exporter.counters import WrittenCounter
from pagescan.native import Pace
from pagescan.session.watched import Terms
from pagescan.target.group import Match
from pagescan.target.selection import Selection
from pagescan.tracking.fault_cost import USUAL, FaultCost
from tests import witness

TICKS = int(os.environ.get("PAGESCAN_TICKS", "800"))
_EACH = 50  # ticks after which the oldest member is replaced
MARK = f"pagescan-leak-{os.getpid()}"

pytestmark = [
    pytest.mark.needs("prometheus_client", "tracking"),
    pytest.mark.timeout(120 + TICKS // 10),
]


def member() -> "subprocess.Popen[bytes]":
    """Start a process that lives until its input ends."""
    process = subprocess.Popen(
        ["sh", "-c", f": {MARK}; echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def members() -> "Iterator[deque[subprocess.Popen[bytes]]]":
    """Three processes, the oldest first."""
    living = deque(member() for _ in range(3))
    yield living
    for process in living:
        process.communicate()


def replace_oldest(living: "deque[subprocess.Popen[bytes]]") -> None:
    living.popleft().communicate()
    living.append(member())


def held() -> tuple[int, int, int]:
    """Return the descriptors, the threads and the KiB of this process."""
    gc.collect()
    me = Path("/proc/self")
    tasks = len(list((me / "task").iterdir()))
    kib = int(witness.status(os.getpid(), "VmRSS").split()[0])
    return len(list((me / "fd").iterdir())), tasks, kib


def test_a_day_in_fast_motion(members: "deque[subprocess.Popen[bytes]]") -> None:
    """Descriptors, threads and memory stay what they are; so does the output."""
    said: list[str] = []
    terms = Terms(Selection(), Pace(), fault=FaultCost(USUAL))
    with MemoryCollector([Match(MARK)], say=said.append) as collector:
        counter = WrittenCounter(
            collector.grouping, terms, said.append, end_early=lambda: False
        )
        collector.counter = counter
        collector.fresh = 0.0

        def run(ticks: int) -> int:
            series = 0
            for number in range(ticks):
                if number % _EACH == 0:
                    replace_oldest(members)
                counter.tick()
                if number % 10 == 0:
                    reading = collector.read()
                    series = sum(len(one.samples) for one in families(reading))
            return series

        with counter:
            first = run(max(TICKS // 10, 300))
            before = held()
            assert run(TICKS) == first
            after = held()
        print(f"{TICKS} ticks: {before}, {after}")  # noqa: T201 - pytest -s
        assert after[0] == before[0]
        assert after[1] <= before[1]  # a thread may have been about to end
        assert after[2] - before[2] < 2048
        assert said == []
        assert counter.counted().ticks >= TICKS
    assert not any(witness.registered(process.pid) for process in members)
