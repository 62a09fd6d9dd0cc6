"""Huge pages that tracking splits are put back, except what the target dropped."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pagescan as library
from pagescan.native import Pace
from pagescan.session.lookup import find_session
from pagescan.target.process import Target as Process
from pagescan.tracking.tracking import Tracking
from tests import machine, witness
from tests.conftest import Result, Target, command

Start = Callable[..., Target]
Run = Callable[..., Result]

pytestmark = pytest.mark.needs("tracking", "thp")
HUGE = 512  # pages
BYTES = 2 << 20
SPLIT = {unit * HUGE + 5 for unit in range(16)}
WORDS = f"m=thp,pages={32 * HUGE},fill=1"
SLOW = Pace(pause_ns=3_000_000)


def huge(pid: int, field: str = "AnonHugePages") -> int:
    """Return how many huge pages a process has, according to smaps."""
    return (
        sum(int(size.split()[0]) for size in witness.smaps(pid, field).values()) >> 11
    )


def rss(pid: int) -> int:
    """Return the resident memory of a process in kB, according to smaps."""
    sizes = witness.smaps(pid, "Rss").values()
    return sum(int(size.split()[0]) for size in sizes)


class Watched:
    """`pagescan watch` in the background, with one JSON document per look."""

    def __init__(self, pid: int, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pagescan", "watch", str(pid), "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "watching" in line:
                break
        self.costs: list[dict[str, int]] = []
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        """Take the cost of each look as it arrives."""
        assert self.process.stdout is not None
        self.costs.extend(json.loads(line)["cost"] for line in self.process.stdout)

    def end(self, number: int = signal.SIGINT) -> tuple[list[dict[str, int]], str]:
        """End it by a signal; return the cost of each look, and its stderr."""
        self.process.send_signal(number)
        self.reader.join()
        _, said = self.process.communicate()
        return self.costs, said


def by_disarm(made: Target, *words: str) -> tuple[dict[str, int], str]:
    """Arm, let the target store to 16 huge pages, and disarm."""
    command("arm", made.pid)
    made.write("m", SPLIT)
    ended = command("disarm", made.pid, "--json", *words)
    return ended.json()["sessions"][0]["cost"], ended.stderr


def by_watch(made: Target, *words: str) -> tuple[dict[str, int], str]:
    """The same with `watch` and Ctrl-C."""
    watch = Watched(made.pid, "-i", "60", *words)
    made.write("m", SPLIT)
    costs, said = watch.end()
    return costs[-1], said


@pytest.mark.parametrize("end", [by_disarm, by_watch])
def test_huge_pages_are_back(
    end: Callable[..., tuple[dict[str, int], str]], target: Start
) -> None:
    made = target(WORDS)
    before, resident = huge(made.pid), rss(made.pid)
    assert before == 32
    cost, _ = end(made)
    assert huge(made.pid) == before
    assert rss(made.pid) <= resident + 256
    assert (cost["huge_restored"], cost["huge_lost"]) == (16 * BYTES, 0)
    assert not witness.registered(made.pid)


@pytest.mark.parametrize("end", [by_disarm, by_watch])
def test_they_stay_split_where_that_is_asked_for(
    end: Callable[..., tuple[dict[str, int], str]], target: Start
) -> None:
    made = target(WORDS)
    cost, said = end(made, "--no-restore-huge")
    assert huge(made.pid) == 16
    assert (cost["huge_restored"], cost["huge_lost"]) == (0, 16 * BYTES)
    assert "CAP_SYS_NICE" not in said


def test_keeper_told_to_end(target: Start) -> None:
    """SIGTERM puts them back, as `disarm` does."""
    made = target(WORDS)
    command("arm", made.pid)
    made.write("m", SPLIT)
    contents = made.tell("checksum m")
    assert huge(made.pid) == 16
    keeper = find_session(made.pid).keeper_pid
    with Process.open(keeper) as process:
        os.kill(keeper, signal.SIGTERM)
        witness.wait_for(process.exited)
    assert not witness.registered(made.pid)
    assert huge(made.pid) == 32
    assert made.tell("checksum m") == contents


@pytest.mark.parametrize("restore", [True, False])
def test_track(restore: bool, target: Start) -> None:
    """The library puts them back too, and does not if told so."""
    made = target(WORDS)
    contents = None
    with library.track(made.pid, restore_huge=restore) as tracking:
        made.write("m", SPLIT)
        contents = made.tell("checksum m")
        assert huge(made.pid) == 16
    assert huge(made.pid) == (32 if restore else 16)
    assert made.tell("checksum m") == contents
    cost = tracking.end_cost
    expected = (16 * BYTES, 0) if restore else (0, 16 * BYTES)
    assert (cost.huge_restored, cost.huge_lost) == expected


def test_what_was_dropped_stays_dropped(target: Start) -> None:
    """Dropped huge pages, dropped parts of them, and guards in them stay so."""
    made = target(WORDS)
    low, high = made.ranges["m"]
    with library.track(made.pid) as tracking:
        made.write("m", SPLIT)
        made.tell(f"dontneed m {3 * HUGE}-{4 * HUGE - 1}")
        made.tell(f"dontneed m {4 * HUGE + 10}-{4 * HUGE + 19}")
        made.tell(f"guard m {5 * HUGE + 7}-{5 * HUGE + 7}")
        present, resident = witness.present(made.pid, low, high), rss(made.pid)
    assert witness.present(made.pid, low, high) == present
    assert rss(made.pid) <= resident + 256
    assert huge(made.pid) == 32 - 3
    assert tracking.end_cost.huge_restored == 13 * BYTES
    assert tracking.end_cost.huge_lost == (HUGE - 10 + HUGE - 1) * 4096


def test_what_is_on_swap_stays_there(target: Start) -> None:
    if reason := _no_swap():
        pytest.skip(reason)
    with machine.swap_file(64):
        made = target(WORDS)
        low, high = made.ranges["m"]
        with library.track(made.pid):
            made.write("m", SPLIT)
            made.tell(f"pageout m {2 * HUGE}-{2 * HUGE + 99}")
            swapped = witness.swapped(made.pid, low, high)
            assert swapped
        assert witness.swapped(made.pid, low, high) == swapped
        assert huge(made.pid) == 31
        made.tell("quit")


def _no_swap() -> str | None:
    return None if os.geteuid() == 0 else "swap cannot be added by this user"


def test_what_a_child_shares_stays_shared(target: Start) -> None:
    """Huge pages shared with a child stay split; the parent's own are back."""
    made = target(WORDS)
    with library.track(made.pid) as tracking:
        made.write("m", SPLIT)
        child = int(made.tell("fork"))
        made.write("m", set(range(4 * HUGE)))  # now private copies
        resident = rss(made.pid), rss(child)
    assert tracking.end_cost.huge_restored == 4 * BYTES
    assert tracking.end_cost.huge_lost == 12 * BYTES
    assert rss(made.pid) <= resident[0] + 256
    assert rss(child) <= resident[1] + 256
    made.tell(f"reap {child}")


def test_shared_memory(target: Start) -> None:
    """Shared huge pages are mapped as huge again; a punched hole stays a hole."""
    made = target(f"m=thp,shared=1,pages={8 * HUGE},fill=1")
    made.tell(f"collapse m 0-{8 * HUGE - 1}")
    assert huge(made.pid, "ShmemPmdMapped") == 8
    (file,) = Path(f"/proc/{made.pid}/map_files").glob(f"{made.ranges['m'][0]:x}-*")
    with library.track(made.pid) as tracking:
        made.write("m", {unit * HUGE + 3 for unit in range(7)})
        assert huge(made.pid, "ShmemPmdMapped") == 0
        made.tell("punch m 1-9")
        blocks = file.stat().st_blocks
    assert huge(made.pid, "ShmemPmdMapped") == 7
    assert file.stat().st_blocks == blocks
    assert tracking.end_cost.huge_restored == 7 * BYTES


def test_without_the_right(target: Start) -> None:
    """Without CAP_SYS_NICE one message says so, if there is a huge page to restore."""
    words = ["setpriv", "--bounding-set=-sys_nice", sys.executable, "-m", "pagescan"]
    said = []
    made = target(WORDS)
    for pages in (set(), SPLIT):
        command("arm", made.pid)
        made.write("m", pages)
        done = subprocess.run(
            [*words, "disarm", str(made.pid), "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        cost = json.loads(done.stdout)["sessions"][0]["cost"]
        said.append((done.stderr.count("CAP_SYS_NICE"), cost["huge_lost"]))
    assert said == [(0, 0), (1, 16 * BYTES)]
    assert huge(made.pid) == 16


def test_early_end(target: Start) -> None:
    """After an early end the rest stays split and is counted; nothing is registered."""
    made = target(WORDS)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process, pace=SLOW)
        made.write("m", SPLIT | {unit * HUGE for unit in range(16, 32)})
        tracking.end_early = lambda: True
        tracking.close()
    done = tracking.restored
    assert done.interrupted
    assert "interrupted" in (done.note or "")
    assert 0 < done.restored < 32 * BYTES
    assert done.restored + done.lost == 32 * BYTES
    assert huge(made.pid) == done.restored // BYTES
    assert not witness.registered(made.pid)


def test_ctrl_c_amid_it(target: Start) -> None:
    """KeyboardInterrupt is raised after all other work of the end is done."""
    made = target(WORDS)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process, pace=SLOW)
        made.write("m", SPLIT | {unit * HUGE for unit in range(16, 32)})
        tracking.scanner.pace = SLOW

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        asked: list[bool] = []

        def early() -> bool:
            if not asked:
                asked.append(True)
                signal.raise_signal(signal.SIGALRM)
            return False

        before = signal.signal(signal.SIGALRM, interrupt)
        tracking.end_early = early
        try:
            with pytest.raises(KeyboardInterrupt):
                tracking.close()
        finally:
            signal.signal(signal.SIGALRM, before)
    assert tracking.uffd == -1
    assert tracking.restored.restored + tracking.restored.lost == 32 * BYTES
    assert not witness.registered(made.pid)


def test_target_ends_amid_it(target: Start) -> None:
    made = target(WORDS)
    with Process.open(made.pid) as process:
        tracking = Tracking.start(process, pace=SLOW)
        made.write("m", SPLIT | {unit * HUGE for unit in range(16, 32)})
        assert made.process.stdin is not None
        timer = threading.Timer(0.03, made.process.stdin.close)
        timer.start()
        tracking.close()
        timer.join()
        made.process.wait()
    assert tracking.restored.restored < 32 * BYTES


def test_killed_watch_leaves_nothing_else(target: Start) -> None:
    """After a kill they stay split, as the manual says, and nothing else stays."""
    made = target(WORDS)
    watch = Watched(made.pid, "-i", "60")
    made.write("m", SPLIT)
    watch.end(signal.SIGKILL)
    assert not witness.registered(made.pid)
    assert huge(made.pid) == 16


def test_budget_restores_what_leaves_the_sample(target: Start) -> None:
    made = target(f"m=thp,pages={128 * HUGE},fill=1")
    before = huge(made.pid)
    watch = Watched(made.pid, "-i", "0.1", "--budget", "0.05")

    def restored() -> bool:
        made.write("m", {unit * HUGE + 9 for unit in range(128)})
        return any(cost["huge_restored"] for cost in watch.costs)

    witness.wait_for(restored)
    costs, _ = watch.end()
    assert huge(made.pid) == before
    assert sum(cost["huge_restored"] for cost in costs[:-1]) > 0
    assert costs[-1]["huge_lost"] == 0


def test_memory_that_came_later(armed: Start, pagescan: Run) -> None:
    """A look remembers the huge pages of new memory when it registers it.

    The memory is larger than what is left out at a growing end (16 MiB).
    """
    made = armed("a=anon,pages=8")
    made.tell(f"map n=thp,pages={12 * HUGE},fill=1")
    made.where("n")
    pagescan("diff", made.pid, "--rearm")
    made.write("n", {3, HUGE + 3})
    assert huge(made.pid) == 10
    (ended,) = pagescan("disarm", made.pid, "--json").json()["sessions"]
    assert huge(made.pid) == 12
    assert ended["cost"]["huge_restored"] == 2 * BYTES


_OWN = """
import mmap, pagescan, sys
memory = mmap.mmap(-1, 20 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1

def huge():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps")
               if line.startswith("AnonHugePages"))

before = huge()
with eval(sys.argv[1]):
    for at in range(0, len(memory), 1 << 20):
        memory[at] = 2
    split = huge()
print(before, split, huge())
"""


@pytest.mark.parametrize("call", ["pagescan.written_pages()", "pagescan.track()"])
def test_own_process(call: str) -> None:
    """For the own process, plain madvise(2) restores them without privileges."""
    done = subprocess.run(
        [sys.executable, "-c", _OWN, call], capture_output=True, text=True, check=True
    )
    before, split, after = map(int, done.stdout.split())
    assert split < before
    assert after >= before


def test_not_known_what_was_huge(armed: Start, pagescan: Run) -> None:
    """If it is unknown which pages were huge, they stay split; the rest works."""
    made = armed(WORDS)
    made.write("m", SPLIT)
    for path in Path("/run/pagescan").glob(f"{made.pid}.huge"):
        path.unlink()
    (ended,) = pagescan("disarm", made.pid, "--json").json()["sessions"]
    assert ended["cost"]["huge_lost"] is None
    assert not witness.registered(made.pid)
