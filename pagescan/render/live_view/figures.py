"""The figures of each mapping since the start: what the live view shows; pure, no I/O.

A target may have a hundred thousand mappings. So a look costs work only for those that
it found written, and a row without a write is made when a count finds it.
"""

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.looks import Sampled, Tick, summary_of
from pagescan.model.mapping_set import own_borders, wholes
from pagescan.model.memory import Category, Mapping
from pagescan.model.ranges import Ranges
from pagescan.model.results import MappingCounts
from pagescan.render.live_view.ages import Ages

if TYPE_CHECKING:
    from pagescan.render.live_view.page_map import PageMap

_COUNTED = ("present", "swapped", "file")
_POPULATED = Category.PRESENT | Category.SWAPPED
HISTORY = 60
"""Looks whose rates are remembered."""
THREAD_STACKS = "[stacks of threads]"
"""The name of the group of rows whose labels name a thread."""
_A_STACK = "[stack of "
_NEVER: deque[tuple[int, float]] = deque(maxlen=0)
"""The history of all rows that were never written."""


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
        last: With a budget: the rate in the last look that has seen a part of it.
        looked: With a budget: whether a look has seen a part of it.
    """

    key: int | str
    mappings: list[Mapping]
    rate: float = 0.0
    written: int = 0
    history: deque[tuple[int, float]] = field(default_factory=lambda: _NEVER)
    counts: dict[str, int] | None = None
    first: int = 0
    gone: bool = False
    label: str = ""
    last: float = 0.0
    looked: bool = False

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


class _Write(NamedTuple):
    """The bytes that a mapping wrote: those that a look found, and the estimate."""

    row: LiveRow
    found: int
    amount: int


class Figures:
    """The rows of all mappings, and the facts about their pages.

    Attributes:
        rows: The rows by the start of their mapping.
        written: The written rows among them.
        rates: The rate of all mappings together, by looks.
        looks: The number of looks.
        version: A number that changes with any figure.
        ages: When each page was written.
        page_maps: The page maps that were drawn, by the ranges of their rows.
        page_maps_of: The version to which these page maps belong.
        populated: The populated pages; None: not counted yet.
        estimated: Whether a budget has made any figure an estimate.
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
        self.estimated = False
        self.ages = Ages()
        self.page_maps: dict[tuple[object, ...], PageMap] = {}
        self.page_maps_of = 0
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
        batch, sampled = tick.look.batch, tick.look.sampled
        seconds = max(tick.seconds, 1e-6)
        before, self._fresh = self._fresh, []
        for row in before:
            row.rate = 0.0
        summary = summary_of(tick.look)
        writes: list[_Write] = []
        for mapping, pages in _by_whole(batch, self._borders):
            row = self._row(mapping)
            found = pages * self.page_size
            amount = found if sampled is None else estimated(found, row, sampled)
            writes.append(_Write(row, found, amount))
        if sampled is not None:
            writes += self._carried_on(sampled, seconds, writes)
            writes = _agreeing(writes, summary.bytes)
        for row, _, amount in writes:
            self._wrote(row, amount, seconds)
        self.pages = summary.pages
        self.rates.append(summary.bytes / seconds)
        self.ages.add(batch.starts, batch.ends, time)

    def _carried_on(
        self, sampled: Sampled, seconds: float, writes: Sequence[_Write]
    ) -> Iterator[_Write]:
        """Let the mappings that a look did not see write on as when one saw them."""
        self.estimated = True
        for start, end in zip(*sampled.drawn, strict=True):
            first = max(bisect_right(self._starts, start) - 1, 0)
            for key in self._starts[first : bisect_left(self._starts, end)]:
                self.rows[key].looked |= self.rows[key].mappings[0].end > start
        fresh = {id(write.row) for write in writes}
        for row in [row for row in self.written.values() if id(row) not in fresh]:
            if row.gone or not unseen(row, sampled):
                row.last = 0.0
            elif row.last:
                yield _Write(row, 0, int(row.last * seconds))

    def _wrote(self, row: LiveRow, amount: int, seconds: float) -> None:
        """Add what a mapping has written in the last look."""
        row.rate = row.last = amount / seconds
        row.written += amount
        if row.history is _NEVER:
            row.history = deque(maxlen=HISTORY)
        row.history.append((self.looks, row.rate))
        self.written[int(row.key)] = row
        self._fresh.append(row)

    def _row(self, mapping: Mapping) -> LiveRow:
        """Return the row of a mapping, which may have grown at either end."""
        if not self._starts or mapping.start > self._starts[-1]:
            last = self.rows[mapping.start] = LiveRow(mapping.start, [mapping])
            self._starts.append(mapping.start)
            return last
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
            self._borders = own_borders(
                (count.mapping, count.counts.get("written") is not None)
                for count in counts
            )
        before = [row for start in self._starts if (row := self.rows[start]).counts]
        ends = [row.mappings[0].end for row in before]
        there = set()
        mappings = [count.mapping for count in counts]
        for mapping, parts in wholes(mappings, range(len(counts)), self._borders):
            row = self._row(mapping)
            row.label = ""
            if labels:
                names = (labels.get(mappings[at].start, "") for at in parts)
                row.label = next(filter(None, names), "")
            there.add(mapping.start)
            is_new = row.counts is None
            row.counts = self._bytes_of([counts[at] for at in parts])
            if first_time:
                row.first = row.counts["present"]
            elif is_new and (near := bisect_right(ends, mapping.start)) < len(before):
                row.take_first_of(before[near])
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

    def set_largest(self, counts: Sequence[MappingCounts]) -> None:
        """Take rows of a few mappings to show; the counts of all follow in others."""
        self.version += 1
        for count in counts:
            row = self._row(count.mapping)
            row.counts = self._bytes_of([count])
            row.first = row.counts["present"]

    def _bytes_of(self, parts: Sequence[MappingCounts]) -> dict[str, int]:
        """Return the bytes of the parts of a mapping: present, swapped and file."""
        size = self.page_size
        if len(parts) == 1:
            get = parts[0].counts.get
            return {name: (get(name) or 0) * size for name in _COUNTED}
        return {
            name: sum(part.counts.get(name) or 0 for part in parts) * size
            for name in _COUNTED
        }

    def is_unknown(self, row: LiveRow) -> bool:
        """Whether nothing is known of what was written: no look has seen any of it."""
        if not self.looks:
            return True
        unseen = self.estimated and not row.looked and not row.gone
        return unseen and row.present > 0 and not row.written

    def unknown(self) -> int:
        """Return the number of mappings with pages that no look has seen yet."""
        known = self.looks and not self.estimated
        return 0 if known else sum(map(self.is_unknown, self.rows.values()))

    def bars_of(self, row: LiveRow, width: int) -> list[float]:
        """Return the rates of the last looks, as many as fit; 0 without a write."""
        count = min(width, self.looks)
        first = self.looks - count + 1
        rates = [0.0] * count
        for look, rate in row.history:
            if look >= first:
                rates[look - first] += rate
        return rates


def _by_whole(batch: Batch, borders: set[int]) -> Iterator[tuple[Mapping, int]]:
    """Yield the written mappings and their pages; parts of one mapping are joined."""
    mappings, size = batch.mappings, batch.page_size
    tally, _ = native.tally(batch.columns(), batch.owners, size, len(mappings))
    written = [at for at, pages in enumerate(tally) if pages]
    for mapping, parts in wholes(mappings, written, borders):
        yield mapping, sum(tally[at] for at in parts)


def _agreeing(writes: Sequence[_Write], whole: int) -> list[_Write]:
    """Return writes whose sum is no more than what all memory is estimated to write.

    The part that the look has found stays; the extrapolated part becomes smaller.
    """
    found = sum(write.found for write in writes)
    guessed = sum(write.amount for write in writes) - found
    left = max(0, whole - found)
    if guessed <= left:
        return list(writes)
    return [
        write._replace(
            amount=write.found + (write.amount - write.found) * left // guessed
        )
        for write in writes
    ]


def estimated(found: int, row: LiveRow, sampled: Sampled) -> int:
    """Return the bytes written to a mapping of which a part was looked at.

    It is no more than what is populated, as far as that is known.
    """
    mapping = row.mappings[0]
    drawn = _covered(sampled.drawn, mapping)
    whole = max(drawn, _covered(sampled.population, mapping))
    amount = found * whole // drawn if drawn else found
    if row.counts is not None:
        amount = min(amount, row.counts["present"] + row.counts["swapped"])
    return max(found, amount)


def unseen(row: LiveRow, sampled: Sampled) -> bool:
    """Whether a look has seen no part of a mapping: then its last rate stands."""
    mapping = row.mappings[0]
    covered = _covered(sampled.drawn, mapping)
    return not covered and bool(_covered(sampled.population, mapping))


def _covered(ranges: Ranges, mapping: Mapping) -> int:
    """Return how many bytes of a mapping lie in ascending ranges."""
    first = bisect_right(ranges.ends, mapping.start)
    behind = bisect_left(ranges.starts, mapping.end)
    bounds = zip(ranges.starts[first:behind], ranges.ends[first:behind], strict=True)
    return sum(
        min(end, mapping.end) - max(start, mapping.start) for start, end in bounds
    )


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
        all_of.looked |= row.looked
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
