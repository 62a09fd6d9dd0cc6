"""A thread that holds the target's mmap lock keeps its processor, where it may."""

import os
import threading
from collections.abc import Callable, Iterator

import pytest

import pagescan
from tests import witness
from tests.conftest import Target

pytestmark = pytest.mark.needs("tracking", "root")

Start = Callable[..., Target]


class Working(threading.Thread):
    """Repeats an action until it is told to end.

    Attributes:
        policy: The scheduling policy of this thread after the last action.
    """

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__()
        self._act = act
        self.over = threading.Event()
        self.policy = -1

    def run(self) -> None:
        """Act."""
        while not self.over.is_set():
            self._act()
        self.policy = os.sched_getscheduler(0)

    def has(self, policy: int) -> bool:
        """Whether the thread has a policy at this moment."""
        return os.sched_getscheduler(self.native_id or 0) == policy


@pytest.fixture
def working() -> Iterator[Callable[[Callable[[], object]], Working]]:
    """Start threads; all end with the test, with their usual policy."""
    started: list[Working] = []

    def start(act: Callable[[], object]) -> Working:
        started.append(Working(act))
        started[-1].start()
        return started[-1]

    yield start
    for thread in started:
        thread.over.set()
        thread.join()
        assert thread.policy == os.SCHED_OTHER


def test_during_a_scan(
    target: Start, working: Callable[[Callable[[], object]], Working]
) -> None:
    """A scan has SCHED_RR in its calls, and the usual policy between scans."""
    made = target("m=anon,pages=2000,fill=1")
    thread = working(lambda: pagescan.maps(made.pid))
    witness.wait_for(lambda: thread.has(os.SCHED_RR))
    witness.wait_for(lambda: thread.has(os.SCHED_OTHER))


def test_during_a_look(
    target: Start, working: Callable[[Callable[[], object]], Working]
) -> None:
    """So has a look that protects pages again."""
    made = target("m=anon,pages=2000,fill=1")
    with pagescan.track(made.pid) as tracking:
        thread = working(lambda: tracking.look(rearm=True))
        witness.wait_for(lambda: thread.has(os.SCHED_RR))
        thread.over.set()
        thread.join()


def test_without_the_right(target: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel refuses, the policy stays, and the look is the same."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    made = target("m=anon,pages=20,fill=1")
    with pagescan.track(made.pid) as tracking:
        made.write("m", {1, 5})
        found = tracking.look(rearm=True).batch
        low, high = made.ranges["m"]
        assert [
            (start - low) // 4096 for start in found.starts if low <= start < high
        ] == [1, 5]


def test_a_policy_that_the_caller_has_set(target: Start) -> None:
    """A caller with a policy of its own keeps it."""
    made = target("m=anon,pages=20,fill=1")
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        pagescan.maps(made.pid)
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
