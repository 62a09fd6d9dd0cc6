"""The figures of each mapping since the start: what the live view shows; pure, no I/O.

A target may have a hundred thousand mappings. So a look costs work only for those that
it found written, and a row without a write is made when a count finds it.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.looks import Tick
from pagescan.model.memory import Category, Mapping
from pagescan.model.results import MappingCounts
from pagescan.render.live_view.ages import Ages

_POPULATED = Category.PRESENT | Category.SWAPPED
HISTORY = 60
"""Looks whose rates are remembered."""


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
        """What the memory is for, or else the name of the mapping."""
        return self.label or self.mappings[0].label

    @property
    def present(self) -> int:
        """Bytes in memory; 0 if unknown."""
        return self.counts["present"] if self.counts else 0

    @property
    def growth(self) -> int:
        """Bytes that became present since the start."""
        return self.present - self.first if self.counts else 0


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
        for found in batch.by_mapping():
            row = self._row(found.mapping)
            amount = int(found.pages * weight)
            row.rate = amount / seconds
            row.written += amount
            row.history.append((self.looks, row.rate))
            self.written[found.mapping.start] = row
            self._fresh.append(row)
            self.pages += amount // self.page_size
        self.rates.append(sum(row.rate for row in self._fresh))
        self.ages.add(batch.starts, batch.ends, time)

    def _row(self, mapping: Mapping) -> LiveRow:
        row = self.rows.get(mapping.start)
        if row is None:
            row = self.rows[mapping.start] = LiveRow(mapping.start, [mapping])
        else:
            row.mappings[0] = mapping
            row.gone = False
        return row

    def set_counts(
        self,
        counts: Sequence[MappingCounts],
        found: Batch,
        labels: dict[int, str] | None = None,
    ) -> None:
        """Update the present pages: the count per mapping, and the regions."""
        self.version += 1
        first_time = self.populated is None
        size = self.page_size
        there = set()
        for count in counts:
            row = self._row(count.mapping)
            row.label = (labels or {}).get(count.mapping.start, "")
            there.add(count.mapping.start)
            row.counts = {
                name: (count.counts.get(name) or 0) * size
                for name in ("present", "swapped", "file")
            }
            if first_time:
                row.first = row.counts["present"]
        for start in self.rows.keys() - there:
            row = self.rows[start]
            row.gone = True
            row.counts = {"present": 0, "swapped": 0, "file": 0}
            if start not in self.written:
                del self.rows[start]
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


def group(rows: Iterable[LiveRow], by: str) -> list[LiveRow]:
    """Return one row per name, or per kind, of mappings."""
    groups: dict[str, LiveRow] = {}
    for row in rows:
        name = group_of(row, by)
        if (whole := groups.get(name)) is None:
            whole = groups[name] = LiveRow(name, [], history=deque(), gone=True)
        whole.mappings += row.mappings
        whole.rate += row.rate
        whole.written += row.written
        whole.history += row.history
        whole.first += row.first
        whole.gone &= row.gone
        if row.counts:
            whole.counts = whole.counts or dict.fromkeys(row.counts, 0)
            for key, value in row.counts.items():
                whole.counts[key] += value
    return list(groups.values())


def group_of(row: LiveRow, by: str) -> str:
    """Return the name of the group that a mapping's row belongs to."""
    mapping = row.mappings[0]
    return row.name if by == "name" else mapping.kind.value
