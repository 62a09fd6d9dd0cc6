#!/usr/bin/env python3
"""Compares a redis after hours of `pagescan watch` with one that was never watched.

Two servers of the same size, in transparent huge pages, get the same load for SECONDS
(3600); one of them is watched at 1 s. Then the watch ends, and both are measured in
turn while they are otherwise idle. It prints their huge pages before and after, and for
each round the processor time of the server and the requests per second.

    SECONDS=600 MIB=300 ROUNDS=15 benchmarks/redis_after_watch.py
"""

import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.measure import MIB, in_turn, scratch  # noqa: E402 - needs the path
from benchmarks.processes import Redis, Watch  # noqa: E402

SECONDS = float(os.environ.get("SECONDS", "3600"))
SIZE = int(os.environ.get("MIB", "300"))
ROUNDS = int(os.environ.get("ROUNDS", "15"))
# Each burst is short; the pauses between bursts leave the machine to other processes.
_BURST, _PAUSE = 20_000, 2.0


def main() -> None:
    """Run the comparison and print its results."""
    os.environ["MALLOC_CONF"] = "thp:always"
    servers = {}
    for name in ("watched", "unwatched"):
        folder = scratch() / name
        folder.mkdir()
        servers[name] = Redis(folder, SIZE * MIB)
    try:
        show("before", servers)
        watch = Watch(servers["watched"].pid, "-i", "1")
        begun = time.monotonic()
        while time.monotonic() - begun < SECONDS:
            for server in servers.values():
                _load(server, _BURST)
            time.sleep(_PAUSE)
        show("under watch", servers)
        last = json.loads(watch.end())
        print("watch:", {"looks": last["tick"], "cost": last["cost"]}, flush=True)
        show("afterwards", servers)
        _compare(servers)
        show("at the end", servers)
    finally:
        for server in servers.values():
            server.close()


def _compare(servers: dict[str, Redis]) -> None:
    rates: dict[str, list[float]] = {name: [] for name in servers}

    def once(name: str) -> float:
        server = servers[name]
        cpu, begun = server.cpu_ns(), time.monotonic()
        _load(server, 5 * _BURST)
        rates[name].append(5 * _BURST / (time.monotonic() - begun))
        return (server.cpu_ns() - cpu) / (5 * _BURST)

    found = in_turn(ROUNDS, {name: partial(once, name) for name in servers})
    for name, costs in found.items():
        print(
            f"{name}: {median(costs):.0f} ns of processor for a request"
            f" ({min(costs):.0f} to {max(costs):.0f}),"
            f" {median(rates[name]):.0f} requests/s"
            f" ({min(rates[name]):.0f} to {max(rates[name]):.0f})"
        )
    pairs = [
        one / other
        for one, other in zip(found["watched"], found["unwatched"], strict=True)
    ]
    print(f"ratio of the pairs: {median(pairs):.3f} ({min(pairs):.3f} to"
          f" {max(pairs):.3f})", flush=True)  # fmt: skip


def _load(server: Redis, requests: int) -> None:
    keys = str(SIZE * MIB // 2150)
    words = ["-t", "set,get", "-r", keys, "-d", "2000", "-n", str(requests // 2)]
    subprocess.run(
        ["redis-benchmark", "-s", server.path, "-q", *words],
        stdout=subprocess.DEVNULL,
        check=True,
    )


def show(when: str, servers: dict[str, Redis]) -> None:
    """Print how much of each server is in huge pages."""
    for name, server in servers.items():
        text = Path(f"/proc/{server.pid}/smaps_rollup").read_text()
        sizes = dict(line.split(":") for line in text.splitlines()[1:])
        rss, huge = (
            int(sizes[key].split()[0]) // 1024 for key in ("Rss", "AnonHugePages")
        )
        count = len(Path(f"/proc/{server.pid}/maps").read_text().splitlines())
        print(f"{when}: {name}: {rss} MiB, {huge} MiB huge, {count} mappings",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
