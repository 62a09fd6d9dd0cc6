#!/usr/bin/env python3
"""Compares a redis under load with nothing, `watch` and `record` beside it.

One server of MIB (160) gets the same load in blocks of BLOCK seconds (40): ROUNDS (15)
blocks of each way, in turn. It prints, for each way, the processor time of the server
per request and that of pagescan, and the size of the recordings per written region.

    BLOCK=40 ROUNDS=15 MIB=160 benchmarks/redis_recorded.py
"""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.measure import MIB, in_turn, scratch  # noqa: E402 - needs the path
from benchmarks.processes import Redis, pagescan  # noqa: E402

BLOCK = int(os.environ.get("BLOCK", "40"))
ROUNDS = int(os.environ.get("ROUNDS", "15"))
SIZE = int(os.environ.get("MIB", "160"))


def main() -> None:
    """Run the blocks and print what they cost."""
    server = Redis(scratch(), SIZE * MIB)
    tools: Counter[str] = Counter()
    recordings: list[Path] = []

    def block(way: str) -> float:
        words = [way, server.pid, "-i", "1"]
        if way == "watch":
            words.append("--json")
        if way == "record":
            recordings.append(scratch() / f"{len(recordings)}.pagescan")
            words += ["-o", recordings[-1]]
        tool = None if way == "nothing" else _started(words)
        served, before = server.requests(), server.cpu_ns()
        used = _cpu_ns(tool.pid) if tool else 0
        _load(server)
        cost = (server.cpu_ns() - before) / (server.requests() - served)
        if tool:
            tools[way] += _cpu_ns(tool.pid) - used
            tool.send_signal(signal.SIGINT)
            tool.communicate()
        return cost

    try:
        _load(server)
        ways = {way: partial(block, way) for way in ("nothing", "watch", "record")}
        for way, costs in in_turn(ROUNDS, ways).items():
            print(
                f"{way}: {median(costs):.0f} ns of processor per request"
                f" ({min(costs):.0f} to {max(costs):.0f}); pagescan itself:"
                f" {tools[way] / 1e7 / (BLOCK * ROUNDS):.2f} % of a processor"
            )
    finally:
        server.close()
    regions = looks = 0
    for path in recordings:
        with sqlite3.connect(path) as file:
            found = file.execute("SELECT sum(regions), count(*) FROM looks").fetchone()
            regions, looks = regions + found[0], looks + found[1]
    size = sum(path.stat().st_size for path in recordings)
    print(f"{looks} looks, {regions} regions, {size / regions:.2f} bytes per region")


def _started(words: list[object]) -> "subprocess.Popen[str]":
    """Start a command of pagescan; the target is armed when this returns."""
    tool = subprocess.Popen(
        pagescan(*words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tool.stderr is not None
    for line in tool.stderr:
        if f"ing {words[1]} " in line:  # watching, recording
            break
    return tool


def _cpu_ns(pid: int) -> int:
    """Return the processor time of a process with one thread so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def _load(server: Redis) -> None:
    """Write random keys for BLOCK seconds."""
    keys = str(SIZE * MIB // 800)
    words = ["-t", "set", "-r", keys, "-d", "512", "-n", "1000000000"]
    subprocess.run(
        [*("timeout", str(BLOCK), "redis-benchmark", "-s", server.path), *words,
         *("-c", "20", "-P", "8", "-q")],
        stdout=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
