"""The promises about speed, and whether this run kept them."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.measure import Bench, Figure


@dataclass
class Goal:
    """One promise.

    Attributes:
        what: The measured quantity.
        goal: The promised limit.
        measured: The result, as text.
        value: The result, as a number.
        met: Whether the promise was kept; None: not measured in this run.
        note: The way of measuring, where that matters.
    """

    what: str
    goal: str
    measured: str = "-"
    value: float | None = None
    met: bool | None = None
    note: str = ""

    @property
    def met_word(self) -> str:
        """Return the verdict as the table shows it."""
        return {True: "yes", False: "NO", None: "-"}[self.met]


@dataclass(frozen=True)
class _Line:
    what: str
    goal: str
    key: str
    limit: float
    unit: str
    most: bool = True
    take: str = "ratio"
    note: str = ""


_LINES = (
    _Line("a quiet look at 4 GiB, one thread, against the bare ioctl in C", "<= 1.1 x",
          "scan.quiet.one", 1.1, "x", note="the whole look, without pauses"),
    _Line("the same at 16 GiB", "<= 1.1 x",
          "scaling.16384.one", 1.1, "x", note="the whole look, without pauses"),
    _Line("what a second thread gains at 4 GiB, to what it gains in C", ">= 0.95 x",
          "scan.quiet.two.gain", 0.95, "x", most=False, take="value",
          note="the whole look, without pauses; needs two free processors"),
    _Line("the same at 16 GiB", ">= 0.95 x",
          "scaling.16384.two.gain", 0.95, "x", most=False, take="value",
          note="needs two free processors"),
    _Line("a fully written heap, got and protected, against the bare ioctl", "<= 1.2 x",
          "scan.get+protect.100", 1.2, "x", note="one thread, without pauses"),
    _Line("a look against /proc/PID/pagemap in Python, to what C reaches", ">= 0.9 x",
          "scan.quiet.python.reached", 0.9, "x", most=False, take="value",
          note="4 GiB, one thread; the loop alone, without the start of Python"),
    _Line("pmap -X of a redis, against a look at it", ">= 9 x",
          "peers.pmap--x.look", 9, "x", most=False,
          note="the look in a running process, pmap whole"),
    _Line("a million regions to JSON, time", "<= 1 s",
          "output.scan.json", 1, "s", take="value", note="scan, whole process"),
    _Line("a million regions to JSON, memory", "<= 200 MB",
          "output.scan.json.rss", 200, "MB", take="value"),
    _Line("a million written regions to JSON, time", "<= 1 s",
          "output.diff.json", 1, "s", take="value", note="diff, whole process"),
    _Line("a million written regions to JSON, memory", "<= 200 MB",
          "output.diff.json.rss", 200, "MB", take="value"),
    _Line("pagescan --version against import click", "<= 1.2 x",
          "startup.version", 1.2, "x"),
    _Line("pagescan diff --json on a quiet redis against import click", "<= 2 x",
          "startup.diff", 2, "x"),
    _Line("stop of the target, median", "<= 0.3 ms",
          "stop.all.p50", 0.3, "ms", take="value"),
    _Line("stop of the target, p99", "<= 1 ms",
          "stop.all.p99", 1, "ms", take="value"),
    _Line("worst wait of the target's own mmap/munmap", "<= 0.3 ms",
          "delay.pagescan-diff", 0.3, "ms", take="value",
          note="median of the rounds' worst; waits for a processor taken off"),
    _Line("the same amid disarm, more than with nobody looking", "<= 0.5 ms",
          "stalls.disarm.more", 0.5, "ms", take="value", note="4 GiB"),
    _Line("redis, defaults, processor time lost to watch at 1 s", "<= 2 %",
          "throughput.defaults.1s.cpu", 2, "%", take="value",
          note="of its own, for a request"),
    _Line("redis -r 1000000, the same, against the first writes", "<= 1.2 x",
          "share.redis.1s.lost", 1.2, "x"),
    _Line("redis -r 1000000, the same with --budget 2", "<= 2 %",
          "share.redis.1s--budget2.lost", 2, "%", take="value"),
    _Line("redis -r 1000000, cost.target_share, off what was measured", "<= 1.5 x",
          "share.redis.1s.said", 1.5, "x", take="factor",
          note="too high or too low"),
    _Line("200 quiet processes under watch at 1 s, of a processor", "<= 2 %",
          "groups.watch.cpu", 2, "%", take="value"),
    _Line("longest hold of a member's mmap lock by watch", "<= 0.3 ms",
          "groups.watch.hold", 0.3, "ms", take="value"),
    _Line("a scrape of 200 processes", "<= 1 s",
          "groups.plain.scrape", 1, "s", take="value"),
    _Line("the exporter's memory", "<= 40 MB",
          "groups.plain.rss", 40, "MB", take="value"),
    _Line("a scrape every 15 s, of a processor", "<= 1 %",
          "groups.plain.cpu", 1, "%", take="value"),
    _Line("longest hold of a process's mmap lock by the exporter", "<= 0.3 ms",
          "groups.plain.hold", 0.3, "ms", take="value"),
    _Line("the same with --track", "<= 0.3 ms",
          "groups.track.hold", 0.3, "ms", take="value"),
)  # fmt: skip


def judged(bench: Bench) -> list[Goal]:
    """Return all promises, with the results of this run."""
    return list(_judged(bench))


def _judged(bench: Bench) -> Iterator[Goal]:
    for line in _LINES:
        goal = Goal(line.what, line.goal, note=line.note)
        figure = bench.find(line.key)
        value = None
        if figure is not None:
            value = _taken(figure, line.take)
        if value is not None:
            goal.value = value
            goal.met = value <= line.limit if line.most else value >= line.limit
            if value < 0:  # watching does not make a target faster
                goal.met = None
                goal.note = "a negative loss: the noise of this run is larger"
            goal.measured = f"{value:.3g} {line.unit}"
        yield goal


def _taken(figure: Figure, how: str) -> float | None:
    if how == "value" or figure.ratio is None:
        return figure.value if how == "value" else None
    if how == "factor" and figure.ratio > 0:
        return max(figure.ratio, 1 / figure.ratio)
    return 1 / figure.ratio if how == "inverse" else figure.ratio
