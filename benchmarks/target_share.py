"""What watch costs a target that writes all over its memory, beside what it says.

Processor time of the target, user and system, per unit of its work; never throughput,
which swings with all that runs beside it. Phases in turn, all within one load: nothing,
`watch` of another process, `watch`, `watch --budget 2`.
"""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.measure import MIB, Bench, Unavailable, helper
from benchmarks.processes import Watch, idle, redis
from pagescan.fault_cost import Trial

_BEGUN, _SETTLED = 1.0, 4.0  # seconds: until nothing changes; with a budget
_KEYS = 1_000_000


@dataclass
class Work:
    """A target at work.

    Attributes:
        pid: The target.
        done: Returns the units of work that it has done so far.
    """

    pid: int
    done: Callable[[], int]

    def cpu_ns(self) -> int:
        """Return its processor time so far, all threads."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)


@dataclass
class Phase:
    """Some seconds of a load.

    Attributes:
        cost: Processor time for a unit of work, ns.
        said: `cost.target_share`, the mean of its looks; 0: nobody looked.
        pages: Pages found written a second of processor time; with a budget, those
            of the part that is tracked.
    """

    cost: float
    said: float = 0.0
    pages: float = 0.0


def run(bench: Bench) -> None:
    """Measure a redis of small keys, and two programs in C."""
    fault = _fault_ns(bench)
    size = 256 if bench.quick else 1024
    loads: dict[str, contextlib.AbstractContextManager[Work]] = {
        "scattered": _program("random", size * MIB),
        "sequential": _program("sequential", size * MIB),
    }
    if shutil.which("redis-benchmark") is None:
        bench.skip("redis", "redis-benchmark is not installed (redis-tools)")
    else:
        loads = {"redis": _redis(_KEYS // 20 if bench.quick else _KEYS), **loads}
    for name, load in loads.items():
        with load as work:
            _measure(bench, name, work, fault)


def _fault_ns(bench: Bench) -> float:
    """Return what a first write costs, as pagescan itself measures it."""
    costs = []
    for _ in range(bench.rounds(7)):
        trial = Trial()
        cost = trial.wait()
        trial.close()
        if cost.why:
            raise Unavailable(f"the cost of a first write: {cost.why}")
        costs.append(cost.seconds * 1e9)
    return bench.add(
        "share.fault", "a first write, as a target meets it", costs, "ns"
    ).value


@contextlib.contextmanager
def _program(mode: str, size: int) -> Iterator[Work]:
    """Run a program that writes 800 bytes, reads and computes, again and again."""
    with helper("load", mode, size) as made:
        yield Work(made.pid, lambda: int(made.tell("")["count"]))


@contextlib.contextmanager
def _redis(keys: int) -> Iterator[Work]:
    """Run a redis of so many keys of 900 bytes, which get values of 800 at random."""
    with redis(0) as server:
        start = ["redis-benchmark", "-s", server.path, "-q", "-t", "set"]
        start += ["-r", str(keys)]
        filling = ["-n", str(2 * keys), "-d", "900", "-P", "64"]
        subprocess.run([*start, *filling], stdout=subprocess.DEVNULL, check=True)
        # Until nothing grows any more: values of another size need other memory.
        filling = ["-n", str(3 * keys), "-d", "800", "-P", "64"]
        subprocess.run([*start, *filling], stdout=subprocess.DEVNULL, check=True)
        load = subprocess.Popen(
            [*start, "-n", "1000000000", "-d", "800", "-P", "4"],
            stdout=subprocess.DEVNULL,
        )
        try:
            yield Work(server.pid, server.requests)
        finally:
            load.kill()
            load.wait()


def _measure(bench: Bench, name: str, work: Work, fault: float) -> None:
    """Compare each phase with the mean of the quiet ones beside it."""
    seconds = 2.0 if bench.quick else 4.0
    found: dict[str, list[tuple[float, Phase]]] = {}
    with idle("sleep", "3600") as other:
        ways = {
            "another process": (other, ()),
            "1 s": (work.pid, ()),
            "1 s, --budget 2": (work.pid, ("--budget", "2")),
        }
        quiet = [_phase(work, None, (), seconds)]
        for _ in range(bench.rounds(8, 1)):
            for way, (pid, options) in ways.items():
                phase = _phase(work, pid, options, seconds)
                quiet.append(_phase(work, None, (), seconds))
                base = fmean(one.cost for one in quiet[-2:])
                found.setdefault(way, []).append((base, phase))
    costs = [one.cost for one in quiet]
    bench.add(f"share.{name}.none", f"{name}: ns a unit, not watched", costs, "ns")
    for way, pairs in found.items():
        _add(bench, name, way, pairs, fault)


def _phase(
    work: Work, pid: int | None, options: Sequence[str], seconds: float
) -> Phase:
    """Measure a load that goes on, watched or not."""
    watch = Watch(pid, "-i", "1", *options) if pid else None
    try:
        time.sleep(_SETTLED if options else _BEGUN)
        done, cpu, looks = work.done(), work.cpu_ns(), _looks(watch)
        time.sleep(seconds)
        done, cpu = work.done() - done, work.cpu_ns() - cpu
        documents = _documents(watch)[looks:]
    finally:
        if watch:
            watch.end()
    phase = Phase(cpu / done)
    if documents and pid == work.pid:
        phase.said = fmean(one["cost"]["target_share"] or 0 for one in documents)
        pages = sum(one["summary"]["pages"] for one in documents)
        phase.pages = pages / len(documents) / (cpu / seconds / 1e9)
    return phase


def _documents(watch: Watch | None) -> list[dict[str, dict[str, float]]]:
    """Return the looks so far; the last line may be written at this moment."""
    if watch is None:
        return []
    lines = watch.out.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _looks(watch: Watch | None) -> int:
    return len(_documents(watch))


def _add(
    bench: Bench, name: str, way: str, pairs: list[tuple[float, Phase]], fault: float
) -> None:
    """Add what was lost, beside the faults and beside what watch said."""
    key = f"share.{name}.{way.replace(' ', '').replace(',', '')}"
    lost = [100 - 100 * base / phase.cost for base, phase in pairs]
    said = [100 * phase.said for _, phase in pairs]
    pages = [phase.pages for _, phase in pairs]
    what = f"{name}: of its processor time, watch at {way}"
    if way == "another process":
        bench.add(f"{key}.lost", f"{name}: the same, watch of {way}", lost, "%")
        return
    bench.add(
        f"{key}.lost",
        what,
        lost,
        "%",
        against="first writes/s x cost of one",
        base=[page * fault / 1e7 for page in pages],
        note=f"{median(pages):,.0f} first writes a second of its processor time",
    )
    factor = median(said) / median(lost) if median(lost) > 0 else 0.0
    bench.add(
        f"{key}.said",
        f"{name}: cost.target_share, watch at {way}",
        said,
        "%",
        against="what was measured",
        base=median(lost),
        note=f"{factor:.2f} times what was measured",
    )
