"""Many rounds of each function leave no descriptor, process, thread or memory.

PAGESCAN_ROUNDS sets their number. This process, the target and the keeper are
counted.
"""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pagescan
from pagescan.native import Pace
from pagescan.session import api, spawn as keeper
from pagescan.session.delivery import look_at
from pagescan.session.lookup import find_session
from pagescan.session.opened import start
from pagescan.session.record import Session
from pagescan.target.process import Target as Opened
from pagescan.target.selection import Selection
from pagescan.writewatch import WriteWatch
from tests import witness
from tests.conftest import SANITIZED, Target

ROUNDS = int(os.environ.get("PAGESCAN_ROUNDS", "200"))
TABLES = 16 << 20

Start = Callable[..., Target]

pytestmark = pytest.mark.timeout(60 + ROUNDS // 4)


@dataclass(frozen=True)
class Held:
    """The descriptors, threads, mappings and memory of a process."""

    descriptors: Counter[str]
    threads: int
    mappings: int
    children: list[str]
    kib: int

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Count them."""
        gc.collect()
        # A joined thread stays in the list for a moment, so the shortest list counts.
        lists = (list(Path(f"/proc/{pid}/task").iterdir()) for _ in range(200))
        tasks = min(lists, key=len)
        names = witness.descriptors(pid).values()
        return cls(
            Counter(name for name in names if name != f"/proc/{os.getpid()}/fd"),
            len(tasks),
            len(Path(f"/proc/{pid}/maps").read_text().splitlines()),
            [
                child
                for task in tasks
                for child in (task / "children").read_text().split()
            ],
            int(witness.status(pid, "VmRSS").split()[0]),
        )


@pytest.fixture
def thousandfold() -> Callable[..., None]:
    """Repeat a function, and assert that this process holds as much as before."""

    def repeat(act: Callable[[], object], *pids: int, rounds: int = ROUNDS) -> None:
        for _ in range(max(3, rounds // 10)):  # caches and arenas grow
            act()
        watched = (os.getpid(), *pids)
        before: dict[int, Held] = {}
        after: dict[int, Held] = {}
        # Threads of other tests' libraries may take memory; a leak shows each time.
        for _ in range(2):
            before = {pid: Held.by(pid) for pid in watched}
            for _ in range(rounds):
                act()
            after = {pid: Held.by(pid) for pid in watched}
            if all(after[pid].kib - before[pid].kib < 1024 for pid in watched):
                break
        for pid in watched:
            was, is_now = before[pid], after[pid]
            assert is_now.descriptors == was.descriptors, pid
            assert is_now.threads <= was.threads, pid  # one may have been about to end
            assert is_now.children == was.children, pid
            assert abs(is_now.mappings - was.mappings) <= 4, pid  # malloc's own
            # A leak of 2 KiB per round would show; arenas that settle do not.
            assert SANITIZED or is_now.kib - was.kib < max(1024, 2 * rounds), pid

    return repeat


@pytest.fixture
def made(target: Start) -> Target:
    """A small target in which pages are written all the time."""
    return target("m=anon,pages=64,fill=1", "s=shmem,pages=16,fill=1")


def test_scan(made: Target, thousandfold: Callable[..., None]) -> None:
    """`pagescan.scan` leaks nothing, nor do the methods of its answer."""

    def act() -> None:
        batch = pagescan.scan(made.pid)
        assert len(list(batch.regions())) == len(batch.starts)
        assert batch.summary().pages > 80

    thousandfold(act, made.pid)


def test_scan_that_fails(made: Target, thousandfold: Callable[..., None]) -> None:
    """A scan that fails closes what it opened."""

    def act() -> None:
        for words in (["[no such]"], ["0x1000-0x2000"], ["5-4"]):
            with pytest.raises(pagescan.PagescanError):
                pagescan.scan(made.pid, words)
        with pytest.raises(pagescan.TargetError):
            pagescan.scan(4194303)

    thousandfold(act, made.pid)


def test_maps(made: Target, thousandfold: Callable[..., None]) -> None:
    """`pagescan.maps` leaks nothing."""
    thousandfold(lambda: pagescan.maps(made.pid), made.pid)


@pytest.mark.needs("tracking")
def test_track(made: Target, thousandfold: Callable[..., None]) -> None:
    """Attach, arm, look, rearm and disarm leak nothing."""

    def act() -> None:
        with pagescan.track(made.pid) as tracking:
            made.write("m", {1, 5})
            low, high = made.ranges["m"]
            found = [
                region
                for region in tracking.written(rearm=True)
                if low <= region.start < high
            ]
            assert sum(region.pages for region in found) == 2

    thousandfold(act, made.pid)
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_looks_of_one_tracking(made: Target, thousandfold: Callable[..., None]) -> None:
    """Looks with and without rearm leak nothing while mappings come and go."""
    with pagescan.track(made.pid) as tracking:

        def act() -> None:
            made.write("m", {3})
            made.tell("again s")
            list(tracking.written(rearm=False))
            list(tracking.written(rearm=True))

        thousandfold(act, made.pid)


@pytest.mark.needs("tracking")
def test_track_that_fails(made: Target, thousandfold: Callable[..., None]) -> None:
    """A tracking that cannot be armed leaves nothing, nor in the target."""

    def act() -> None:
        with pytest.raises(pagescan.PagescanError, match="nothing of the selection"):
            pagescan.track(made.pid, ["[vvar]"])
        with pytest.raises(pagescan.PagescanError, match="no mapping is named"):
            pagescan.track(made.pid, ["[no such]"])

    thousandfold(act, made.pid)
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_track_oneself(thousandfold: Callable[..., None]) -> None:
    """`pagescan.track(None)` leaks nothing in this process, without ptrace.

    Only the stack is tracked, because this process may have gigabytes of heap.
    """

    def act() -> None:
        with api.track(None, ["[stack]"]) as tracking:
            list(tracking.written())

    thousandfold(act)


@pytest.mark.needs("tracking")
def test_written_pages(thousandfold: Callable[..., None]) -> None:
    """`pagescan.written_pages` leaks nothing, nested and with an error.

    Only the stack is tracked, as above.
    """

    def act() -> None:
        stack = ["[stack]"]
        block = pagescan.written_pages
        with block(stack) as outer, block(stack) as inner:
            list(range(100))
        with pytest.raises(pagescan.PagescanError, match="no mapping is named"):
            pagescan.written_pages(["[no such]"]).__enter__()
        assert inner.pages <= outer.pages

    thousandfold(act)
    assert witness.registered(os.getpid()) <= 1  # a WriteWatch may live


@pytest.fixture
def opened(made: Target) -> Iterator[Session]:
    """A session of the target, with a keeper."""
    with Opened.open(made.pid) as target:
        start(target, Selection(), max_tables=TABLES, pace=Pace())
    found = find_session(made.pid)
    yield found
    keeper.end(found)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("rearm", [False, True])
def test_diffs_of_one_session(
    made: Target,
    opened: Session,
    thousandfold: Callable[..., None],
    rearm: bool,
) -> None:
    """Looks through one keeper, which lives on, leak nothing in it."""

    def act() -> None:
        made.write("m", {7})
        before, look = look_at(find_session(None), rearm=rearm, pace=Pace())
        assert before.target.pid == made.pid
        assert look.batch.summary().pages >= 1

    thousandfold(act, made.pid, opened.keeper_pid)


@pytest.mark.needs("tracking")
def test_plans_of_one_session(
    made: Target, opened: Session, thousandfold: Callable[..., None]
) -> None:
    """A chain of epochs leaks nothing, acknowledged both ways, with `changed`."""

    def act() -> None:
        made.write("m", {7})
        begun = pagescan.dump_plan(made.pid, 0)
        assert begun.epoch is not None
        assert pagescan.changed(made.pid, begun.epoch) in (True, False)
        following = pagescan.dump_plan(made.pid, begun.epoch)
        assert following.parent == begun.epoch
        pagescan.acknowledge(made.pid, following.epoch or 0)
        assert pagescan.dump_plan(made.pid).pages()["dump"] > 64

    thousandfold(act, made.pid, opened.keeper_pid)


@pytest.mark.needs("tracking")
def test_sessions(made: Target, thousandfold: Callable[..., None]) -> None:
    """Arm, diff and disarm leak nothing; each is a process, so fewer rounds."""

    def act() -> None:
        with Opened.open(made.pid) as target:
            start(target, Selection(), max_tables=TABLES, pace=Pace())
        found = find_session(made.pid)
        look_at(found, rearm=True, pace=Pace())
        keeper.end(found)
        # The keeper is a child of this process here, and no other process waits for it.
        os.waitpid(found.keeper_pid, 0)

    thousandfold(act, made.pid, rounds=max(1, ROUNDS // 20))
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_write_watch(thousandfold: Callable[..., None]) -> None:
    """Watched memory is freed, and removed from the userfaultfd."""

    def act() -> None:
        with WriteWatch(1 << 20) as watch:
            buffer = watch.buffer
            buffer[5000] = 1
            buffer.release()
            addresses, size = watch.get(reset=True)
            assert [(at - watch.address) // size for at in addresses] == [1]
            watch.reset()

    thousandfold(act)
