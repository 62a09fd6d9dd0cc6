"""How long a command takes that has next to nothing to do."""

import sys

from benchmarks.measure import Bench, Unavailable, in_turn, run_checked
from benchmarks.processes import pagescan, redis, session

_CLICK = "python -c 'import click'"
_IMPORT = [sys.executable, "-c", "import click"]


def run(bench: Bench) -> None:
    """Compare with the start of Python with click."""
    rounds = bench.rounds(31, 11)
    _compare(
        bench, "startup.version", "pagescan --version", pagescan("--version"), rounds
    )
    _compare(bench, "startup.help", "pagescan diff -h", pagescan("diff", "-h"), rounds)
    try:
        with redis(bench.redis_bytes) as server, session(server.pid):
            size = f"{server.resident() / (1 << 30):.1f} GiB"
            words = pagescan("diff", "--since-wp", "--json", server.pid)
            what = f"pagescan diff --since-wp --json, quiet redis of {size}"
            _compare(bench, "startup.diff", what, words, rounds)
    except Unavailable as why:
        bench.skip("pagescan diff on redis", str(why))


def _compare(bench: Bench, key: str, what: str, words: list[str], rounds: int) -> None:
    peaks = []

    def ours() -> float:
        done = run_checked(words)
        peaks.append(done.rss / 1e6)
        return done.wall * 1e3

    found = in_turn(
        rounds, {"ours": ours, "click": lambda: run_checked(_IMPORT).wall * 1e3}
    )
    bench.add(key, what, found["ours"], "ms", against=_CLICK, base=found["click"])
    bench.add(f"{key}.rss", f"{what}: peak memory", peaks, "MB")
