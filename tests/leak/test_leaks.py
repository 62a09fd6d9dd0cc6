"""A thousand rounds of everything: no descriptor, process, thread or memory is left.

PAGESCAN_ROUNDS: how many. Counted are this process, the target and the keeper.
"""

import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import pagescan
from pagescan import api, keeper, session
from pagescan.mappings import Selection
from pagescan.native import Pace
from pagescan.session_tracking import look_at, start
from pagescan.target import Target as Opened
from pagescan.writewatch import WriteWatch
from tests import witness
from tests.conftest import SANITIZED, Target

ROUNDS = int(os.environ.get("PAGESCAN_ROUNDS", "1000"))
TABLES = 16 << 20

Start = Callable[..., Target]

pytestmark = pytest.mark.timeout(60 + ROUNDS // 4)


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    descriptors: Counter[str]
    threads: int
    mappings: int
    children: list[str]
    kib: int

    @classmethod
    def by(cls, pid: int) -> "Held":
        """Count it."""
        gc.collect()
        # A joined thread stays in the list for a moment: the shortest counts.
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
    """Do something again and again; what is held then is what was held before."""

    def repeat(act: Callable[[], object], *pids: int, rounds: int = ROUNDS) -> None:
        for _ in range(max(3, rounds // 10)):  # caches fill, arenas grow
            act()
        watched = (os.getpid(), *pids)
        before = {pid: Held.by(pid) for pid in watched}
        for _ in range(rounds):
            act()
        for pid in watched:
            was, is_now = before[pid], Held.by(pid)
            assert is_now.descriptors == was.descriptors, pid
            assert is_now.threads <= was.threads, pid  # one may have been ending
            assert is_now.children == was.children, pid
            assert abs(is_now.mappings - was.mappings) <= 4, pid  # malloc's own
            # A leak of 2 KiB a round would show; arenas that settle do not.
            assert SANITIZED or is_now.kib - was.kib < max(1024, 2 * rounds), pid

    return repeat


@pytest.fixture
def made(target: Start) -> Target:
    """A small target, in which something is written all the time."""
    return target("m=anon,pages=64,fill=1", "s=shmem,pages=16,fill=1")


def test_scan(made: Target, thousandfold: Callable[..., None]) -> None:
    """`pagescan.scan`, and what its answer is asked for."""

    def act() -> None:
        batch = pagescan.scan(made.pid)
        assert len(list(batch.regions())) == len(batch.starts)
        assert batch.summary().pages > 80

    thousandfold(act, made.pid)


def test_scan_that_fails(made: Target, thousandfold: Callable[..., None]) -> None:
    """Errors close what was open."""

    def act() -> None:
        for words in (["[no such]"], ["0x1000-0x2000"], ["5-4"]):
            with pytest.raises(pagescan.PagescanError):
                pagescan.scan(made.pid, words)
        with pytest.raises(pagescan.TargetError):
            pagescan.scan(4194303)

    thousandfold(act, made.pid)


def test_maps(made: Target, thousandfold: Callable[..., None]) -> None:
    """`pagescan.maps`."""
    thousandfold(lambda: pagescan.maps(made.pid), made.pid)


@pytest.mark.needs("tracking")
def test_track(made: Target, thousandfold: Callable[..., None]) -> None:
    """Attach, arm, look and rearm, disarm."""

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
    """Looks with and without rearm, while mappings come and go."""
    with pagescan.track(made.pid) as tracking:

        def act() -> None:
            made.write("m", {3})
            made.tell("again s")
            list(tracking.written(rearm=False))
            list(tracking.written(rearm=True))

        thousandfold(act, made.pid)


@pytest.mark.needs("tracking")
def test_track_that_fails(made: Target, thousandfold: Callable[..., None]) -> None:
    """What cannot be armed leaves nothing, in the target neither."""

    def act() -> None:
        with pytest.raises(pagescan.PagescanError, match="nothing of the selection"):
            pagescan.track(made.pid, ["[vvar]"])
        with pytest.raises(pagescan.PagescanError, match="no mapping is named"):
            pagescan.track(made.pid, ["[no such]"])

    thousandfold(act, made.pid)
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_track_oneself(thousandfold: Callable[..., None]) -> None:
    """`pagescan.track(None)`: without ptrace, in this process.

    Of the stack: this process may have gigabytes of heap by now.
    """

    def act() -> None:
        with api.track(None, ["[stack]"]) as tracking:
            list(tracking.written())

    thousandfold(act)


@pytest.mark.needs("tracking")
def test_written_pages(thousandfold: Callable[..., None]) -> None:
    """`pagescan.written_pages`, one in the other, and one that fails.

    Of the stack, as above.
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
    assert witness.registered(os.getpid()) <= 1  # a WriteWatch's, until it is freed


@pytest.fixture
def opened(made: Target) -> Iterator[session.Session]:
    """A session of the target, kept by a keeper."""
    with Opened.open(made.pid) as target:
        start(target, Selection(), max_tables=TABLES, pace=Pace())
    found = session.find(made.pid)
    yield found
    keeper.end(found)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("rearm", [False, True])
def test_diffs_of_one_session(
    made: Target,
    opened: session.Session,
    thousandfold: Callable[..., None],
    rearm: bool,
) -> None:
    """A look through the keeper, which lives on: nothing adds up in it."""

    def act() -> None:
        made.write("m", {7})
        before, look = look_at(session.find(None), rearm=rearm, pace=Pace())
        assert before.target.pid == made.pid
        assert look.batch.summary().pages >= 1

    thousandfold(act, made.pid, opened.keeper_pid)


@pytest.mark.needs("tracking")
def test_plans_of_one_session(
    made: Target, opened: session.Session, thousandfold: Callable[..., None]
) -> None:
    """A chain of epochs, acknowledged both ways, and an answer to `changed`."""

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
    """Arm, diff and disarm: keepers come and go. A process each: fewer rounds."""

    def act() -> None:
        with Opened.open(made.pid) as target:
            start(target, Selection(), max_tables=TABLES, pace=Pace())
        found = session.find(made.pid)
        look_at(found, rearm=True, pace=Pace())
        keeper.end(found)
        # The keeper is a child of ours here, and nobody else waits for it.
        os.waitpid(found.keeper_pid, 0)

    thousandfold(act, made.pid, rounds=max(1, ROUNDS // 20))
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_write_watch(thousandfold: Callable[..., None]) -> None:
    """Memory that is watched is freed, and taken out of the userfaultfd."""

    def act() -> None:
        with WriteWatch(1 << 20) as watch:
            buffer = watch.buffer
            buffer[5000] = 1
            buffer.release()
            addresses, size = watch.get(reset=True)
            assert [(at - watch.address) // size for at in addresses] == [1]
            watch.reset()

    thousandfold(act)
