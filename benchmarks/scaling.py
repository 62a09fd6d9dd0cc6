"""Measures a quiet look against the size of the memory, on one thread and on two."""

from collections.abc import Callable

from benchmarks.measure import (
    GIB,
    MIB,
    PAGE,
    Bench,
    Unavailable,
    elapsed_ns,
    gains,
    helper,
    in_turn,
)
from benchmarks.processes import range_of, target
from pagescan import Tracking, track
from pagescan.native import Pace


def run(bench: Bench) -> None:
    """Measure from 64 MiB to 16 GiB, up to the free memory."""
    sizes = [64 * MIB, 256 * MIB] if bench.quick else [64 * MIB << n for n in range(9)]
    for size in sizes:
        what = f"{size // MIB} MiB" if size < GIB else f"{size // GIB} GiB"
        try:
            _measure(bench, what, size)
        except Unavailable as why:
            bench.skip(f"scaling to {what}", str(why))
            return


def _measure(bench: Bench, what: str, size: int) -> None:
    with target(size) as made:
        words = (made.facts["start"], made.facts["end"])
        with (
            helper("ioctls", made.pid, *words) as bare,
            track(made.pid, [range_of(made)]) as tracking,
        ):
            found = in_turn(
                bench.rounds(15, 5),
                {
                    "bare": lambda: bare.tell("get")["ns"] / 1e6,
                    "bare.two": lambda: bare.tell("get 2")["ns"] / 1e6,
                    "one": _look(tracking, 1, 0),
                    "two": _look(tracking, 2, 0),
                    "one.paced": _look(tracking, 1, Pace().pause_ns),
                    "two.paced": _look(tracking, 2, Pace().pause_ns),
                },
            )
    bench.add(
        f"scaling.{size // MIB}.two.gain",
        f"what a second thread gains at {what}, to what it gains in C",
        gains(
            gains(found["one"], found["two"]), gains(found["bare"], found["bare.two"])
        ),
        "x",
    )
    for key, words_, base, against in (
        ("one", "one thread, without pauses", "bare", "bare ioctl in C"),
        ("two", "two threads, without pauses", "one", "the same, one thread"),
        ("one.paced", "one thread, with its pauses", "bare", "bare ioctl in C"),
        ("two.paced", "two threads, with its pauses", "one.paced", "one thread"),
    ):
        per_page = min(found[key]) * 1e6 * PAGE / size
        bench.add(
            f"scaling.{size // MIB}.{key}",
            f"a quiet look at {what}, {words_}",
            found[key],
            "ms",
            against=against,
            base=found[base],
            note=f"at best {per_page:.2f} ns a page",
        )


def _look(tracking: Tracking, threads: int, pause_ns: int) -> Callable[[], float]:
    def measured() -> float:
        tracking.scanner.threads = threads
        tracking.scanner.pace = Pace(pause_ns=pause_ns)
        return elapsed_ns(tracking.look) / 1e6

    return measured
