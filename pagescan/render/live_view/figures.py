"""The figures of each mapping since the start: what the live view shows; pure, no I/O.

A target may have a hundred thousand mappings. So a look costs work only for those that
it found written, and a row without a write is made when a count finds it.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.looks import Tick
from pagescan.model.mapping_set import whole
from pagescan.model.memory import Category, Mapping
from pagescan.model.results import MappingCounts
from pagescan.render.live_view.ages import Ages

_POPULATED = Category.PRESENT | Category.SWAPPED
HISTORY = 60
"""Looks whose rates are remembered."""
THREAD_STACKS = "[stacks of threads]"
"""The name of the group of rows whose labels name a thread."""
_A_STACK = "[stack of "


@dataclass(slots=True)
class LiveRow:
    """The figures of a mapping, or of the mappings of a group, in bytes.

    Attributes:
        key: The start of the mapping, or the name of the group.
        mappings: The mappings; of a group, all.
        rate: Bytes per second, in the last look.
        written: Bytes in all looks together.
        history: The number of a look and its rate, for looks that found a write.
        counts: Present, swapped and file; None: not counted yet.
        first: Bytes present at the start.
        gone: Whether the mapping was unmapped.
        label: What its memory is for; "" where no rule knows it.
    """

    key: int | str
    mappings: list[Mapping]
    rate: float = 0.0
    written: int = 0
    history: deque[tuple[int, float]] = field(
        default_factory=lambda: deque(maxlen=HISTORY)
    )
    counts: dict[str, int] | None = None
    first: int = 0
    gone: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """The label of the memory, or else the name of the mapping."""
        return self.label or self.mappings[0].label

    @property
    def present(self) -> int:
        """Bytes in memory; 0 if unknown."""
        return self.counts["present"] if self.counts else 0

    @property
    def growth(self) -> int:
        """Bytes that became present since the start."""
        return self.present - self.first if self.counts else 0

    def take_first_of(self, whole: "LiveRow") -> None:
        """Divide what was present at the start, if this was a part of another row."""
        if int(whole.key) < int(self.key):
            self.first = min(self.present, whole.first)
            whole.first -= self.first


class Figures:
    """The rows of all mappings, and the facts about their pages.

    Attributes:
        rows: The rows by the start of their mapping.
        written: The written rows among them.
        rates: The rate of all mappings together, by looks.
        looks: The number of looks.
        version: A number that changes with any figure.
        ages: When each page was written.
        populated: The populated pages; None: not counted yet.
    """

    def __init__(self, page_size: int) -> None:
        """Begin without a look."""
        self.page_size = page_size
        self.rows: dict[int, LiveRow] = {}
        self.written: dict[int, LiveRow] = {}
        self.rates: deque[float] = deque(maxlen=HISTORY)
        self.looks = 0
        self.version = 0
        self.pages = 0
        self.ages = Ages()
        self.populated: native.Columns | None = None
        self._fresh: list[LiveRow] = []
        self._starts: list[int] = []  # of the rows, ascending
        self._borders: set[int] = set()  # that were there before tracking

    def add(self, tick: Tick, time: float) -> None:
        """Add the look of a tick, at a time in seconds."""
        self.version += 1
        if tick.look is None:
            return
        self.looks += 1
        batch, estimate = tick.look.batch, tick.look.estimate
        # Assume that untracked memory was written at the same rate.
        weight = self.page_size / estimate.share if estimate else self.page_size
        seconds = max(tick.seconds, 1e-6)
        for row in self._fresh:
            row.rate = 0.0
        self._fresh = []
        self.pages = 0
        for mapping, pages in _by_whole(batch, self._borders):
            row = self._row(mapping)
            amount = int(pages * weight)
            row.rate = amount / seconds
            row.written += amount
            row.history.append((self.looks, row.rate))
            self.written[mapping.start] = row
            self._fresh.append(row)
            self.pages += amount // self.page_size
        self.rates.append(sum(row.rate for row in self._fresh))
        self.ages.add(batch.starts, batch.ends, time)

    def _row(self, mapping: Mapping) -> LiveRow:
        """Return the row of a mapping, which may have grown at either end."""
        row = self.rows.get(mapping.start)
        first = bisect_left(self._starts, mapping.start)
        behind = bisect_left(self._starts, mapping.end)
        inside = [start for start in self._starts[first:behind] if start in self.rows]
        if row is None:
            row = LiveRow(mapping.start, [mapping])
            self.rows[mapping.start] = row
            insort(self._starts, mapping.start)
        for start in inside:
            if start != mapping.start:
                self._absorb(row, start)
        row.mappings[0] = mapping
        row.gone = False
        return row

    def _absorb(self, row: LiveRow, start: int) -> None:
        """Add the figures of a row to another one: its mapping is a part of that."""
        part = self.rows.pop(start)
        self._starts.remove(start)
        row.written += part.written
        row.first += part.first
        row.label = row.label or part.label
        if part.counts:
            row.counts = {
                name: count + (row.counts or {}).get(name, 0)
                for name, count in part.counts.items()
            }
        merged = sorted([*row.history, *part.history])
        row.history = deque(merged, maxlen=HISTORY)
        if self.written.pop(start, None) is not None:
            self.written[int(row.key)] = row
        if any(part is fresh for fresh in self._fresh):
            row.rate += part.rate

    def set_counts(
        self,
        counts: Sequence[MappingCounts],
        found: Batch,
        labels: dict[int, str] | None = None,
    ) -> None:
        """Update the present pages: the count per mapping, and the regions."""
        self.version += 1
        first_time = self.populated is None
        if first_time:
            self._borders = _borders(counts)
        before = [row for start in self._starts if (row := self.rows[start]).counts]
        ends = [row.mappings[0].end for row in before]
        there = set()
        at, mappings = 0, [count.mapping for count in counts]
        while at < len(counts):
            mapping, behind = whole(mappings, at, self._borders)
            row = self._row(mapping)
            names = ((labels or {}).get(one.start, "") for one in mappings[at:behind])
            row.label = next(filter(None, names), "")
            there.add(mapping.start)
            is_new = row.counts is None
            row.counts = {
                name: sum(count.counts.get(name) or 0 for count in counts[at:behind])
                * self.page_size
                for name in ("present", "swapped", "file")
            }
            if first_time:
                row.first = row.counts["present"]
            elif is_new and (near := bisect_right(ends, mapping.start)) < len(before):
                row.take_first_of(before[near])
            at = behind
        for start in self.rows.keys() - there:
            row = self.rows[start]
            row.gone = True
            row.counts = {"present": 0, "swapped": 0, "file": 0}
            if start not in self.written:
                del self.rows[start]
        self._starts = sorted(self.rows)
        columns = found.columns()
        unlabelled = {bits: 0 for bits in set(columns.categories) if bits & _POPULATED}
        self.populated = native.relabel(columns, unlabelled)
        self.ages.keep(self.populated)

    def bars_of(self, row: LiveRow, width: int) -> list[float]:
        """Return the rates of the last looks, as many as fit; 0 without a write."""
        count = min(width, self.looks)
        first = self.looks - count + 1
        rates = [0.0] * count
        for look, rate in row.history:
            if look >= first:
                rates[look - first] += rate
        return rates


def _borders(counts: Sequence[MappingCounts]) -> set[int]:
    """Return the starts of mappings that tracking has not cut off from those before.

    It divides a mapping into memory that is registered and memory that is not.
    """
    return {
        count.start
        for before, count in pairwise(counts)
        if before.counts.get("written") is not None
        and count.counts.get("written") is not None
    }


def _by_whole(batch: Batch, borders: set[int]) -> Iterator[tuple[Mapping, int]]:
    """Yield the written mappings and their pages; parts of one mapping are joined."""
    mappings = batch.mappings
    starts = [mapping.start for mapping in mappings]
    joined: Mapping | None = None
    pages = 0
    for found in batch.by_mapping():
        if joined is None or found.mapping.start >= joined.end:
            if joined is not None:
                yield joined, pages
            at = bisect_left(starts, found.mapping.start)
            joined, pages = whole(mappings, at, borders)[0], 0
        pages += found.pages
    if joined is not None:
        yield joined, pages


def group(rows: Iterable[LiveRow], by: str) -> list[LiveRow]:
    """Return one row per name, or per kind, of mappings."""
    groups: dict[str, LiveRow] = {}
    for row in rows:
        name = group_of(row, by)
        if (all_of := groups.get(name)) is None:
            all_of = groups[name] = LiveRow(name, [], history=deque(), gone=True)
        all_of.mappings += row.mappings
        all_of.rate += row.rate
        all_of.written += row.written
        all_of.history += row.history
        all_of.first += row.first
        all_of.gone &= row.gone
        if row.counts:
            all_of.counts = all_of.counts or dict.fromkeys(row.counts, 0)
            for key, value in row.counts.items():
                all_of.counts[key] += value
    return list(groups.values())


def group_of(row: LiveRow, by: str) -> str:
    """Return the name of the group that a mapping's row belongs to."""
    if by != "name":
        return row.mappings[0].kind.value
    return THREAD_STACKS if row.name.startswith(_A_STACK) else row.name
