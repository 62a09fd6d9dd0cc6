"""Threads that store all the time, rearms without pause: none missed, none invented.

The target counts, per page, the stores begun and the stores done. The counters are read
between the looks and judge them: a store that was begun and done between two readings
is in the look between them or in the next. And for each page in a look, a store was
begun or going on since the reading before the last one.
"""

import os
from array import array
from collections.abc import Callable, Sequence

import pytest

from pagescan.target.process import Target as Process
from pagescan.tracking.sample import Budget
from pagescan.tracking.sampled import SampledTracking
from pagescan.tracking.tracking import Tracking
from tests.conftest import PAGE, Target

pytestmark = pytest.mark.needs("tracking")
PAGES = 4096
LOOKS = 400


def within_a_budget(process: Process) -> Tracking:
    """Track with a budget that pays for all memory: as exact as without a budget."""
    return SampledTracking.start_within(Budget(1e9), process)


@pytest.mark.parametrize(
    "kind",
    [
        f"anon,pages={PAGES},fill=1",
        f"anon,pages={PAGES}",
        f"shmem,pages={PAGES},fill=1",
        pytest.param(f"thp,pages={PAGES},fill=1", marks=pytest.mark.needs("thp")),
    ],
)
@pytest.mark.parametrize("start", [Tracking.start, within_a_budget])
def test_storm(
    kind: str, start: Callable[[Process], Tracking], target: Callable[..., Target]
) -> None:
    made = target(f"m={kind}", f"counters=anon,pages={PAGES * 16 // PAGE},fill=1")
    made.tell(f"zero counters 0-{PAGES * 16 // PAGE - 1}")
    low, high = made.ranges["m"]
    first, last = made.ranges["counters"]
    memory = os.open(f"/proc/{made.pid}/mem", os.O_RDONLY)

    def counters() -> tuple[Sequence[int], Sequence[int]]:
        numbers = array("Q", os.pread(memory, last - first, first))
        return numbers[::2], numbers[1::2]

    with Process.open(made.pid) as process:
        tracking = start(process)
        done_before: set[int] = set()
        begun_before: set[int] = set()
        seen_before: set[int] = set()
        begun, done = counters()
        made.tell("storm m 4")
        missed = extra = stored = 0
        for _ in range(LOOKS):
            batch = tracking.look(rearm=True).batch
            seen = {
                (address - low) // PAGE
                for first, last in zip(batch.starts, batch.ends, strict=True)
                for address in range(max(first, low), min(last, high), PAGE)
            }
            going_on = {page for page in range(PAGES) if begun[page] != done[page]}
            begun_then, done_then = begun, done
            begun, done = counters()
            now_begun = {
                page for page in range(PAGES) if begun[page] != begun_then[page]
            }
            now_done = {page for page in range(PAGES) if done[page] != done_then[page]}
            missed += len(done_before - seen_before - seen)
            extra += len(seen - now_begun - going_on - begun_before)
            stored += len(now_done)
            # A store that was going on may have been stored, and found, earlier.
            now_done -= going_on
            done_before, begun_before, seen_before = now_done, now_begun, seen
            begun_before |= going_on
        tracking.close()
    os.close(memory)
    print(LOOKS, "looks:", stored, "pages,", missed, "missed,", extra, "extra")  # noqa: T201 - pytest -s
    assert stored > LOOKS
    assert (missed, extra) == (0, 0)
