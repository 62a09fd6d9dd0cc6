"""Measures the stop of a target while pagescan itself cannot run.

That is on a machine with six busy processes per processor, and if pagescan is stopped,
frozen or throttled at the moment in which a thread stands still.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.measure import Bench, Unavailable, build, percentile
from benchmarks.processes import idle
from pagescan import native

_BUSY = "while True: pass"
_ASLEEP = "import time; time.sleep(1e6)"
_PER_CPU = 6
_NATIVE = Path(native.__file__).parent
_GROUPS = Path("/sys/fs/cgroup")
_QUOTA = {"cpu.cfs_period_us": 100_000, "cpu.cfs_quota_us": 2_000}
_HOW: tuple[tuple[str, str, str, dict[str, int]], ...] = (
    # name in the table, word for frozen.c, hierarchy, settings of the group
    ("nothing stops pagescan", "not", "", {}),
    ("the surgeon is stopped", "stop", "", {}),
    ("the process that waits for it is", "host", "", {}),
    ("its cgroup v2 is frozen for 4 s", "freeze", "unified", {}),
    ("its cgroup v1 is frozen for 4 s", "freeze", "freezer", {}),
    ("its cgroup may use 2 % of a processor", "burn", "cpu", _QUOTA),
)


def run(bench: Bench) -> None:
    """Attach on a busy machine, then while pagescan is held up."""
    with idle(sys.executable, "-c", _ASLEEP) as pid, spinning():
        stops, failed = attach(pid, 40 if bench.quick else 300)
    note = f"{failed} of {len(stops)} attaches failed"
    what = f"stop of a sleeper beside {_PER_CPU} busy processes per processor"
    bench.add("busy.stop.p50", f"{what}, median", stops, "ms", note=note)
    for share, name in ((0.99, "p99"), (1.0, "max")):
        value = percentile(stops, share)
        bench.add(f"busy.stop.{name}", f"{what}, {name}", value, "ms")
    for what, how, hierarchy, settings in _HOW:
        try:
            gaps = [
                held_up(how, hierarchy, settings) for _ in range(bench.rounds(3, 1))
            ]
        except (OSError, Unavailable) as why:
            bench.skip(what, str(why))
            continue
        key = f"busy.{how}{'.' * bool(hierarchy)}{hierarchy}"
        bench.add(key, f"longest gap of a target: {what}", gaps, "ms")


@contextlib.contextmanager
def spinning() -> Iterator[None]:
    """Run busy processes, at the priority that a process has by default."""
    count = _PER_CPU * len(os.sched_getaffinity(0))
    words = [sys.executable, "-c", _BUSY]
    busy = [subprocess.Popen(words) for _ in range(count)]
    try:
        time.sleep(1)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def held_up(how: str, hierarchy: str, settings: Mapping[str, int]) -> float:
    """Attach once, while pagescan is held up; return the target's longest gap in ms."""
    sources = sorted(map(str, _NATIVE.glob("shim_*.c")))
    program = build("frozen", "-DPS_FAULT", *sources)
    with contextlib.ExitStack() as undo:
        words = [str(program), how]
        if hierarchy:
            group = _GROUPS / hierarchy / f"pagescan-bench-{os.getpid()}"
            group.mkdir()
            undo.callback(group.rmdir)
            words.append(str(group))
            for name, value in settings.items():
                (group / name).write_text(str(value))
        done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)["gap_ns"]) / 1e6


def attach(pid: int, times: int) -> tuple[list[float], int]:
    """Attach repeatedly; return the stops in ms, and the number of failures."""
    stops: list[float] = []
    failed = 0
    for _ in range(times):
        taken = native.attach(pid)
        stops.append(taken.stopped_ns / 1e6)
        if taken.uffd >= 0:
            os.close(taken.uffd)
        failed += bool(taken.error)
    return stops, failed
