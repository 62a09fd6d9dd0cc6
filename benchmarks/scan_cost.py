"""Measures the cost of a look per page, compared with the bare ioctl in a C program.

The look is the whole work of `diff`: it reads the mappings, searches for new memory,
scans for candidates and categories, and joins; with its pauses and without.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import (
    GIB,
    MIB,
    PAGE,
    Bench,
    Helper,
    elapsed_ns,
    gains,
    helper,
    in_turn,
    run_checked,
    scratch,
)
from benchmarks.processes import range_of, target
from pagescan import Category, Query, Tracking, track
from pagescan.native import Pace
from pagescan.scanner.protect import protect
from pagescan.scanner.scanner import Scanner
from pagescan.target.maps import read
from pagescan.target.selection import Selection


def run(bench: Bench) -> None:
    """Measure quiet looks; then get, protect, and both in one step."""
    size = 256 * MIB if bench.quick else 4 * GIB
    with target(size) as made:
        words = (made.facts["start"], made.facts["end"])
        with (
            helper("ioctls", made.pid, *words) as bare,
            track(made.pid, [range_of(made)]) as tracking,
        ):
            _quiet(bench, made, tracking, bare, size // PAGE)
            for percent in (1, 10, 100):
                _operations(bench, made, tracking, bare, percent, size // PAGE)


def _bare(bare: Helper, command: str, pages: int) -> Callable[[], float]:
    return lambda: float(bare.tell(command)["ns"]) / pages


def _quiet(
    bench: Bench, made: Helper, tracking: Tracking, bare: Helper, pages: int
) -> None:
    script = Path(__file__).with_name("pagemap.py")
    out = scratch() / "pagemap"

    def in_python() -> float:
        run_checked([sys.executable, str(script), str(made.pid)], str(out))
        return float(json.loads(out.read_text())["ns"]) / pages

    def look(threads: int, pause_ns: int) -> Callable[[], float]:
        def measured() -> float:
            tracking.scanner.threads = threads
            tracking.scanner.pace = Pace(pause_ns=pause_ns)
            return elapsed_ns(tracking.look) / pages

        return measured

    pause = Pace().pause_ns
    found = in_turn(
        bench.rounds(41, 11),
        {
            "bare": _bare(bare, "get", pages),
            "bare.two": _bare(bare, "get 2", pages),
            "one": look(1, 0),
            "two": look(2, 0),
            "one.paced": look(1, pause),
            "two.paced": look(2, pause),
        },
    )
    read = in_turn(
        bench.rounds(5),
        {
            "python": in_python,
            "bare": _bare(bare, "get", pages),
            "one": look(1, 0),
        },
    )
    bench.add(
        "scan.quiet.python", "/proc/PID/pagemap in Python, its loop", read["python"],
        "ns/page", against="a quiet look, one thread", base=read["one"],
    )  # fmt: skip
    bench.add(
        "scan.quiet.python.reached", "what a quiet look gains over it, to what C gains",
        gains(read["bare"], read["one"]), "x",
    )  # fmt: skip
    of_c = gains(found["bare"], found["bare.two"])
    bench.add(
        "scan.quiet.two.gain", "what a second thread gains, to what it gains in C",
        gains(gains(found["one"], found["two"]), of_c), "x",
    )  # fmt: skip
    base = found["bare"]
    for key, what in (
        ("one", "a quiet look, one thread, without pauses"),
        ("one.paced", "a quiet look, one thread, with its pauses"),
    ):
        bench.add(
            f"scan.quiet.{key}", what, found[key], "ns/page",
            against="bare ioctl in C", base=base,
        )  # fmt: skip
    for key, other, what in (
        ("two", "one", "a quiet look, two threads, without pauses"),
        ("two.paced", "one.paced", "a quiet look, two threads, with its pauses"),
    ):
        bench.add(
            f"scan.quiet.{key}", what, found[key], "ns/page",
            against="the same, one thread", base=found[other],
        )  # fmt: skip
        bench.add(
            f"scan.quiet.{key}.bare", what, found[key], "ns/page",
            against="bare ioctl in C, one thread", base=base,
        )  # fmt: skip


def _operations(
    bench: Bench,
    made: Helper,
    tracking: Tracking,
    bare: Helper,
    percent: int,
    pages: int,
) -> None:
    """Measure get, protect and get+protect, each after the same writes."""
    chosen = Selection.parse([range_of(made)]).select(read(tracking.target))
    scanner = Scanner(tracking.target, Pace(pause_ns=0), threads=1)
    written = Query(require=Category.WRITTEN)
    present = Query(require=Category.PRESENT, returned=Category.PRESENT)

    def after_writes(measured: Callable[[], float]) -> Callable[[], float]:
        def prepared() -> float:
            bare.tell("get+protect")
            made.tell(f"write {percent}")
            return measured()

        return prepared

    def ours(call: Callable[[], object]) -> Callable[[], float]:
        return lambda: elapsed_ns(call) / pages

    ways = {
        "get": ours(lambda: scanner.scan(chosen, written)),
        "protect": ours(lambda: protect(scanner, chosen, present)),
        "get+protect": ours(lambda: _rearm(tracking)),
    }
    both = {name: after_writes(call) for name, call in ways.items()}
    both |= {
        f"c.exact {name}": after_writes(_bare(bare, f"exact {name}", pages))
        for name in ("get", "get+protect")
    }
    both |= {f"c.{name}": after_writes(_bare(bare, name, pages)) for name in ways}
    found = in_turn(bench.rounds(5), both)
    for name in ways:
        bench.add(
            f"scan.{name}.{percent}",
            f"{name}, {percent} % written, one thread",
            found[name],
            "ns/page",
            against="the same loop in C",
            base=found[f"c.{name}"],
            note="C: the written bit alone; pagescan: categories and exact rules too",
        )
        if f"c.exact {name}" in found:
            bench.add(
                f"scan.{name}.{percent}.exact",
                f"{name}, {percent} % written, one thread",
                found[name],
                "ns/page",
                against="the same question in C",
                base=found[f"c.exact {name}"],
                note="C: the same masks and categories, one loop over all",
            )


def _rearm(tracking: Tracking) -> None:
    tracking.scanner.threads = 1
    tracking.scanner.pace = Pace(pause_ns=0)
    tracking.look(rearm=True)
