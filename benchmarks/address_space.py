"""Measures a quiet look against the address space: mappings, holes, reservations.

Each address space is compared with the same populated pages in a single mapping.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.measure import (
    GIB,
    MIB,
    PAGE,
    Bench,
    Helper,
    Unavailable,
    elapsed_ns,
    in_turn,
    run_checked,
)
from benchmarks.processes import memory_left, pagescan, session, target
from pagescan import Tracking, track
from pagescan.native import Pace

MAX_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
_BASE = "the same pages in a mapping of their own"
_OWN = 1000  # mappings that the target has anyway, with a margin


@dataclass(frozen=True)
class _Case:
    """One address space.

    Attributes:
        key: The part of the figures' keys that names it.
        what: Its name in the table.
        command: The command that makes a target build it.
        pages: How many pages it has populated.
        parts: How many mappings, or GiB, it has.
        part: The name of one part, in words.
    """

    key: str
    what: str
    command: str
    pages: int
    parts: int
    part: str

    @property
    def mappings(self) -> int:
        """Return how many mappings a target with this address space has."""
        return _OWN + (self.parts if self.part == "mapping" else 1)


def _cases(bench: Bench) -> Iterator[_Case]:
    count = 10_000 if bench.quick else 100_000
    yield _Case(
        "mappings", f"{count:,} mappings of a page", f"mappings {count}",
        count, count, "mapping",
    )  # fmt: skip
    size, step = 64 * GIB, 64 * MIB
    yield _Case(
        "sparse", "64 GiB, a page every 64 MiB", f"spots {size} {step}",
        size // step, size // GIB, "GiB",
    )  # fmt: skip
    size, pages = 1024 * GIB, 64 * MIB // PAGE
    yield _Case(
        "reserved", "1 TiB reserved, 64 MiB populated", f"spots {size} {PAGE} {pages}",
        pages, size // GIB, "GiB",
    )  # fmt: skip


def run(bench: Bench) -> None:
    """Measure each address space, if the kernel allows a target to have it."""
    for case in _cases(bench):
        try:
            _measure(bench, case)
        except Unavailable as why:
            bench.skip(case.what, str(why))


def _measure(bench: Bench, case: _Case) -> None:
    if 2 * case.pages * PAGE > memory_left():
        raise Unavailable("too little free memory")
    with target(MIB) as large, target(MIB) as small:
        with room_for(case.mappings):
            where = {large: _told(large, case.command)}
        where[small] = _told(small, f"spots {case.pages * PAGE} {PAGE}")
        before = _page_tables(large)
        with (
            track(large.pid, [where[large]]) as tracking,
            track(small.pid, [where[small]]) as base,
        ):
            _looks(bench, case, tracking, base)
        with session(large.pid, where[large]), session(small.pid, where[small]):
            grown = _page_tables(large) - before
            _memory(bench, case, large, small, grown)


@contextlib.contextmanager
def room_for(mappings: int) -> Iterator[None]:
    """Raise the limit of mappings per process to a number, during the block.

    The kernel checks the limit only for a new mapping: existing mappings stay.
    """
    limit = int(MAX_MAP_COUNT.read_text())
    if limit >= mappings:
        yield
        return
    try:
        MAX_MAP_COUNT.write_text(f"{mappings}\n")
    except OSError as error:
        raise Unavailable(
            f"vm.max_map_count is {limit}, and may not be raised: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        MAX_MAP_COUNT.write_text(f"{limit}\n")


def _told(made: Helper, command: str) -> str:
    answer = made.tell(command)
    return f"{answer['start']:#x}-{answer['end']:#x}"


def _page_tables(made: Helper) -> int:
    """Return the bytes of a target's page tables."""
    for line in Path(f"/proc/{made.pid}/status").read_text().splitlines():
        if line.startswith("VmPTE:"):
            return int(line.split()[1]) * 1024
    raise Unavailable("/proc/PID/status has no VmPTE")


def _looks(bench: Bench, case: _Case, tracking: Tracking, base: Tracking) -> None:
    """Time looks with and without pauses, and count their system calls."""
    calls: dict[str, list[float]] = {"large": [], "small": []}

    def look(name: str, of: Tracking, pace: Pace) -> float:
        of.scanner.pace = pace
        spent = elapsed_ns(lambda: calls[name].append(of.look().cost.ioctls))
        return spent / 1e6

    ways: dict[str, Callable[[], float]] = {}
    for name, of in (("large", tracking), ("small", base)):
        ways[name] = partial(look, name, of, of.scanner.pace)
        ways[f"{name}.unpaced"] = partial(look, name, of, Pace(pause_ns=0))
        of.look()  # the first look has no mappings from before
    found = in_turn(bench.rounds(15, 3), ways)
    for suffix, how in (("", "with its pauses"), (".unpaced", "without pauses")):
        figure = bench.add(
            f"address_space.{case.key}.look{suffix}",
            f"a quiet look at {case.what}, {how}",
            found[f"large{suffix}"],
            "ms",
            against=_BASE,
            base=found[f"small{suffix}"],
        )
        figure.note = f"{1000 * figure.value / case.parts:.2f} us a {case.part}"
    bench.add(
        f"address_space.{case.key}.ioctls",
        f"a quiet look at {case.what}, ioctls",
        calls["large"],
        "calls",
        against=_BASE,
        base=calls["small"],
    )


def _memory(
    bench: Bench, case: _Case, large: Helper, small: Helper, grown: int
) -> None:
    """Measure the peak memory of a pagescan process that looks once."""

    def peak(made: Helper) -> float:
        return run_checked(pagescan("diff", made.pid, "--json")).rss / 1e6

    found = in_turn(
        bench.rounds(3, 1),
        {"large": partial(peak, large), "small": partial(peak, small)},
    )
    bench.add(
        f"address_space.{case.key}.rss",
        f"pagescan diff --json of {case.what}, peak memory",
        found["large"],
        "MB",
        against=_BASE,
        base=found["small"],
        note=f"tracking added {grown // 1024} KiB of page tables to the target",
    )
