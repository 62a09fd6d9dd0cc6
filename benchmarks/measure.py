"""Figures and how they are measured: ways are run in turn, and medians compared."""

import contextlib
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB, GIB = 1 << 20, 1 << 30


class Unavailable(Exception):  # noqa: N818 - no error: something is not on this machine
    """A benchmark, or a part of it, cannot run here; the message says why."""


@dataclass
class Figure:
    """A measured quantity, and the base that it is compared with in the same run.

    Attributes:
        key: Its name in the JSON file, unique in a run.
        what: Its name in the table.
        value: The median, in `unit`.
        unit: "ns", "ns/page", "ms", "s", "MB", "%", "x", …
        low: The first quartile; None where there was one measurement.
        high: The third quartile.
        samples: How many measurements.
        against: The name of the base for the comparison; None: not compared.
        base: The median of the base, in `unit`.
        ratio: The median over the pairs of value / base, or as `against` says.
        note: A remark that the reader of the table needs.
    """

    key: str
    what: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    samples: int = 1
    against: str | None = None
    base: float | None = None
    ratio: float | None = None
    note: str = ""


@dataclass
class Bench:
    """The settings of a run and its figures; every benchmark is called with it."""

    quick: bool
    redis_bytes: int
    figures: list[Figure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    report: Callable[[str], None] = lambda line: None  # noqa: ARG005

    def rounds(self, full: int, quick: int = 3) -> int:
        """Return how often to measure."""
        return quick if self.quick else full

    def skip(self, what: str, why: str) -> None:
        """Remember a benchmark that was left out, and why."""
        self.skipped.append(f"{what}: {why}")
        self.report(f"left out: {what}: {why}")

    def add(
        self,
        key: str,
        what: str,
        samples: Sequence[float] | float,
        unit: str,
        *,
        against: str | None = None,
        base: Sequence[float] | float | None = None,
        note: str = "",
    ) -> Figure:
        """Add a figure: the median of its samples, and its ratio to the base.

        Samples and base were measured in turn, so the n-th of both are a pair: the
        ratio is the median of the ratios of all pairs.
        """
        values = _many(samples)
        bases = _many(base) if base is not None else []
        low, high = _quartiles(values)
        figure = Figure(
            key,
            what,
            median(values),
            unit,
            low,
            high,
            len(values),
            against,
            median(bases) if bases else None,
            _ratio(values, bases),
            note,
        )
        self.figures.append(figure)
        return figure

    def find(self, key: str) -> Figure | None:
        """Return a figure that was added before."""
        return next((one for one in self.figures if one.key == key), None)


def _many(samples: Sequence[float] | float) -> list[float]:
    return [samples] if isinstance(samples, int | float) else list(samples)


def _quartiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    if len(values) < 3:
        return None, None
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def _ratio(values: Sequence[float], bases: Sequence[float]) -> float | None:
    if not bases or not all(bases):
        return None
    if len(values) != len(bases):
        return median(values) / median(bases)
    return median(one / other for one, other in zip(values, bases, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the quantile: the value that `share` (0 to 1) of all do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


def gains(before: Sequence[float], after: Sequence[float]) -> list[float]:
    """Return how many times shorter `after` is, pair by pair."""
    return [one / other for one, other in zip(before, after, strict=True)]


def in_turn(
    rounds: int, ways: Mapping[str, Callable[[], float]]
) -> dict[str, list[float]]:
    """Measure several ways, each once per round, in an order that changes every round.

    So a disturbance of the machine affects all of them alike.
    """
    order = list(ways)
    shuffler = random.Random(1)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            found[name].append(ways[name]())
    return found


def elapsed_ns(call: Callable[[], object]) -> float:
    """Return the wall time of a call in ns."""
    begun = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - begun


# ---- programs ----------------------------------------------------------------------


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pagescan-bench-")


def scratch() -> Path:
    """Return a temporary directory that is removed at the end of this process."""
    return Path(_folder().name)


@cache
def build(name: str, *more: str) -> Path:
    """Compile NAME.c of this directory, once per run, and return the program.

    Args:
        name: The name of the program and its source.
        more: Words for the compiler: other sources, settings.
    """
    program = scratch() / name
    words = ["gcc", "-O2", "-std=gnu11", "-Wall", "-o", str(program)]
    source = str(HERE / f"{name}.c")
    try:
        subprocess.run([*words, source, *more, "-pthread"], check=True)
    except FileNotFoundError as error:
        raise Unavailable("gcc is not installed") from error
    return program


@dataclass
class Run:
    """The cost of one run of a command.

    Attributes:
        wall: Seconds from fork to end.
        cpu: Seconds of processor time, user and system.
        rss: Peak memory, in bytes.
        code: Exit code.
    """

    wall: float
    cpu: float
    rss: int
    code: int


def run_timed(words: Sequence[str], out: str = os.devnull) -> Run:
    """Run a command with stdout to a file, and return its cost.

    A small program starts it: a child of this process would inherit our peak memory.
    """
    done = subprocess.run(
        [str(build("timed")), out, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return Run(**json.loads(done.stdout))


def run_checked(words: Sequence[str], out: str = os.devnull) -> Run:
    """Run a command that has to succeed, and return its cost."""
    run = run_timed(words, out)
    if run.code:
        raise Unavailable(f"{' '.join(words[:4])} ended with {run.code}")
    return run


class Helper:
    """Runs a C program of this directory that answers each line on stdin with JSON."""

    def __init__(self, name: str, *words: object) -> None:
        """Start the program; return once it has written its first line of facts."""
        self.process = subprocess.Popen(
            [str(build(name)), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.facts = self._answer()

    def tell(self, line: str) -> Any:
        """Send one command and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Unavailable(f"{self.process.args!s} ended with {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def close(self) -> None:
        """End the program and wait for its end."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()


@contextlib.contextmanager
def helper(name: str, *words: object) -> Iterator[Helper]:
    """Run a helper program during the block."""
    made = Helper(name, *words)
    try:
        yield made
    finally:
        made.close()


def document(bench: Bench, **facts: object) -> dict[str, Any]:
    """Return all figures as they stand in the JSON file."""
    return {
        **facts,
        "figures": [asdict(figure) for figure in bench.figures],
        "skipped": bench.skipped,
    }
