"""Compares WriteWatch, in C and from Python, with a fallback of mprotect and SIGSEGV.

Threads store to random pages all the time; every 3 ms the written pages are collected
and reset. Layers that emulate GetWriteWatch() have published figures for this set-up.
"""

import ctypes
import subprocess
import time
from collections.abc import Callable
from functools import partial

from benchmarks.measure import HERE, PAGE, Bench, Unavailable, in_turn, scratch
from pagescan import writewatch

PAUSE_US = 3000
SETUPS = ((6, 1080), (8, 8192))
_NAMES = {
    "c": "pagescan_watch_get() in C",
    "python": "WriteWatch.get() in Python",
    "fallback": "mprotect and SIGSEGV",
    "plain": "no tracking",
}
_IN_C = _NAMES["c"]
Sample = tuple[float, float]
"""ns a store, µs a get."""


def run(bench: Bench) -> None:
    """Measure the average cost of a store, and the cost of a get that resets."""
    library = _build()
    rounds = 10 if bench.quick else 50
    for threads, pages in SETUPS:
        _compare(bench, library, threads, pages, rounds)
    _idle(bench)


def _build() -> ctypes.CDLL:
    made = scratch() / "write_watch.so"
    words = ["gcc", "-O2", "-std=gnu11", "-Wall", "-shared", "-fPIC", "-pthread"]
    include = f"-I{writewatch.get_include()}"
    source = str(HERE / "write_watch.c")
    try:
        subprocess.run([*words, include, source, "-o", str(made)], check=True)
    except FileNotFoundError as error:
        raise Unavailable("gcc is not installed") from error
    library = ctypes.CDLL(str(made))
    library.end.restype = ctypes.c_double
    return library


def _compare(
    bench: Bench, library: ctypes.CDLL, threads: int, pages: int, rounds: int
) -> None:
    ways: dict[str, Callable[[], Sample]] = {
        "c": partial(_in_c, library, "watch", pages, threads, rounds),
        "python": partial(_in_python, library, pages, threads, rounds),
        "fallback": partial(_in_c, library, "fallback", pages, threads, rounds),
        "plain": partial(_in_c, library, "plain", pages, threads, rounds),
    }
    gets: dict[str, list[float]] = {name: [] for name in ways}

    def measured(name: str) -> float:
        store_ns, get_us = ways[name]()
        gets[name].append(get_us)
        return store_ns

    stores = in_turn(
        bench.rounds(7, 2), {name: partial(measured, name) for name in ways}
    )
    what = f"{threads} threads, {pages:,} pages"
    note = "wall time of a thread: it waits for a processor too, where threads are more"
    for name, values in stores.items():
        bench.add(
            f"write_watch.{pages}.{name}.store",
            f"{what}, a store: {_NAMES[name]}",
            values,
            "ns",
            against=None if name == "c" else _IN_C,
            base=None if name == "c" else stores["c"],
            note=note,
        )
    del gets["plain"]
    for name, values in gets.items():
        bench.add(
            f"write_watch.{pages}.{name}.get",
            f"{what}, a get: {_NAMES[name]}",
            values,
            "us",
            against=None if name == "c" else _IN_C,
            base=None if name == "c" else gets["c"],
            note="gets and resets, while they store",
        )


def _in_c(
    library: ctypes.CDLL, how: str, pages: int, threads: int, rounds: int
) -> Sample:
    store_ns, get_us = ctypes.c_double(), ctypes.c_double()
    call = getattr(library, how)
    call.restype = ctypes.c_double
    functions = []
    if how == "watch":
        shim = ctypes.CDLL(writewatch.library())
        functions = [
            getattr(shim, f"pagescan_watch_{name}")
            for name in ("adopt", "get", "destroy")
        ]
    found = call(
        *functions,
        ctypes.c_size_t(pages),
        threads,
        rounds,
        PAUSE_US,
        ctypes.byref(store_ns),
        ctypes.byref(get_us),
    )
    if found < 0:
        raise Unavailable(f"{how} failed")
    return store_ns.value, get_us.value


def _in_python(library: ctypes.CDLL, pages: int, threads: int, rounds: int) -> Sample:
    spent = 0
    with writewatch.WriteWatch(pages * PAGE) as watch:
        with watch.buffer as view:
            for offset in range(0, len(view), PAGE):
                view[offset] = 1
        watch.reset()
        size = ctypes.c_size_t(PAGE)
        where = ctypes.c_void_p(watch.address)
        library.begin(where, ctypes.c_size_t(pages), size, threads)
        try:
            for _ in range(rounds):
                time.sleep(PAUSE_US / 1e6)
                begun = time.perf_counter_ns()
                watch.get(reset=True)
                spent += time.perf_counter_ns() - begun
        finally:
            store_ns = library.end()
    return store_ns, spent / rounds / 1000


def _idle(bench: Bench) -> None:
    """Measure a single call: 1,080 pages, all written, without concurrent stores."""
    pages = 1080
    with writewatch.WriteWatch(pages * PAGE) as watch, watch.buffer as view:

        def get() -> float:
            for offset in range(0, len(view), PAGE):
                view[offset] = 1
            begun = time.perf_counter_ns()
            found, _ = watch.get(reset=True)
            spent = time.perf_counter_ns() - begun
            assert len(found) == pages
            return spent / 1000

        def bare() -> float:
            for offset in range(0, len(view), PAGE):
                view[offset] = 1
            begun = time.perf_counter_ns()
            watch.reset()
            return (time.perf_counter_ns() - begun) / 1000

        found = in_turn(bench.rounds(201, 11), {"get": get, "bare": bare})
    bench.add(
        "write_watch.idle",
        "1,080 pages, quiet, a get: WriteWatch.get() in Python",
        found["get"],
        "us",
        against="WriteWatch.reset(), which lists nothing",
        base=found["bare"],
        note="what the list costs",
    )
