"""Measures what watch costs a target that writes all over its memory.

Compares it with the figure that watch reports. The cost is the target's processor time,
user and system, per unit of its work; never throughput. This, too, varies by 10 % and
more with the load beside it. So two targets of a kind work side by side, and first one
is watched, then the other: a disturbance of the machine affects both, and so does
`watch` itself, as a process beside them.
"""

import contextlib
import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.measure import MIB, Bench, Unavailable, helper
from benchmarks.processes import Watch, redis
from pagescan.tracking.fault_cost import Trial

_BEGUN, _SETTLED = 1.0, 4.0  # seconds until figures are steady, with a budget
_KEYS = 1_000_000
_WAYS: dict[str, tuple[str, ...]] = {"1 s": (), "1 s, --budget 2": ("--budget", "2")}


@dataclass
class Work:
    """A target under load.

    Attributes:
        pid: The target.
        done: Returns the units of work that the target has done so far.
    """

    pid: int
    done: Callable[[], int]

    def cpu_ns(self) -> int:
        """Return the target's processor time so far, all threads."""
        return time.clock_gettime_ns((~self.pid << 3) | 2)


@dataclass
class Phase:
    """Some seconds of two targets under load, of which one is watched.

    Attributes:
        ratio: Processor time per unit of work, of the watched target to the other.
        said: The mean `cost.target_share` of its looks.
        writes: First writes per second of its processor time, as watch found them.
    """

    ratio: float
    said: float
    writes: float


def run(bench: Bench) -> None:
    """Measure a redis of small keys, and two programs in C."""
    fault = _fault_ns(bench)
    size = 256 if bench.quick else 1024
    keys = _KEYS // 20 if bench.quick else _KEYS
    loads: dict[str, Callable[[], contextlib.AbstractContextManager[Work]]] = {
        "redis": lambda: _redis(keys),
        "scattered": lambda: _program("random", size * MIB),
        "sequential": lambda: _program("sequential", size * MIB),
    }
    if shutil.which("redis-benchmark") is None:
        bench.skip("redis", "redis-benchmark is not installed (redis-tools)")
        del loads["redis"]
    for name, load in loads.items():
        with load() as one, load() as other:
            for way, options in _WAYS.items():
                _measure(bench, (name, way), (one, other), options, fault)


def _fault_ns(bench: Bench) -> float:
    """Return the cost of a first write, as pagescan itself measures it."""
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
    """Run a redis with `keys` keys of 900 bytes; set values of 800 bytes at random."""
    with redis(0) as server:
        start = ["redis-benchmark", "-s", server.path, "-q", "-t", "set"]
        start += ["-r", str(keys)]
        filling = ["-n", str(2 * keys), "-d", "900", "-P", "64"]
        subprocess.run([*start, *filling], stdout=subprocess.DEVNULL, check=True)
        # Until nothing grows any more, because values of another size need other
        # memory.
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


def _measure(
    bench: Bench,
    names: tuple[str, str],
    pair: tuple[Work, Work],
    options: Sequence[str],
    fault: float,
) -> None:
    """Watch one, then the other, so that what both phases share cancels out."""
    name, way = names
    seconds = 2.0 if bench.quick else 6.0
    lost, said, writes = [], [], []
    for _ in range(bench.rounds(6, 1)):
        phases = [
            _phase(*pair, options, seconds),
            _phase(*pair[::-1], options, seconds),
        ]
        lost.append(100 - 100 / math.sqrt(phases[0].ratio * phases[1].ratio))
        said.append(100 * fmean(phase.said for phase in phases))
        writes.append(fmean(phase.writes for phase in phases))
    key = f"share.{name}.{way.replace(' ', '').replace(',', '')}"
    bench.add(
        f"{key}.lost",
        f"{name}: of its processor time, watch at {way}",
        lost,
        "%",
        against="first writes/s x cost of one",
        base=[number * fault / 1e7 for number in writes],
        note=f"{median(writes):,.0f} first writes a second of its processor time",
    )
    bench.add(
        f"{key}.said",
        f"{name}: cost.target_share, watch at {way}",
        said,
        "%",
        against="what was measured",
        base=median(lost),
    )


def _phase(work: Work, other: Work, options: Sequence[str], seconds: float) -> Phase:
    """Watch one of two targets under load."""
    watch = Watch(work.pid, "-i", "1", *options)
    try:
        time.sleep(_SETTLED if options else _BEGUN)
        before, looks = [_so_far(one) for one in (work, other)], len(_documents(watch))
        time.sleep(seconds)
        after, documents = [_so_far(one) for one in (work, other)], _documents(watch)
    finally:
        watch.end()
    used = [end[0] - begin[0] for begin, end in zip(before, after, strict=True)]
    done = [end[1] - begin[1] for begin, end in zip(before, after, strict=True)]
    documents = documents[looks:]
    pages = fmean(one["summary"]["pages"] for one in documents)
    return Phase(
        (used[0] / done[0]) / (used[1] / done[1]),
        fmean(one["cost"]["target_share"] or 0 for one in documents),
        pages / (used[0] / seconds / 1e9),
    )


def _so_far(work: Work) -> tuple[int, int]:
    return work.cpu_ns(), work.done()


def _documents(watch: Watch) -> list[dict[str, dict[str, float]]]:
    """Return the looks so far; skip the last line if it is still being written."""
    lines = watch.out.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]
