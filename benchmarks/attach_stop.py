"""Measures how long an attach stops its target."""

import os
import sys

from benchmarks.measure import GIB, MIB, Bench, Unavailable, percentile
from benchmarks.processes import idle, redis
from pagescan import native

_BUSY = "while True: pass"
_ASLEEP = "import time; time.sleep(1e6)"


def run(bench: Bench) -> None:
    """Attach a thousand times to each kind of target."""
    times = 100 if bench.quick else 1000
    stops: dict[str, list[float]] = {}
    size = min(bench.redis_bytes, 256 * MIB if bench.quick else GIB)
    try:
        with redis(size) as server:
            stops["redis, idle in epoll_wait"] = attach(server.pid, times)
    except Unavailable as why:
        bench.skip("stop of redis", str(why))
    for what, code in (("a busy loop", _BUSY), ("a sleeper", _ASLEEP)):
        with idle(sys.executable, "-c", code) as pid:
            stops[what] = attach(pid, times)
    for what, stopped in stops.items():
        key = what.replace(",", "").split()[-1 if what.startswith("a ") else 0]
        _add(bench, f"stop.{key}", what, stopped)
    together = [ms for stopped in stops.values() for ms in stopped]
    _add(bench, "stop.all", "all of them", together)


def attach(pid: int, times: int) -> list[float]:
    """Take a userfaultfd repeatedly; return the length of each stop in ms."""
    stopped = []
    for _ in range(times):
        taken = native.attach(pid)
        if taken.error:
            raise Unavailable(f"attach to {pid}: {os.strerror(taken.error)}")
        os.close(taken.uffd)
        stopped.append(taken.stopped_ns / 1e6)
    return stopped


def _add(bench: Bench, key: str, what: str, stopped: list[float]) -> None:
    count = len(stopped)
    bench.add(f"{key}.p50", f"stop of {what}, median of {count}", stopped, "ms")
    for share, name in ((0.99, "p99"), (1.0, "max")):
        value = percentile(stopped, share)
        bench.add(f"{key}.{name}", f"stop of {what}, {name}", value, "ms")
