"""`watch` at groups: every page of each member, and no member ends it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagescan.commands import present
from pagescan.commands.present import GroupCounter
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import DEFAULT_RETURNED, PAGE_SIZE, Category, Mapping
from pagescan.model.shared_once import SharedOnce
from pagescan.native import Columns, Pace
from pagescan.session import group_limit
from pagescan.session.watched import Terms
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.births import Births
from pagescan.target.group import Match
from pagescan.target.selection import Selection
from pagescan.tracking.ticks import Limits
from tests import machine, witness
from tests.conftest import Result, Target, checked, command

pytestmark = [pytest.mark.needs("tracking")]

Start = Callable[..., Target]


class Watching:
    """A running `watch --json`; its lines are read one by one."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pagescan", "watch", *map(str, words), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[Any] = []
        self.said = ""
        assert self.process.stderr is not None
        while "Ctrl-C" not in (line := self.process.stderr.readline().decode()):
            assert line, self.said
            self.said += line

    def next(self) -> Any:
        """Return the next line, checked against the schema."""
        assert self.process.stdout is not None
        text = self.process.stdout.readline().decode()
        assert text, "watch has ended"
        self.lines.append(checked(text))
        return self.lines[-1]

    def until(self, fact: Callable[[Any], object]) -> Any:
        """Read lines until one of them is as wanted."""
        for _ in range(200):
            if fact(line := self.next()):
                return line
        raise AssertionError(self.lines[-1])

    def end(self) -> Any:
        """Interrupt it; return the last line."""
        self.process.send_signal(signal.SIGINT)
        # Not communicate(): it does not know what these streams have buffered.
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out, said = self.process.stdout.read(), self.process.stderr.read()
        self.process.wait()
        self.said += said.decode()
        self.lines += [checked(line) for line in out.decode().splitlines()]
        assert self.process.returncode == 0, self.said
        return self.lines[-1]

    def pages_of(self, made: Target, name: str) -> set[int]:
        """Return the pages of a member's range that were in any line."""
        found = set()
        for line in self.lines:
            own = [item for item in line["regions"] if item["pid"] == made.pid]
            found |= made.pages({"regions": own}, name)
        return found


def process_in(line: Any, pid: int) -> Any:
    """Return the entry of a process in a line; None: it has none."""
    found = [item for item in line["processes"] if item["target"]["pid"] == pid]
    return found[0] if found else None


@pytest.fixture
def watching(mkmem: Path) -> Iterator[Callable[..., Watching]]:
    """Watch all targets of this test run; other groups by their options."""
    started: list[Watching] = []

    def start(*words: object) -> Watching:
        interval = () if "-i" in words else ("-i", "0.1")
        started.append(Watching(*(words or ("--match", mkmem)), *interval))
        return started[-1]

    yield start
    for made in started:
        if made.process.poll() is None:
            made.process.kill()
        made.process.wait()
        for stream in (made.process.stdout, made.process.stderr):
            if stream is not None:
                stream.close()


# ---- exactness ---------------------------------------------------------------------


def test_each_page_of_each_member(
    target: Start, watching: Callable[..., Watching]
) -> None:
    """Every page that any member writes is found, with its pid, and no other one."""
    kinds = ("m=anon,pages=200,fill=1", "n=memfd,pages=100,fill=1")
    targets = [target(*kinds) for _ in range(4)]
    watch = watching()
    assert len(watch.next()["processes"]) == 4
    for index, made in enumerate(targets):
        made.write("m", set(range(index, 200, 7)))
        made.write("n", {index, 50 + index})
    whole = sum(len(pages) for made in targets for pages in made.expected.values())

    def complete(_: Any) -> bool:
        return all(
            watch.pages_of(made, name) == made.expected[name]
            for made in targets
            for name in ("m", "n")
        )

    watch.until(complete)
    last = watch.end()
    assert whole > 0
    for made in targets:
        assert watch.pages_of(made, "m") == made.expected["m"]
        assert watch.pages_of(made, "n") == made.expected["n"]
        own = sum(
            process_in(line, made.pid)["summary"]["pages"] for line in watch.lines
        )
        assert process_in(last, made.pid)["totals"]["pages"] == own
    pages = sum(line["summary"]["pages"] for line in watch.lines)
    assert last["totals"]["pages"] == pages
    assert last["target"] is None
    assert last["group"]["kind"] == "match"
    assert last["gone"] == 0


def test_the_sum_is_that_of_the_members(
    target: Start, watching: Callable[..., Watching], mkmem: Path
) -> None:
    """While all members stand still, the sum is that of their private pages."""
    targets = [target("m=anon,pages=300,fill=1") for _ in range(3)]
    watch = watching("--match", mkmem, "-i", "0.3")
    watch.next()
    for index, made in enumerate(targets):
        made.write("m", set(range(0, 300, index + 2)))
    with contextlib.ExitStack() as still:
        for made in targets:
            still.enter_context(witness.stopped(made.pid))
        line = watch.until(
            lambda _: all(
                watch.pages_of(made, "m") == made.expected["m"] for made in targets
            )
        )
        assert line["summary"]["pages"] == sum(
            process["summary"]["pages"] for process in line["processes"]
        )
    watch.end()


SHARING = """
import mmap, os, sys
shared = mmap.mmap(-1, 1 << 20)
private = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for place in (shared, private):
    place[:] = b"x" * len(place)
children = []
for _ in range(2):
    ask, told = os.pipe()
    done, tell = os.pipe()
    if os.fork() == 0:
        for inherited in (told, *(pipe for pipe, _ in children)):
            os.close(inherited)  # so that the end of the parent is the end of ask
        while os.read(ask, 1):
            for page in range(30):
                shared[page * 4096] = 1
            for page in range(5):
                private[page * 4096] = 1
            os.write(tell, b"k")
        os._exit(0)
    children.append((told, done))
print("ready", flush=True)
for line in sys.stdin:
    for told, done in children:
        os.write(told, b"g")
        os.read(done, 1)
    print("done", flush=True)
"""


@pytest.fixture
def sharing() -> Iterator[subprocess.Popen[str]]:
    """A family of three that shares memory; at each line its children write."""
    with subprocess.Popen(
        [sys.executable, "-c", SHARING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_shared_memory_counts_once(
    sharing: subprocess.Popen[str], watching: Callable[..., Watching]
) -> None:
    """Two members write the same 30 shared pages: 60 in the rows, 30 in the sum."""
    assert sharing.stdin is not None
    assert sharing.stdout is not None
    watch = watching("--tree", sharing.pid, "/dev/zero*", "-i", "0.4")
    watch.next()
    sharing.stdin.write("write\n")
    sharing.stdin.flush()
    assert sharing.stdout.readline() == "done\n"
    watch.until(lambda _: sum(one["summary"]["pages"] for one in watch.lines) >= 30)
    watch.end()
    by_process: dict[int, int] = {}
    for line in watch.lines:
        for process in line["processes"]:
            pid = process["target"]["pid"]
            pages = process["summary"]["pages"]
            by_process[pid] = by_process.get(pid, 0) + pages
    assert sorted(by_process.values()) == [0, 30, 30]
    in_one_tick = len([1 for line in watch.lines if line["summary"]["pages"]]) == 1
    assert not in_one_tick or watch.lines[-1]["totals"]["pages"] == 30


def test_present_memory_counts_once(
    sharing: subprocess.Popen[str], watching: Callable[..., Watching]
) -> None:
    """`memory` has the pages that three members share once, in each line."""
    assert sharing.stdin is not None
    assert sharing.stdout is not None
    sharing.stdin.write("write\n")  # the children have pages of their parent, too
    sharing.stdin.flush()
    assert sharing.stdout.readline() == "done\n"
    watch = watching("--tree", sharing.pid, "/dev/zero*")
    for _ in range(2):
        assert watch.next()["memory"] == {"present": 1 << 20, "growth": 0}
    watch.end()


def batch_of(mapping: Mapping, *runs: tuple[int, int], bits: Category) -> Batch:
    """Return a batch with runs of pages in one mapping."""
    columns = Columns.empty()
    for first, count in runs:
        columns.starts.append(mapping.start + first * PAGE_SIZE)
        columns.ends.append(mapping.start + (first + count) * PAGE_SIZE)
        columns.categories.append(bits)
    return Batch.join(
        columns,
        MappingSet([mapping]),
        page_size=PAGE_SIZE,
        returned=DEFAULT_RETURNED,
    )


def mapping_of(start: int, offset: int, inode: int, perms: str) -> Mapping:
    """Return a mapping of 100 pages."""
    length = 100 * PAGE_SIZE
    return Mapping(
        start, start + length, perms, offset * PAGE_SIZE, (8, 1), inode, "/f"
    )


PRESENT, FILE = Category.PRESENT, Category.PRESENT | Category.FILE


@pytest.mark.parametrize(
    ("perms", "bits", "inode", "pages"),
    [
        ("rw-s", PRESENT, 7, 30),  # the same file: pages 10 to 40 of it
        ("rw-p", FILE, 7, 30),  # its pages, mapped privately and not written
        ("rw-p", PRESENT, 7, 40),  # private copies
        ("rw-p", PRESENT, 0, 40),  # anonymous
    ],
)
def test_sums(perms: str, bits: Category, inode: int, pages: int) -> None:
    """Regions of one file are compared at their place in the file."""
    whole = SharedOnce()
    whole.add(batch_of(mapping_of(0x10000000, 0, inode, perms), (10, 20), bits=bits))
    whole.add(batch_of(mapping_of(0x7000000, 5, inode, perms), (15, 20), bits=bits))
    assert whole.summary().pages == pages
    assert whole.summary().categories["present"] == pages


def test_sums_of_different_files() -> None:
    """Equal places in different files, or on different devices, are different pages."""
    whole = SharedOnce()
    one = mapping_of(0x10000000, 0, 7, "rw-s")
    for mapping in (one, one._replace(inode=8), one._replace(device=(8, 2))):
        whole.add(batch_of(mapping, (0, 10), (20, 5), bits=PRESENT))
    assert whole.summary().pages == 45


# ---- what members do ---------------------------------------------------------------


def test_members_come_and_go(target: Start, watching: Callable[..., Watching]) -> None:
    """A child is taken in at the next tick; it is kept in the totals when it ends."""
    made = target("m=anon,pages=50,fill=1")
    watch = watching("--tree", made.pid)
    watch.next()
    child = int(made.tell("fork m 0-3"))
    joined = watch.until(lambda line: process_in(line, child))
    assert process_in(joined, child)["end"] is None
    watch.until(lambda line: process_in(line, child)["joined_at"])
    made.tell(f"reap {child}")
    ended = watch.until(lambda line: process_in(line, child)["end"])
    assert process_in(ended, child)["end"] == "exited"
    assert process_in(ended, child)["ended_at"] is not None
    assert ended["gone"] == 1
    assert ended["unseen_ns"] is None  # it is told in the last line
    assert process_in(watch.next(), child) is None
    last = watch.end()
    assert last["gone"] == 1
    assert last["end"] == "interrupted"
    assert "1 process went: the last looks at them were up to " in watch.said


def test_the_time_that_nobody_saw(
    target: Start, watching: Callable[..., Watching]
) -> None:
    """A process that ended tells how long before its end the last look was."""
    made = target("m=anon,pages=50,fill=1")
    watch = watching("--tree", made.pid, "-i", "0.5")
    watch.next()
    first, second = (int(made.tell("fork m 0-3")) for _ in range(2))
    watch.until(lambda line: process_in(line, second)["joined_at"])
    for child in (first, second):
        made.tell(f"reap {child}")
        line = watch.until(lambda line: process_in(line, child)["end"])  # noqa: B023
        unseen = process_in(line, child)["unseen_ns"]
        late = 10e9  # a look, on a slow machine
        assert 0 < unseen <= line["interval_ns"] + late
        assert process_in(line, made.pid)["unseen_ns"] is None
    told = [
        process["unseen_ns"]
        for line in watch.lines
        for process in line["processes"]
        if process["end"]
    ]
    last = watch.end()
    assert last["unseen_ns"] == max(told)


def test_a_refused_process_is_no_short_life(
    target: Start, watching: Callable[..., Watching]
) -> None:
    """A process that could not be tracked counts as gone when it ends."""
    made = target("m=anon,pages=50,fill=1")
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        tracer = watching("--tree", sleeper.pid)
        tracer.next()
        watch = watching("--tree", os.getpid())
        line = watch.until(lambda line: process_in(line, sleeper.pid))
        assert process_in(line, sleeper.pid)["joined_at"] is None
        before = watch.lines[-1]["short_lived"]
        sleeper.kill()
        line = watch.until(lambda line: process_in(line, sleeper.pid)["end"])
        assert process_in(line, sleeper.pid)["unseen_ns"] is None
        assert line["short_lived"] == before
        assert process_in(line, made.pid)
        watch.end()


def test_an_exec_is_followed(target: Start, watching: Callable[..., Watching]) -> None:
    """A member that runs another program is attached again; its totals go on."""
    made, other = (target("m=anon,pages=50,fill=1") for _ in range(2))
    watch = watching()
    watch.next()
    made.write("m", {1, 2, 3})
    watch.until(lambda _: watch.pages_of(made, "m") == {1, 2, 3})
    before = process_in(watch.lines[-1], made.pid)
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.write("exec\n")
    made.process.stdin.flush()
    ranges = json.loads(made.process.stdout.readline())["ranges"]
    made.ranges["m"] = tuple(ranges["m"])
    made.tell("checksum m")  # it runs
    seen = len(watch.lines)
    watch.until(lambda _: len(watch.lines) > seen + 2)
    del watch.lines[:]
    made.tell("write m 7,9")
    watch.until(lambda _: {7, 9} <= watch.pages_of(made, "m"))
    after = process_in(watch.lines[-1], made.pid)
    assert after["joined_at"] == before["joined_at"]
    assert after["totals"]["pages"] > before["totals"]["pages"]
    other.write("m", {4})
    watch.until(lambda _: watch.pages_of(other, "m") == {4})
    watch.end()
    (said,) = [line for line in watch.said.splitlines() if "was exec'd" in line]
    assert f"{made.pid} (" in said
    assert "are not known" in said


def test_a_member_is_killed(target: Start, watching: Callable[..., Watching]) -> None:
    """SIGKILL ends one member; the others are tracked as before."""
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        made = target("m=anon,pages=50,fill=1")
        watch = watching("--tree", os.getpid())
        watch.until(lambda line: process_in(line, sleeper.pid))
        sleeper.kill()  # a zombie: its parent does not wait yet
        seen = len(watch.lines)
        line = watch.until(lambda line: process_in(line, sleeper.pid)["end"])
        assert process_in(line, sleeper.pid)["end"] == "exited"
        assert len(watch.lines) < seen + 20
        assert process_in(watch.next(), sleeper.pid) is None
        sleeper.wait()
        made.write("m", {2, 4})
        watch.until(lambda _: watch.pages_of(made, "m") == {2, 4})
        watch.end()


def test_a_frozen_member(
    target: Start, watching: Callable[..., Watching], tmp_path: Path
) -> None:
    """A frozen member stays tracked; one that is frozen from the start is named."""
    if os.geteuid():
        pytest.skip("only root freezes processes")
    made, other = (target("m=anon,pages=50,fill=1") for _ in range(2))
    with machine.frozen(made.pid, tmp_path):
        watch = watching()
        line = watch.next()
        (refused,) = [item for item in line["untracked"] if item["start"] is None]
        assert refused["pid"] == made.pid
        assert "frozen" in refused["why"]
        assert process_in(line, made.pid)["joined_at"] is None
        other.write("m", {2, 4})
        watch.until(lambda _: watch.pages_of(other, "m") == {2, 4})
        watch.end()
    watch = watching()
    watch.next()
    made.write("m", {1})
    (tmp_path / "again").mkdir()
    with machine.frozen(made.pid, tmp_path / "again"):
        watch.until(lambda _: watch.pages_of(made, "m") == {1})
        other.write("m", {5})
        watch.until(lambda _: 5 in watch.pages_of(other, "m"))
    made.write("m", {8})
    watch.until(lambda _: watch.pages_of(made, "m") == {1, 8})
    watch.end()


def test_a_member_changes_its_user(watching: Callable[..., Watching]) -> None:
    """A member that gives up its rights while it is tracked stays tracked."""
    if os.geteuid():
        pytest.skip("only root may give up its rights")
    script = (
        "import mmap, os, sys\n"
        "place = mmap.mmap(-1, 1 << 20)\n"
        "place[:] = b'x' * len(place)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "os.setuid(61234)\n"
        "for page in range(40): place[page * 4096] = 1\n"
        "print('done', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        watch = watching("--tree", process.pid, "/dev/zero*")
        watch.next()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        watch.until(lambda _: sum(one["summary"]["pages"] for one in watch.lines) == 40)
        last = watch.end()
        assert last["untracked"] == []
        process.kill()


def test_a_write_from_outside(target: Start, watching: Callable[..., Watching]) -> None:
    """A write by another process to a member that does not run is found, later."""
    made = target("m=anon,pages=50,fill=1")
    watch = watching()
    watch.until(lambda _: len(watch.lines) > 3)
    start = made.ranges["m"][0]
    with open(f"/proc/{made.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(start + 5 * PAGE_SIZE)
        memory.write(b"outside")
    watch.until(lambda _: watch.pages_of(made, "m") == {5})
    watch.end()


def test_the_last_look_is_at_all(
    target: Start, watching: Callable[..., Watching], mkmem: Path
) -> None:
    """The last look finds what was written from outside to a member that stands."""
    made = target("m=anon,pages=50,fill=1")
    watch = watching("--match", mkmem, "-i", "2")
    watch.next()
    watch.next()  # it has not run since the first look, and is left out
    with open(f"/proc/{made.pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(made.ranges["m"][0])
        memory.write(b"outside")
    watch.end()
    assert watch.pages_of(made, "m") == {0}


def test_short_lives_are_counted(watching: Callable[..., Watching]) -> None:
    """Children that live less than a tick are counted, where the kernel tells."""
    births = Births.open()
    if births is None:
        pytest.skip("the kernel does not tell this user of forks")
    births.close()
    script = "while read line; do /bin/true; /bin/true; echo done; done"
    with subprocess.Popen(
        ["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        watch = watching("--tree", shell.pid, "-i", "1")
        for _ in range(3):
            shell.stdin.write("go\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == "done\n"
        line = watch.until(lambda line: line["short_lived"] + line["gone"] >= 6)
        assert line["short_lived"] + line["gone"] == 6
        watch.end()
        shell.kill()


def test_short_lives_that_nobody_tells_of(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel does not tell, the number is unknown, and that is said."""
    made = target("m=anon,pages=4,fill=1")
    monkeypatch.setattr(Births, "open", lambda: None)
    with watched(made) as (group, said):
        (tick,) = group.ticks(Limits(0.01, 1), os.open(os.devnull, os.O_WRONLY))
    assert tick.short_lived is None
    assert any("not counted" in line for line in said)


# ---- limits and refusals -----------------------------------------------------------


@contextlib.contextmanager
def watched(made: Target) -> Iterator[tuple[WatchedGroup, list[str]]]:
    """Track all targets of this test run in this process."""
    said: list[str] = []
    terms = Terms(Selection(), Pace(), say=said.append)
    words = made.process.args
    assert isinstance(words, list)
    with WatchedGroup.armed(Match(str(words[0])), terms) as group:
        yield group, said


def test_growth_of_a_group(target: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that a member has mapped and filled since is growth."""
    made = target("m=anon,pages=100,fill=1")
    times = iter([1.0, 1.0, 1.5, 100.0, 100.0])  # of a call, and of what it counts
    monkeypatch.setattr(present, "time", SimpleNamespace(monotonic=times.__next__))
    with watched(made) as (group, _):
        counter = GroupCounter(group)
        counter.count()
        before = counter.memory
        assert before is not None
        assert before.growth == 0
        assert before.present >= 100 * PAGE_SIZE
        made.tell("map late=anon,pages=3000,fill=1")
        counter.count()
        assert counter.memory == before  # the count is made now and then
        counter.count()
        growth = counter.memory.growth
        assert 3000 * PAGE_SIZE <= growth < 3200 * PAGE_SIZE
        assert counter.memory.present - growth == before.present


def test_the_limit_of_members(target: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members over the limit are counted, with the reason; the others are tracked."""
    targets = [target("m=anon,pages=4,fill=1") for _ in range(4)]
    monkeypatch.setattr(group_limit, "MOST", 3)
    with watched(targets[0]) as (group, _):
        (tick,) = group.ticks(Limits(0.01, 1), os.open(os.devnull, os.O_WRONLY))
    assert len(tick.members) == 3
    (over,) = tick.untracked
    assert over.pid is None
    assert over.why == "1 more: a group has at most 3 tracked processes"


def test_the_limit_of_descriptors(target: Start, mkmem: Path) -> None:
    """Where no more descriptors may be opened, that is the reason."""
    for _ in range(4):
        target("m=anon,pages=4,fill=1")
    result = limited("80", "watch", "--match", str(mkmem), "-n1", "-i.1", "--json")
    assert result.code == 0, result.stderr
    line = result.json()
    assert len(line["processes"]) == 2
    (over,) = line["untracked"]
    assert over["why"].startswith("2 more: the limit of 80 descriptors allows 2")
    assert "not tracked: 2 more" in result.stderr


def limited(descriptors: str, *words: str) -> Result:
    """Run a command with a limit of descriptors that it cannot raise."""
    limit = ["prlimit", f"--nofile={descriptors}:{descriptors}"]
    done = subprocess.run(
        [*limit, sys.executable, "-m", "pagescan", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_a_member_that_is_tracked_already(
    target: Start, watching: Callable[..., Watching]
) -> None:
    """It is named with the session that tracks it, and the others are tracked."""
    taken, made = (target("m=anon,pages=50,fill=1") for _ in range(2))
    assert command("arm", taken.pid).code == 0
    watch = watching()
    line = watch.next()
    (refused,) = [item for item in line["untracked"] if item["start"] is None]
    assert refused["pid"] == taken.pid
    assert "is tracked already" in refused["why"]
    made.write("m", {3})
    watch.until(lambda _: watch.pages_of(made, "m") == {3})
    watch.end()
    assert f"not tracked: {taken.pid} mkmem" in watch.said
    assert command("disarm", taken.pid).code == 0


def test_nothing_can_be_tracked(target: Start, mkmem: Path) -> None:
    """If no member can be tracked, the command ends with the reason."""
    made = target("m=anon,pages=50,fill=1")
    assert command("arm", made.pid).code == 0
    result = command("watch", "--match", mkmem, "-n1")
    assert result.code == 1
    assert "no process in match" in result.stderr
    assert "is tracked already" in result.stderr
    assert command("disarm", made.pid).code == 0


def test_no_such_group() -> None:
    """An empty group is refused, as a missing process is."""
    result = command("watch", "--unit", "pagescan-no-such-unit", "-n1", "--json")
    assert result.code == 3
    assert result.error()["error"] == (
        "no process in unit pagescan-no-such-unit.service"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("1", "--by", "process"), "--by process needs a group"),
        (("--unit", "x", "--", "true"), "--unit and -- CMD exclude each other"),
        (("--match", "x", "--", "true"), "--match and -- CMD exclude each other"),
        (("--match", "x", "1"), "--match and TARGET exclude each other"),
        (("--tree",), "watch what?"),
    ],
)
def test_usage(words: tuple[str, ...], said: str) -> None:
    """Options that exclude each other are refused before anything is touched."""
    result = command("watch", *words)
    assert result.code == 2
    assert said in result.stderr


# ---- the forms of output -----------------------------------------------------------


def watch_once(mkmem: Path, made: Target, *words: str) -> Result:
    """Watch for one look, in which the target has written."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pagescan", "watch"),
            *("--match", str(mkmem), "-n1", "-i1", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = ""
    while "Ctrl-C" not in said:
        said += process.stderr.readline()
    made.write("m", {1, 2, 8})
    assert process.stdout is not None
    out, rest = process.stdout.read(), process.stderr.read()
    assert process.wait() == 0, rest
    process.stdout.close()
    process.stderr.close()
    return Result(0, out, said + rest)


def test_a_pipe_has_a_row_per_process(target: Start, mkmem: Path) -> None:
    """One line per process and look; the messages count processes."""
    made, other = (target("m=anon,pages=50,fill=1") for _ in range(2))
    result = watch_once(mkmem, made)
    head, *rows = result.stdout.splitlines()
    assert head.split() == [
        "pid",
        "name",
        "pages",
        "bytes",
        "since_start",
        "end",
        "label",
    ]
    assert sorted(int(row.split()[0]) for row in rows) == sorted((made.pid, other.pid))
    assert "2 processes" in result.stderr
    assert "written in 1 look" in result.stderr


def test_csv_has_the_pid(target: Start, mkmem: Path) -> None:
    """Every row names its process, behind tick and time; a row is a process."""
    made = target("m=anon,pages=50,fill=1")
    target("m=anon,pages=50,fill=1")
    head, *rows = (
        line.split(",") for line in watch_once(mkmem, made, "--csv").stdout.splitlines()
    )
    assert head[:5] == ["tick", "time", "pid", "name", "pages"]
    pages = [int(row[4]) for row in rows]
    assert pages == sorted(pages, reverse=True)
    result = watch_once(mkmem, made, "--csv", "--by", "region")
    head, *rows = (line.split(",") for line in result.stdout.splitlines())
    assert head[:5] == ["tick", "time", "pid", "start", "end"]
    start = made.ranges["m"][0]
    own = [row for row in rows if int(row[3], 16) == start + PAGE_SIZE]
    assert [int(row[2]) for row in own] == [made.pid]
    rows = [
        line.split(",")
        for line in watch_once(mkmem, made, "--csv", "-cpid,pages").stdout.splitlines()
    ]
    assert rows[0] == ["tick", "time", "pid", "pages"]


def test_by_process_and_by_mapping(target: Start, mkmem: Path) -> None:
    """Both have the pid; with --by process JSON has no regions."""
    made = target("m=anon,pages=50,fill=1")
    line = watch_once(mkmem, made, "--json", "--by", "process").json()
    assert line["regions"] == []
    assert process_in(line, made.pid)["summary"]["pages"] >= 3
    line = watch_once(mkmem, made, "--json", "--by", "mapping").json()
    low, _ = made.ranges["m"]
    rows = [row for row in line["mappings"] if int(row["start"], 16) <= low]
    assert {row["pid"] for row in rows} == {made.pid}
    plain = watch_once(mkmem, made, "--by", "mapping").stdout.splitlines()
    assert plain[0].split()[:2] == ["pid", "start"]
    assert plain[0].split()[-3:] == ["growth", "label", "mapping"]
    assert int(plain[1].split()[0]) == made.pid


def test_growth_of_each_mapping(
    target: Start, watching: Callable[..., Watching], mkmem: Path
) -> None:
    """Each row has the bytes that are present now and were not at the start."""
    made, other = target("m=anon,pages=50"), target("m=anon,pages=50")
    watch = watching("--match", mkmem, "--by", "mapping")

    def growth(line: Any, of: Target) -> int | None:
        low, high = of.ranges["m"]
        rows = [
            row
            for row in line["mappings"]
            if row["pid"] == of.pid
            and int(row["start"], 16) <= low
            and high <= int(row["end"], 16)
        ]
        return rows[0]["growth"] if rows else None

    watch.next()
    made.write("m", set(range(30)))
    other.write("m", {4})
    for one, pages in ((made, 30), (other, 1)):
        for _ in range(200):
            one.write("m", {4})
            if growth(watch.next(), one) == pages * PAGE_SIZE:
                break
        else:
            raise AssertionError(watch.lines[-1])
    watch.end()


def test_jsonl(target: Start, mkmem: Path) -> None:
    """Regions have a pid, and the summary has the processes."""
    made = target("m=anon,pages=50,fill=1")
    lines = [
        checked(text) for text in watch_once(mkmem, made, "--jsonl").stdout.splitlines()
    ]
    head, *regions, summary = lines
    assert head["group"]["kind"] == "match"
    assert {region["pid"] for region in regions} == {made.pid}
    assert [item["target"]["pid"] for item in summary["processes"]] == [made.pid]
