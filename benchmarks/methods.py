"""Compares the ways to find written pages, on the same memory and the same writes.

It repeats the comparison in the first proposal of PAGEMAP_SCAN: asynchronous
write-protect against a userfaultfd with a handler thread, mprotect with a SIGSEGV
handler, and soft-dirty.
"""

from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.measure import MIB, Bench, Helper, Unavailable, helper, in_turn

METHODS = ("async", "uffd", "mprotect", "soft-dirty")
_NAMES = {
    "async": "async write-protect",
    "uffd": "userfaultfd-wp, a handler thread",
    "mprotect": "mprotect, a SIGSEGV handler",
    "soft-dirty": "soft-dirty, clear_refs",
}


def run(bench: Bench) -> None:
    """Measure the cost of a first write, and of a look that protects again."""
    size = (16 if bench.quick else 256) * MIB
    with ExitStack() as undo:
        ways: dict[str, Helper] = {}
        for name in ("none", *METHODS):
            try:
                ways[name] = undo.enter_context(helper("methods", name, size))
            except Unavailable as why:
                bench.skip(_NAMES[name], str(why))
        for percent in (1, 10, 100):
            _compare(bench, ways, percent)


def _compare(bench: Bench, ways: dict[str, Helper], percent: int) -> None:
    looks: dict[str, list[float]] = {name: [] for name in ways}

    def round_of(name: str) -> float:
        answer: dict[str, Any] = ways[name].tell(str(percent))
        if name != "none" and answer["found"] != answer["pages"]:
            bench.skip(_NAMES[name], f"found {answer['found']} of {answer['pages']}")
        looks[name].append(answer["look_ns"] / 1e6)
        return float(answer["write_ns"] / answer["pages"])

    writes = in_turn(
        bench.rounds(5, 2), {name: partial(round_of, name) for name in ways}
    )
    plain = writes.pop("none")
    costs = {
        name: [one - other for one, other in zip(ns, plain, strict=True)]
        for name, ns in writes.items()
    }
    for name, cost in costs.items():
        bench.add(
            f"methods.{name}.write.{percent}",
            f"{percent:3} % written, a write: {_NAMES[name]}",
            cost,
            "ns",
            against=None if name == "async" else _NAMES["async"],
            base=None if name == "async" else costs["async"],
            note="the first to a page; what the plain write costs is taken off",
        )
    for name in costs:
        bench.add(
            f"methods.{name}.look.{percent}",
            f"{percent:3} % written, a look: {_NAMES[name]}",
            looks[name],
            "ms",
            against=None if name == "async" else _NAMES["async"],
            base=None if name == "async" else looks["async"],
            note="lists the written pages, and protects all again",
        )
