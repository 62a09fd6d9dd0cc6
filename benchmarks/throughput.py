"""Measures what redis loses to `pagescan watch` under redis-benchmark's defaults.

The defaults write few different pages; `target_share` has a more costly load.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.measure import MIB, Bench, Unavailable, helper, in_turn
from benchmarks.processes import Redis, Watch, pagescan, redis

_DEFAULTS = "set,get,incr,lpush,rpop,sadd,hset,mset"


@dataclass
class Load:
    """One run of redis-benchmark.

    Attributes:
        rate: Requests per second, all tests together.
        cpu: Processor time of redis per request, in ns.
        pages: Pages written per second of redis's processor time.
    """

    rate: float
    cpu: float
    pages: float = 0


def run(bench: Bench) -> None:
    """Measure in pairs: no `watch`, watch at 1 s, watch at 0.1 s, and with a budget."""
    if shutil.which("redis-benchmark") is None:
        raise Unavailable("redis-benchmark is not installed (apt install redis-tools)")
    fault = _fault_ns(bench)
    ways = {"none": (), "1 s": ("-i", "1"), "0.1 s": ("-i", "0.1")}
    budget = ("-i", "1", "--budget", "2")
    if _has_budget():
        ways["1 s, --budget 2"] = budget
    else:
        bench.skip("watch --budget 2", "pagescan has no such option")
    requests = "20000" if bench.quick else "100000"
    with redis(64 * MIB) as server:
        words = ["-t", _DEFAULTS, "-n", requests]
        _measure(bench, server, ways, words, fault)


def _fault_ns(bench: Bench) -> float:
    """Return the extra cost of the first write to a protected page, in ns."""
    costs = []
    size = (32 if bench.quick else 256) * MIB
    with (
        helper("methods", "none", size) as none,
        helper("methods", "async", size) as on,
    ):

        def write(one: object) -> float:
            answer = one.tell("100")  # type: ignore[attr-defined]
            return float(answer["write_ns"] / answer["pages"])

        costs = [write(on) - write(none) for _ in range(bench.rounds(7))]
    figure = bench.add("throughput.fault", "one fault, all of 256 MiB", costs, "ns")
    return figure.value


def _has_budget() -> bool:
    done = subprocess.run(
        pagescan("watch", "-h"), capture_output=True, text=True, check=False
    )
    return "--budget" in done.stdout


def _load(server: Redis, words: list[str]) -> Load:
    cpu, begun = server.cpu_ns(), time.monotonic()
    done = subprocess.run(
        ["redis-benchmark", "-s", server.path, "--csv", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, cpu = time.monotonic() - begun, server.cpu_ns() - cpu
    tests = len(done.stdout.splitlines()) - 1
    requests = tests * int(words[words.index("-n") + 1])
    return Load(requests / seconds, cpu / requests)


def _watched(server: Redis, words: list[str], options: tuple[str, ...]) -> Load:
    if not options:
        return _load(server, words)
    watch = Watch(server.pid, *options)
    cpu = server.cpu_ns()
    try:
        load = _load(server, words)
        cpu = server.cpu_ns() - cpu
    finally:
        last = watch.end()
    load.pages = json.loads(last)["totals"]["pages"] / (cpu / 1e9)
    return load


def _measure(
    bench: Bench,
    server: Redis,
    ways: dict[str, tuple[str, ...]],
    words: list[str],
    fault: float,
) -> None:
    """Run redis-benchmark with and without `watch`, in turn."""
    loads: dict[str, list[Load]] = {name: [] for name in ways}

    def once(name: str) -> float:
        loads[name].append(_watched(server, words, ways[name]))
        return loads[name][-1].rate

    _load(server, words)
    calls: dict[str, Callable[[], float]] = {name: partial(once, name) for name in ways}
    rates = in_turn(bench.rounds(5, 1), calls)
    base = rates.pop("none")
    quiet = loads.pop("none")
    bench.add(
        "throughput.defaults.none", "defaults: requests/s, not watched", base, "/s"
    )
    for name, watched in loads.items():
        pairs = list(zip(quiet, watched, strict=True))
        _add(bench, "defaults", "defaults", name, pairs, fault)


def _add(
    bench: Bench,
    key: str,
    what: str,
    name: str,
    pairs: list[tuple[Load, Load]],
    fault: float,
) -> None:
    """Add the figures of the loss; a pair is one run without and one with `watch`."""
    short = name.replace(" ", "").replace(",", "")
    bench.add(
        f"throughput.{key}.{short}.rate",
        f"{what}: requests/s, watch at {name}",
        [watched.rate for _, watched in pairs],
        "/s",
        against="not watched",
        base=[quiet.rate for quiet, _ in pairs],
    )
    rate_lost = [100 - 100 * watched.rate / quiet.rate for quiet, watched in pairs]
    cpu_lost = [100 - 100 * quiet.cpu / watched.cpu for quiet, watched in pairs]
    predicted = [100 * watched.pages * fault / 1e9 for _, watched in pairs]
    pages = sorted(watched.pages for _, watched in pairs)[len(pairs) // 2]
    for part, text, lost in (
        ("lost", "throughput lost", rate_lost),
        ("cpu", "of redis's own processor time lost", cpu_lost),
    ):
        bench.add(
            f"throughput.{key}.{short}.{part}",
            f"{what}: {text}, watch at {name}",
            lost,
            "%",
            against="pages written/s x cost of a fault",
            base=predicted,
            note=f"{pages:,.0f} pages written a second of its processor time",
        )
