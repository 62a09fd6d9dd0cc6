"""Measures `watch` and `exporter` of 200 quiet processes, beside reading their smaps.

Three in every hundred processes call mmap(2) and munmap(2) all the time while they are
looked at: their longest wait, without waits for a processor, is what looking costs a
member. Reading smaps is what process-exporter does.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Bench, Unavailable
from benchmarks.processes import pagescan

MARK = "pagescan-bench"
CHILD = """
import mmap, sys, time
memory = bytearray(int(sys.argv[1]) << 20)
for at in range(0, len(memory), 4096):
    memory[at] = 1
print(flush=True)
if sys.argv[3] == "still":
    sys.stdin.read()
facts = open("/proc/thread-self/schedstat", "rb", 0)
def delayed():  # nanoseconds of waiting for a processor
    facts.seek(0)
    return int(facts.read().split()[1])
for _ in sys.stdin:  # a line begins an interval
    longest, end = 0, time.monotonic() + float(sys.argv[4])
    while time.monotonic() < end:
        before, begun = delayed(), time.perf_counter_ns()
        mmap.mmap(-1, 4096).close()
        waited = time.perf_counter_ns() - begun - (delayed() - before)
        longest = max(longest, waited)
        time.sleep(0.0005)
    print(longest, flush=True)
"""
_SECONDS = 5.0
_EVERY = 15.0  # seconds between two scrapes, as Prometheus does by default


class Members:
    """The processes: nearly all quiet, a few that map memory when told."""

    def __init__(self, count: int, mebibytes: int = 4) -> None:
        """Start them, and wait until they have their memory."""
        self.all: list[subprocess.Popen[str]] = []
        busy = max(1, count * 3 // 200)
        for index in range(count):
            kind = "maps" if index < busy else "still"
            words = [CHILD, str(mebibytes), MARK, kind, str(_SECONDS)]
            self.all.append(
                subprocess.Popen(
                    [sys.executable, "-c", *words],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in self.all:
            assert process.stdout is not None
            process.stdout.readline()
        self.busy = self.all[:busy]

    def begin(self) -> None:
        """Let the members that map memory do so for a while."""
        for process in self.busy:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()

    def waited(self) -> float:
        """Wait for their end; return the longest wait in milliseconds."""
        return max(
            int(process.stdout.readline()) / 1e6
            for process in self.busy
            if process.stdout is not None
        )

    def close(self) -> None:
        """End all."""
        for process in self.all:
            process.kill()
            process.communicate()


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED is 2


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def read_smaps(pids: list[int]) -> float:
    """Read smaps of all, as process-exporter does; return the longest read."""
    longest = 0.0
    for pid in pids:
        with Path(f"/proc/{pid}/smaps").open("rb", buffering=0) as smaps:
            piece = b"-"
            while piece:
                begun = time.perf_counter()
                piece = smaps.read(1 << 16)
                longest = max(longest, time.perf_counter() - begun)
    return longest


def run(bench: Bench) -> None:
    """Measure each way over some rounds, in turn."""
    members = Members(20 if bench.quick else 200)
    try:
        rounds = bench.rounds(3, 1)
        nobody = [_waits_alone(members) for _ in range(rounds)]
        smaps = [_smaps(members) for _ in range(rounds)]
        watch = [_watch(members) for _ in range(rounds)]
        _add_watch(bench, nobody, smaps, watch)
        for words in ((), ("--track",)):
            with _exporting(words) as (pid, port):
                _add_exporter(bench, members, pid, port, words)
    finally:
        members.close()


def _waits_alone(members: Members) -> float:
    members.begin()
    return members.waited()


def _smaps(members: Members) -> tuple[float, float]:
    """Return the share of a processor for smaps once a second, and the longest wait."""
    pids = [process.pid for process in members.all]
    members.begin()
    used, begun = time.process_time(), time.monotonic()
    while time.monotonic() < begun + _SECONDS - 0.5:
        at = time.monotonic()
        read_smaps(pids)
        time.sleep(max(0.0, at + 1 - time.monotonic()))
    share = (time.process_time() - used) / (time.monotonic() - begun) * 100
    return share, members.waited()


def _watch(members: Members) -> tuple[float, float, float, float]:
    """Return the share of a processor, MB, the longest wait and the longest hold."""
    words = ("watch", "--match", MARK, "-i", "1", "--json", "--by", "process")
    process = subprocess.Popen(
        pagescan(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        while "Ctrl-C" not in (line := process.stderr.readline()):
            if not line:
                raise Unavailable("watch has ended")
        for _ in range(2):
            process.stdout.readline()
        holds: list[float] = []
        reader = threading.Thread(target=_read_holds, args=(process, holds))
        reader.start()
        members.begin()
        used, begun = processor_seconds(process.pid), time.monotonic()
        waited = members.waited()
        share = processor_seconds(process.pid) - used
        share *= 100 / (time.monotonic() - begun)
        memory = resident_mb(process.pid)
        process.send_signal(2)
        reader.join()
        process.wait()
        return share, memory, waited, max(holds)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _read_holds(process: "subprocess.Popen[str]", holds: list[float]) -> None:
    """Append the longest hold of each look, in milliseconds, until the end."""
    assert process.stdout is not None
    holds.extend(
        json.loads(line)["cost"]["max_wait_ns"] / 1e6 for line in process.stdout
    )


def _add_watch(
    bench: Bench,
    nobody: list[float],
    smaps: list[tuple[float, float]],
    watch: list[tuple[float, float, float, float]],
) -> None:
    share, memory, waited, held = (list(column) for column in zip(*watch, strict=True))
    theirs, behind = (list(column) for column in zip(*smaps, strict=True))
    bench.add(
        "groups.watch.cpu", "watch at 1 s, of a processor", share, "%",
        against="smaps of each", base=theirs,
    )  # fmt: skip
    bench.add("groups.watch.rss", "memory of watch", memory, "MB")
    bench.add("groups.watch.hold", "longest hold by watch", held, "ms")
    alone = max(nobody)
    bench.add("groups.nobody.wait", "a member's mmap, nobody looks", nobody, "ms")
    bench.add(
        "groups.watch.wait", "the same amid watch", waited, "ms",
        against="amid smaps", base=behind,
    )  # fmt: skip
    more = [max(0.0, one - alone) for one in waited]
    bench.add("groups.watch.wait.more", "more than with nobody looking", more, "ms")


@contextlib.contextmanager
def _exporting(words: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Run the exporter; yield its pid and port."""
    fixed = ("exporter", "--listen", "127.0.0.1:0", "--match", MARK)
    process = subprocess.Popen(
        pagescan(*fixed, *words), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening on" in line:
                yield process.pid, int(line.partition("127.0.0.1:")[2].split(";")[0])
                return
        raise Unavailable("the exporter did not start: pip install pagescan[exporter]")
    finally:
        process.send_signal(2)
        process.communicate()


def _add_exporter(
    bench: Bench, members: Members, pid: int, port: int, words: tuple[str, ...]
) -> None:
    """Scrape again and again, while some members map memory; add the figures."""
    time.sleep(12 if words else 1)  # two ticks
    seconds, used, waits, ticks, text = [], [], [], [], ""
    for _ in range(bench.rounds(6, 2)):
        time.sleep(1.1)  # what it reads serves all scrapers for a second
        members.begin()
        time.sleep(0.5)
        before, begun = processor_seconds(pid), time.perf_counter()
        url = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
        seconds.append(time.perf_counter() - begun)
        used.append((processor_seconds(pid) - before) / _EVERY * 100)
        before, begun = processor_seconds(pid), time.monotonic()
        waits.append(members.waited())
        spent = processor_seconds(pid) - before
        ticks.append(spent / (time.monotonic() - begun) * 100)
    key, name = ("track", "exporter --track") if words else ("plain", "exporter")
    hold = float(text.partition("\npagescan_longest_hold_seconds ")[2].split()[0])
    bench.add(f"groups.{key}.scrape", f"a scrape of {name}", seconds, "s")
    bench.add(
        f"groups.{key}.cpu", f"{name}, of a processor", used, "%",
        note="a scrape every 15 s",
    )  # fmt: skip
    mean = sum(ticks) / len(ticks)
    bench.add(f"groups.{key}.between", f"{name}, between scrapes", mean, "%")
    bench.add(f"groups.{key}.rss", f"memory of {name}", resident_mb(pid), "MB")
    bench.add(f"groups.{key}.hold", f"longest hold by {name}", hold * 1e3, "ms")
    bench.add(f"groups.{key}.wait", f"a member's mmap amid {name}", waits, "ms")
