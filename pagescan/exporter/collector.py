"""Collects the metrics: reads memory at each scrape, and adds the counters of the tick.

Scrapers at the same time share one reading, so more scrapers do not disturb the
processes more.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping as Dict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from pagescan import __version__
from pagescan.exporter.groups import By, Group, Grouped, Grouping
from pagescan.exporter.metrics import (
    BUILD,
    DURATION,
    FOLDED,
    LONGEST_HOLD,
    MEMORY,
    MOST_SERIES,
    OTHER,
    PROCESSES,
    STATES,
    TABLE,
    TICKS,
    UNREAD,
    UNTRACKED,
    UP,
    WRITTEN,
    Metric,
    State,
)
from pagescan.exporter.readings import Bytes, Populated, Readers
from pagescan.model.units import exactly, format_seconds, plural
from pagescan.native import Pace
from pagescan.target.group import Member, Selector

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

_FRESH = 1.0  # seconds for which one reading serves all scrapers
_NAMED = 3  # unread processes per reading that are named
_WINDOW = 300.0  # seconds for which the longest hold counts

Say = Callable[[str], None]


@dataclass(slots=True)
class Counted:
    """The counters of the tick.

    Attributes:
        written: Bytes by group and kind of memory; a group of which no process has
            been tracked is not in it.
        untracked: Bytes that are not tracked now, by group and reason.
        ticks: The number of looks.
        tick: Seconds between two looks.
        alive: Whether the looks go on.
        note: What the help of the counter says about an estimate, or "".
    """

    written: dict[Group, dict[str, int]] = field(default_factory=dict)
    untracked: dict[Group, dict[str, int]] = field(default_factory=dict)
    ticks: int = 0
    tick: float = 0.0
    alive: bool = True
    note: str = ""


class Counter(Protocol):
    """An object that counts at its own tick."""

    def counted(self) -> Counted:
        """Return the counters as they are now."""

    def take_hold(self) -> float:
        """Return the longest hold of a process's mmap lock since the last call."""


@dataclass(slots=True)
class Reading:
    """All numbers of one moment.

    Attributes:
        grouped: The groups.
        memory: The populated memory of each group.
        swap: Whether the machine has swap.
        counted: The counters; None: nothing is tracked.
        unread: The processes that could not be read, and why.
        longest_hold: Seconds.
        seconds: The duration of the reading.
    """

    grouped: Grouped
    memory: dict[Group, Populated]
    swap: bool
    counted: Counted | None
    unread: dict[Member, str]
    longest_hold: float
    seconds: float

    @property
    def up(self) -> bool:
        """Whether any selected process could be read, and the looks go on."""
        selected = sum(map(len, self.grouped.groups.values()))
        looks = self.counted is None or self.counted.alive
        return looks and (not selected or len(self.unread) < selected)


class MemoryCollector:
    """The memory of groups of processes, as metrics of prometheus_client.

    A context manager that closes the processes it has opened.

    Args:
        groups: Selectors of processes; each makes one group. None: all processes.
        by: How processes are grouped: by "option" (one group per item of `groups`),
            "name", "unit", "cgroup" or "container". The default is "option", or
            "name" without `groups`.

    Attributes:
        grouping: How processes are sorted into groups.
        counter: The counter of written bytes; None: they are not counted.
        fresh: Seconds for which one reading serves all scrapers.

    Examples:
        >>> import pagescan
        >>> with pagescan.MemoryCollector(by="name") as collector:
        ...     families = list(collector.collect())
        >>> families[0].name
        'pagescan_memory_bytes'
    """

    def __init__(
        self,
        groups: Iterable[Selector] = (),
        by: str | None = None,
        *,
        pace: Callable[[], Pace] = Pace,
        say: Say | None = None,
        counter: Counter | None = None,
    ) -> None:
        """Prepare the selection; nothing is opened before the first reading."""
        selectors = tuple(groups)
        default = By.OPTION if selectors else By.NAME
        self.grouping = Grouping(selectors, By(by) if by else default)
        self.counter = counter
        self.fresh = _FRESH
        self._readers = Readers(pace)
        self._say = say or _silent
        self._said: set[object] = set()
        self._lock = threading.Lock()
        self._last: tuple[float, Reading] | None = None
        self._holds: deque[tuple[float, float]] = deque()

    def read(self) -> Reading:
        """Return the present numbers, or those of a reading up to `fresh` seconds old.

        Raises:
            PagescanError: /proc is missing, or this process has no descriptor left.
        """
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > self.fresh:
                reading = self._read()
                self._last = time.monotonic(), reading
            return self._last[1]

    def _read(self) -> Reading:
        begun = time.monotonic()
        grouped = self.grouping.now()
        self._readers.begin(grouped.members)
        memory = {}
        for group, members in grouped.groups.items():
            memory[group] = total = Populated()
            for member in members:
                if (one := self._readers.read(member)) is not None:
                    total.add(one)
        counted = self.counter.counted() if self.counter else None
        hold = self._readers.hold
        if self.counter:
            hold = max(hold, self.counter.take_hold())
        now = time.monotonic()
        reading = Reading(
            grouped,
            memory,
            self._readers.swap,
            counted,
            self._readers.unread,
            self._longest(now, hold),
            now - begun,
        )
        self._tell(reading)
        return reading

    def _longest(self, now: float, hold: float) -> float:
        """Return the longest hold of the last five minutes, of all scrapes."""
        holds = self._holds
        while holds and holds[-1][1] <= hold:
            holds.pop()  # it can no longer become the longest
        holds.append((now, hold))
        while holds[0][0] < now - _WINDOW:
            holds.popleft()
        return holds[0][1]

    def _tell(self, reading: Reading) -> None:
        """Tell once of groups beyond the limit, and of each unread process."""
        self._said &= {"folded", *reading.unread}
        if reading.grouped.folded and "folded" not in self._said:
            self._said.add("folded")
            groups = plural(reading.grouped.folded, "group")
            self._say(
                f"more than {self.grouping.most} groups: {groups} are in {OTHER!r}"
            )
        new = [member for member in reading.unread if member not in self._said]
        self._said.update(new)
        for member in new[:_NAMED]:
            self._say(f"not read: {reading.unread[member]}")
        if len(new) > _NAMED:
            self._say(f"not read: {len(new) - _NAMED} more processes")

    def collect(self) -> "Iterator[Family]":
        """Yield the metrics; prometheus_client calls this at each scrape."""
        return families(self.read())

    def describe(self) -> "Iterator[Family]":
        """Yield the metrics without samples, so that registration reads nothing."""
        for metric in TABLE:
            yield _family(metric, "")

    def close(self) -> None:
        """Close the processes that are open."""
        with self._lock:
            self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _silent(_: str) -> None:
    """Discard a message."""


def families(reading: Reading) -> "Iterator[Family]":
    """Yield the metrics of a reading as those of prometheus_client."""
    samples = _samples(reading)
    counted = reading.counted
    tick = format_seconds(counted.tick) if counted else ""
    for metric in TABLE:
        rows = samples.get(metric, [])
        if not rows and metric in (TICKS, UNTRACKED, WRITTEN) and counted is None:
            continue
        family = _family(metric, tick, counted.note if counted else "")
        for labels, value in rows:
            family.add_sample(metric.name, labels, value)
        yield family


def _family(metric: Metric, tick: str, note: str = "") -> "Family":
    from prometheus_client.core import Metric as Family

    text = metric.help.replace("{tick}", tick or "tick")
    if metric is WRITTEN and note:
        text += f" {note}"
    # The format adds the suffix of a counter again.
    return Family(metric.name.removesuffix("_total"), text, metric.kind)


Row = tuple[dict[str, str], float]


def _samples(reading: Reading) -> dict[Metric, list[Row]]:
    """Return the labels and the value of every sample, by metric."""
    counted = reading.counted
    rows: dict[Metric, list[Row]] = {
        LONGEST_HOLD: [({}, reading.longest_hold)],
        DURATION: [({}, reading.seconds)],
        UP: [({}, float(reading.up))],
        UNREAD: [({}, len(reading.unread))],
        FOLDED: [({}, reading.grouped.folded)],
        BUILD: [({"version": __version__}, 1)],
    }
    if counted is not None:
        rows[TICKS] = [({}, counted.ticks)]
    for group, members in reading.grouped.groups.items():
        of_group = _of_group(reading, group, len(members))
        for metric, labels, value in of_group:
            rows.setdefault(metric, []).append(({**group.labels, **labels}, value))
    return rows


def _of_group(
    reading: Reading, group: Group, processes: int
) -> list[tuple[Metric, dict[str, str], float]]:
    """Return the series of one group: at most MOST_SERIES."""
    rows: list[tuple[Metric, dict[str, str], float]] = [(PROCESSES, {}, processes)]
    memory = reading.memory[group]
    for (kind, state), value in complete(memory.total(), swap=reading.swap).items():
        if state is State.SWAPPED and kind == "shmem" and not memory.shared_swap:
            continue
        rows.append((MEMORY, {"kind": kind, "state": state.label}, value))
    counted = reading.counted
    if counted is not None:
        written = counted.written.get(group)
        if written is not None:
            rows += [(WRITTEN, {"kind": kind}, written.get(kind, 0)) for kind in STATES]
        reasons = counted.untracked.get(group, {})
        for reason, value in limited(reasons, MOST_SERIES - len(rows)).items():
            rows.append((UNTRACKED, {"reason": reason}, value))
    return rows


def complete(found: Bytes, *, swap: bool) -> Bytes:
    """Return a number for each state that a kind of memory has.

    Pages in another state, which are rare, count as the first of their kind.
    """
    full = {
        (kind, state): 0
        for kind, states in STATES.items()
        for state in states
        if swap or state is not State.SWAPPED
    }
    for (kind, state), value in found.items():
        key = (kind, state) if (kind, state) in full else (kind, STATES[kind][0])
        full[key] += value
    return full


def limited(reasons: Dict[str, int], most: int) -> dict[str, int]:
    """Return the reasons with the most bytes; the rest is one row, `other`."""
    ordered = sorted(reasons.items(), key=lambda row: (-row[1], row[0]))
    named = ordered if len(ordered) <= most else ordered[: most - 1]
    rows = {exactly(reason, "utf-8"): value for reason, value in named}
    if len(named) < len(ordered):
        rows[OTHER] = sum(value for _, value in ordered[most - 1 :])
    return rows
