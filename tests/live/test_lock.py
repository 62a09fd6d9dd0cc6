"""The target's mmap lock: each call holds it briefly, and is counted."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pagescan as library
from pagescan import native
from pagescan.model.memory import Kind
from pagescan.native import Meter, Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session.lookup import find_session
from pagescan.target import maps
from pagescan.target.process import Target as Process
from pagescan.target.selection import Selection
from pagescan.tracking import attach
from pagescan.tracking.arm import Armed, Armer
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Result, Target

Start = Callable[..., Target]
Run = Callable[..., Result]

pytestmark = pytest.mark.needs("tracking")
MIB = 256  # pages
SLICE = 4  # MiB of pages of the usual size: 0.17 ms


def mappings(pid: int) -> int:
    """Return how many mappings a process has."""
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def test_disarm_is_sliced_and_counted(armed: Start, pagescan: Run) -> None:
    """Each slice is one call, and the mapping is one again afterwards."""
    before = "m=anon,pages=16384,fill=1"
    made = armed(before)
    count = mappings(made.pid)
    (ended,) = pagescan("disarm", made.pid, "--json").json()["sessions"]
    assert ended["cost"]["ioctls"] >= 16384 // MIB // SLICE
    assert ended["cost"]["scan_ns"] >= ended["cost"]["max_wait_ns"] > 0
    assert mappings(made.pid) == count
    assert not witness.registered(made.pid)


@pytest.mark.parametrize("words", ["m=anon,pages=16384,fill=1", "m=shmem,pages=16384"])
def test_end_of_a_tracking_is_sliced_and_counted(words: str, target: Start) -> None:
    """The same without a keeper."""
    made = target(words)
    count = mappings(made.pid)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process)
        tracking.close()
    assert tracking.end_cost.ioctls >= 16384 // MIB // SLICE
    assert mappings(made.pid) == count
    assert not witness.registered(made.pid)


def test_a_longer_stall_makes_fewer_slices(target: Start) -> None:
    """--max-stall also bounds these calls."""
    made = target("m=anon,pages=16384,fill=1")
    counts = []
    for stall in (200_000, 200_000_000):
        with Process.open(made.pid) as process:
            tracking = Tracking.start(process, pace=Pace(stall))
            tracking.close()
        counts.append(tracking.end_cost.ioctls)
    assert counts[1] < counts[0]


def test_reading_the_mappings_is_counted(target: Start) -> None:
    """Each piece of text from the kernel is a call, and each query of a page size."""
    made = target("m=many,pages=1000", "n=shmem,pages=4")
    text = Path(f"/proc/{made.pid}/maps").read_bytes()
    asked = sum(
        words[3].startswith(b"00:") and words[4] != b"0"
        for words in map(bytes.split, text.splitlines())
    )
    with Process.open(made.pid) as process:
        maps.read(process)
        cost = Scanner(process).take_cost()
        assert Scanner(process).take_cost().ioctls == 0
    assert asked > 0
    assert cost.ioctls >= asked + len(text) // 4096
    assert cost.scan_ns >= cost.max_wait_ns > 0


def test_attaching_and_registering_are_counted(target: Start) -> None:
    """The check whether the userfaultfd is the target's takes four calls."""
    made = target("m=anon,pages=16,fill=1")
    with Process.open(made.pid) as process:
        taken = attach.take(process)
        scanner = Scanner(process)
        assert scanner.take_cost().ioctls >= 4 + 1
        armer = Armer(scanner, taken.uffd, Armed(Selection()))
        there = maps.read(process)
        chosen = [item for item in there if item.kind is Kind.ANON]
        scanner.take_cost()
        registered = armer.register(chosen, there)
        cost = scanner.take_cost()
        os.close(taken.uffd)
    assert len(registered) == len(chosen)
    # Two calls each, of which the first asks whether it has changed; and the scans for
    # bits that an earlier registration has left: one, or two on Linux 7.3. If each call
    # counted twice, there would be 6 for each.
    assert 2 * len(chosen) < cost.ioctls <= 5 * len(chosen)
    assert cost.scan_ns >= cost.max_wait_ns > 0


def test_holes_are_no_slices(target: Start) -> None:
    """Reserved empty memory takes one call, and stays one mapping."""
    made = target("m=anon,pages=4194304", "n=anon,pages=8,fill=1")  # 16 GiB
    made.write("m", {0, 4_000_000})
    count = mappings(made.pid)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process)
        tracking.close()
    assert tracking.end_cost.ioctls < 2048  # 4,096 slices of 4 MiB
    assert mappings(made.pid) == count


def test_death_amid_slices(target: Start) -> None:
    """After a kill the last close unregisters the rest, and the parts merge."""
    made = target("m=anon,pages=16384,fill=1")
    count = mappings(made.pid)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process)
        low, _ = made.ranges["m"]
        middle = low + (6 << 20)
        native.uffd_unregister(
            tracking.uffd, process.pagemap, low, middle,
            align=1, pace=Pace(), meter=Meter(),
        )  # fmt: skip
        assert mappings(made.pid) > count
        tracking.hand_over()  # closes the only descriptor, as death does
    assert mappings(made.pid) == count
    assert not witness.registered(made.pid)
    made.write("m", {5})


def test_unmapped_amid_slices(target: Start) -> None:
    """Parts that no longer exist are skipped."""
    made = target("m=anon,pages=16384,fill=1")
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process)
        before = tracking.mappings.read()
        made.tell("munmap m 1024-8191")
        tracking.armer.disarm(before)
        assert not witness.registered(made.pid)
        tracking.close()


def test_failed_arm_is_undone_in_slices(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registered part is unregistered as at the end."""
    made = target("m=anon,pages=16384,fill=1")
    calls = []
    plain = native.uffd_unregister

    def counted(*words: object, **more: object) -> None:
        calls.append(words)
        plain(*words, **more)  # type: ignore[arg-type]

    def fails(*_: object) -> None:
        raise library.PagescanError("at the last step")

    monkeypatch.setattr(native, "uffd_unregister", counted)
    monkeypatch.setattr(Tracking, "check_armed", fails)
    with Process.open(made.pid) as process:
        with pytest.raises(library.PagescanError, match="last step"):
            Tracking.start(process)
        assert made.ranges["m"] in [words[2:4] for words in calls]
    assert not witness.registered(made.pid)


def test_keeper_told_to_end_leaves_nothing(armed: Start, pagescan: Run) -> None:
    """SIGTERM has the effect of `disarm`: the session is ended, not lost."""
    made = armed("m=anon,pages=1024,fill=1")
    keeper = find_session(made.pid).keeper_pid
    with Process.open(keeper) as process:
        os.kill(keeper, signal.SIGTERM)
        witness.wait_for(process.exited)
    assert not witness.registered(made.pid)
    result = pagescan("diff", made.pid)
    assert (result.code, "no session for" in result.stderr) == (1, True)


_OPENED = """
import sys
names = []
sys.addaudithook(lambda event, words: names.append(str(words[0]))
                 if event == "open" else None)
import pagescan
try:
    pagescan.look_at_session(int(sys.argv[1]))
except pagescan.SessionError as error:
    print(error)
print([name for name in names if name.startswith("/proc/") and "smaps" in name])
"""


def test_no_smaps_to_say_that_there_is_no_session(target: Start) -> None:
    """Smaps is not read: it would walk every page under the lock, in one go."""
    made = target("m=anon,pages=64,fill=1")
    words = [sys.executable, "-c", _OPENED, str(made.pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "no session for" in done.stdout
