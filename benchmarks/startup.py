"""Measures how long the shortest commands take."""

import sys
from sysconfig import get_path

from benchmarks.measure import HERE, Bench, Unavailable, in_turn, run_checked
from benchmarks.processes import redis, session

_CLICK = "python -c 'import click'"
# Without site, as in a regular installation: an editable one loads more files at each
# start, also in the Python with click, and that would flatter the ratio.
_START = [sys.executable, "-S", "-c"]
_PATHS = f"import sys; sys.path[:0] = {[str(HERE.parent), get_path('purelib')]};"
_IMPORT = [*_START, f"{_PATHS} import click"]


def installed(*words: object) -> list[str]:
    """Return the command line of a pagescan in a regular, non-editable installation."""
    main = (
        f"{_PATHS} from pagescan.__main__ import main; sys.argv[0] = 'pagescan'; main()"
    )
    return [*_START, main, *map(str, words)]


def run(bench: Bench) -> None:
    """Compare the start of pagescan with the start of Python with click."""
    rounds = bench.rounds(31, 11)
    _compare(
        bench, "startup.version", "pagescan --version", installed("--version"), rounds
    )
    _compare(bench, "startup.help", "pagescan diff -h", installed("diff", "-h"), rounds)
    try:
        with redis(bench.redis_bytes) as server, session(server.pid):
            size = f"{server.resident() / (1 << 30):.1f} GiB"
            words = installed("diff", "--since-wp", "--json", server.pid)
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
