"""`pagescan exporter` on live processes, held against other witnesses."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.exporter.collector import MemoryCollector
from pagescan.exporter.counters import WrittenCounter
from pagescan.exporter.metrics import State
from pagescan.native import Pace
from pagescan.session.watched import Terms
from pagescan.target.group import Match, Tree
from pagescan.target.selection import Selection
from pagescan.tracking.fault_cost import USUAL, FaultCost
from tests import machine, witness
from tests.conftest import PAGE, Target
from tests.exporting import Samples, exporting, parsed, value, values

pytestmark = pytest.mark.needs("prometheus_client")

Start = Callable[..., Target]
MARK = f"pagescan-exporter-{os.getpid()}"


def memory(samples: Samples, **labels: str) -> int:
    """Return the sum of the memory with some labels."""
    return int(sum(values(samples, "pagescan_memory_bytes", **labels)))


def smaps_of(pid: int) -> dict[str, int]:
    """Return the bytes that smaps counts, by kind of memory: the second witness."""
    sums: dict[str, int] = {}
    kind = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := re.match(r"\w+-\w+ (....) \w+ \S+ (\d+) *(.*)", line):
            perms, inode, name = found[1], found[2], found[3]
            kind = "anon" if inode == "0" else "file"
            if perms[2] == "x":
                kind = "code"
            if name.startswith("[stack"):
                kind = "stack"
            if perms[3] == "s":
                kind = "shmem"
            if name in ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"):
                kind = "none"
        elif line.startswith(("Rss:", "Anonymous:")):
            key, size = line.split()[:2]
            name = kind if key == "Rss:" else f"{kind} private"
            sums[name] = sums.get(name, 0) + (int(size) << 10)
    return sums


# ---- gauges ------------------------------------------------------------------------


def test_gauges_are_what_smaps_counts(target: Start) -> None:
    """Of a stopped process, by kind and state; a page that was only read is `zero`."""
    made = target(
        "heap=anon,pages=300,fill=1",
        "read=anon,pages=50",
        "shared=shmem,pages=70,fill=1",
    )
    made.tell("read read 0-9")
    with MemoryCollector([Tree.of(made.pid)]) as collector, witness.stopped(made.pid):
        reading = collector.read()
        truth = smaps_of(made.pid)
    (populated,) = reading.memory.values()
    total = populated.total()
    for kind in ("anon", "file", "shmem", "stack", "code"):
        states = {state: size for (one, state), size in total.items() if one == kind}
        zero = states.pop(State.ZERO, 0)
        assert sum(states.values()) == truth.get(kind, 0), kind
        assert zero == (10 * PAGE if kind == "anon" else 0)
        if kind in ("file", "code"):
            private = states.get(State.PRESENT, 0)
            assert private == truth.get(f"{kind} private", 0), kind


@pytest.mark.needs("thp")
def test_huge_pages_are_a_state_of_their_own(target: Start) -> None:
    made = target("big=thp,pages=2048,fill=1")
    with MemoryCollector([Tree.of(made.pid)]) as collector, witness.stopped(made.pid):
        (populated,) = collector.read().memory.values()
        huge = sum(
            int(size.split()[0]) << 10
            for size in witness.smaps(made.pid, "AnonHugePages").values()
        )
    assert populated.total()["anon", State.HUGE] == huge > 0


@pytest.mark.needs("swap")
def test_swap_of_private_and_of_shared_memory(target: Start) -> None:
    """The swap of shared memory comes from its file: its entries are empty."""
    with machine.swap_file(64):
        made = target("heap=anon,pages=200,fill=1", "shared=shmem,pages=100,fill=1")
        made.tell("pageout heap 0-99")
        made.tell("pageout shared 0-49")
        with (
            MemoryCollector([Tree.of(made.pid)]) as collector,
            witness.stopped(made.pid),
        ):
            reading = collector.read()
            there = witness.swapped(made.pid, *made.ranges["heap"])
        total = reading.memory[next(iter(reading.memory))].total()
        assert reading.swap
        assert total["anon", State.SWAPPED] == len(there) * PAGE > 0
        assert total.get(("shmem", State.SWAPPED), 0) > 0


FORKS = """
import mmap, os, sys
memory = mmap.mmap(-1, 400 * 4096, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at] = 1
for _ in range(3):
    if os.fork() == 0:
        for at in range(0, len(memory) // 2, 4096):
            memory[at]
        break
os.write(1, b"ready\\n")
os.read(0, 1)
"""


@pytest.fixture
def forks() -> Iterator[int]:
    """The pid of a process with three children, all of which map 400 shared pages."""
    words = [sys.executable, "-c", FORKS, MARK]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == b"ready\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.write(b"----")
        process.stdin.close()


def test_shared_memory_counts_once_per_group(forks: int) -> None:
    """As in the process that has most of it; the code of a program does, too."""
    with (
        MemoryCollector([Tree.of(forks)]) as group,
        MemoryCollector([Match(MARK)], "name") as alike,
    ):
        (populated,) = group.read().memory.values()
        name = Path(sys.executable).name
        assert group.read().grouped.groups.keys() == {(name, "", "")}
        (same,) = alike.read().memory.values()
    assert populated.total()["shmem", State.FILE] == 400 * PAGE
    assert same.total()["shmem", State.FILE] == 400 * PAGE
    code = smaps_of(forks)["code"]
    assert code <= populated.total()["code", State.FILE] < 2 * code


# ---- counters ----------------------------------------------------------------------


def test_counters_are_exact(target: Start) -> None:
    """As many bytes as the target has stored to, a page once per tick."""
    made = target("shared=shmem,pages=500,fill=1")
    with exporting("--tree", made.pid, "--track", "-i", "0.2") as exporter:
        witness.wait_for(lambda: exporter.ticks() > 1)
        before = value(exporter.scrape(), "pagescan_written_bytes_total", kind="shmem")
        made.tell("write shared 0-99")
        after = exporter.ticks() + 2
        witness.wait_for(lambda: exporter.ticks() >= after)
        samples = exporter.scrape()
        written = value(samples, "pagescan_written_bytes_total", kind="shmem")
        assert written - before == 100 * PAGE
        assert value(samples, "pagescan_up") == 1
        text = exporter.get().read().decode()
        assert "looked at every 200 ms" in text
    assert witness.registered(made.pid) == 0


def test_members_that_go_stay_in_the_total(forks: int) -> None:
    """A killed child leaves its bytes in the total; at the end all is disarmed."""
    with exporting("--tree", forks, "--track", "-i", "0.2") as exporter:
        witness.wait_for(lambda: exporter.ticks() > 1)
        first = exporter.scrape()
        assert value(first, "pagescan_processes") == 4
        words = Path(f"/proc/{forks}/task/{forks}/children").read_text().split()
        children = [int(word) for word in words]
        assert all(witness.registered(pid) for pid in [forks, *children])
        os.kill(children[0], signal.SIGKILL)
        witness.wait_for(
            lambda: value(exporter.scrape(), "pagescan_processes") == 3, 30
        )
        second = exporter.scrape()
        name = "pagescan_written_bytes_total"
        assert sum(values(second, name)) >= sum(values(first, name))
        assert not values(second, "pagescan_untracked_bytes", reason="access denied")
    assert witness.registered(forks) == 0


def test_a_group_that_vanishes_leaves_the_output(target: Start) -> None:
    """Also its counters do; another group goes on."""
    one, other = target("m=anon,pages=10"), target("m=anon,pages=10")
    words = ("--tree", one.pid, "--tree", other.pid, "--track", "-i", "0.2")
    with exporting(*words) as exporter:
        witness.wait_for(lambda: exporter.ticks() > 0)
        groups = {dict(labels).get("group") for _, labels in exporter.scrape()}
        assert groups == {None, "mkmem", "mkmem-2"}  # names, not pids
        one.tell("quit")
        one.process.wait()
        last = exporter.ticks() + 1
        witness.wait_for(lambda: exporter.ticks() > last)
        groups = {dict(labels).get("group") for _, labels in exporter.scrape()}
        assert groups == {None, "mkmem-2"}


def test_a_process_that_is_tracked_already_is_untracked(armed: Start) -> None:
    """It is named on stderr once, and its memory counts as untracked."""
    made = armed("m=anon,pages=100,fill=1")
    with exporting("--tree", made.pid, "--track", "-i", "0.2") as exporter:
        witness.wait_for(lambda: exporter.ticks() > 3)
        samples = exporter.scrape()
        reason = "tracked already"
        assert value(samples, "pagescan_untracked_bytes", reason=reason) > 100 * PAGE
        assert values(samples, "pagescan_written_bytes_total") == []  # 0 is a claim
        lines = [line for line in exporter.said if "not tracked" in line]
        assert len(lines) == 1
        assert f"({made.pid})" in lines[0]


def test_a_budget_is_named_in_the_help(target: Start) -> None:
    made = target("m=anon,pages=100,fill=1")
    words = ("--tree", made.pid, "--track", "--budget", "2", "-i", "0.2")
    with exporting(*words) as exporter:
        witness.wait_for(lambda: exporter.ticks() > 1)
        text = exporter.get().read().decode()
        assert "Estimated: tracking may cost each process 2 %" in text


# ---- scrapers ----------------------------------------------------------------------


def test_scrapers_at_once_and_none(target: Start) -> None:
    """Neither two scrapers nor their lack disturb the counters."""
    made = target("m=shmem,pages=100,fill=1")
    with exporting("--tree", made.pid, "--track", "-i", "0.2") as exporter:
        witness.wait_for(lambda: exporter.ticks() > 0)
        texts: list[str] = []

        def scrape() -> None:
            texts.extend(exporter.get().read().decode() for _ in range(20))

        threads = [threading.Thread(target=scrape) for _ in range(2)]
        before = exporter.ticks()
        made.tell("write m 0-49")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(texts) == 40
        assert all("pagescan_up 1.0" in text for text in texts)
        made.tell("write m 50-99")
        ticks = exporter.ticks()  # nobody scrapes while this many more come
        assert ticks >= before
        witness.wait_for(lambda: exporter.ticks() > ticks + 2)
        samples = exporter.scrape()
        assert (
            value(samples, "pagescan_written_bytes_total", kind="shmem") == 100 * PAGE
        )


def test_slow_clients_do_not_keep_others_away(target: Start) -> None:
    """Idle connections are bounded in number, and do not block a scrape."""
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid) as exporter:
        idle = [
            socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(8)
        ]
        assert exporter.get().status == 200
        for connection in idle:
            connection.close()


def test_paths(target: Start) -> None:
    """/ links to /metrics, HEAD has no body, gzip is served, others do not exist."""
    made = target("m=anon,pages=1")
    with exporting("--tree", made.pid) as exporter:
        assert b'href="/metrics"' in exporter.get("/").read()
        assert exporter.get("/-/healthy").status == 200
        assert exporter.get("/other").status == 404
        zipped = exporter.get(headers={"Accept-Encoding": "gzip"})
        assert zipped.headers["Content-Encoding"] == "gzip"
        plain = exporter.get()
        assert plain.headers["Content-Type"].startswith("text/plain; version=")
        assert plain.headers["Server"] == "pagescan"
        assert parsed(plain.read().decode())
        strange = "application/openmetrics-text;version=a.b"
        text = exporter.get(headers={"Accept": strange}).read().decode()
        assert parsed(text)
    assert not [line for line in exporter.said if "Traceback" in line]


def test_the_library_needs_no_server(target: Start) -> None:
    """A collector can be registered with prometheus_client's own registry."""
    from prometheus_client import CollectorRegistry, generate_latest

    import pagescan

    made = target("m=anon,pages=10,fill=1")
    registry = CollectorRegistry()
    with pagescan.MemoryCollector([Tree.of(made.pid)]) as collector:
        registry.register(collector)
        samples = parsed(generate_latest(registry).decode())
        assert memory(samples, kind="anon") >= 10 * PAGE
        began = time.monotonic()
        assert collector.read() is collector.read() or time.monotonic() - began > 1


def test_exec_of_a_member_is_followed(target: Start) -> None:
    """Its new program is read at the next scrape, and tracked from the next tick."""
    made = target("m=anon,pages=100,fill=1")
    with exporting("--tree", made.pid, "--track", "-i", "0.2") as exporter:
        witness.wait_for(lambda: witness.registered(made.pid))
        assert made.process.stdin is not None
        assert made.process.stdout is not None
        made.process.stdin.write("exec\n")
        made.process.stdin.flush()
        assert made.process.stdout.readline().startswith("{")  # it runs again
        witness.wait_for(lambda: witness.registered(made.pid))
        samples = exporter.scrape()
        assert value(samples, "pagescan_unread_processes") == 0
        assert value(samples, "pagescan_up") == 1


def test_a_later_reading_is_a_new_one(target: Start) -> None:
    """Pages that came since count, also where the mappings are the same."""
    made = target("m=anon,pages=300")
    with MemoryCollector([Tree.of(made.pid)]) as collector:
        collector.fresh = 0.0
        sizes = []
        for pages in ("0-99", "100-199", "100-199"):
            made.tell(f"write m {pages}")
            (populated,) = collector.read().memory.values()
            sizes.append(populated.total()["anon", State.PRESENT])
        assert sizes[1] - sizes[0] == 100 * PAGE
        assert sizes[2] == sizes[1]


def test_counters_of_groups_that_vanish_are_forgotten(target: Start) -> None:
    """They would grow with every name that a process ever had."""
    one, other = target("m=anon,pages=10"), target("m=anon,pages=10")
    selectors = [Tree.of(one.pid), Tree.of(other.pid)]
    terms = Terms(Selection(), Pace(), fault=FaultCost(USUAL))
    with (
        MemoryCollector(selectors) as collector,
        WrittenCounter(collector.grouping, terms, print, lambda: False) as counter,
    ):
        counter.tick()
        for made in (one, other):
            made.tell("write m 0-9")
        counter.tick()
        names = {group.name for group in counter.counted().written}
        assert names == {"mkmem", "mkmem-2"}
        one.tell("quit")
        one.process.wait()
        counter.tick()
        names = {group.name for group in counter.counted().written}
        assert names == {"mkmem-2"}


def test_more_processes_than_may_be_tracked(forks: int) -> None:
    """The others are untracked, with the reason, and nothing ends."""
    said: list[str] = []
    terms = Terms(Selection(), Pace(), fault=FaultCost(USUAL))
    with (
        MemoryCollector([Tree.of(forks)]) as collector,
        WrittenCounter(
            collector.grouping, terms, said.append, lambda: False
        ) as counter,
    ):
        counter.most = 3
        counter.tick()
        counter.tick()
        (reasons,) = counter.counted().untracked.values()
        assert reasons["too many processes"] > 0
        assert len(said) == 1
    assert witness.registered(forks) == 0
