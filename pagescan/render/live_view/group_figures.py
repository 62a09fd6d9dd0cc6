"""The figures of each process of a group: what the live view shows; pure, no I/O."""

from collections import deque
from dataclasses import dataclass, field

from pagescan.model.groups import GroupTick, Populated, ProcessFacts
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import escape
from pagescan.render.live_view.figures import HISTORY

_GONE_KEPT = 200


@dataclass(slots=True)
class ProcessRow:
    """The figures of a process, in bytes.

    Attributes:
        facts: The process, as of its last tick.
        rate: Bytes per second, in the last look.
        history: The number of a tick and its rate, for ticks that found a write.
        first: Bytes present when first counted; None: not counted yet.
        populated: Its present and swapped pages, at the last count.
        why: The reason why it is not tracked; "": it is tracked.
    """

    facts: ProcessFacts
    rate: float = 0.0
    history: deque[tuple[int, float]] = field(
        default_factory=lambda: deque(maxlen=HISTORY)
    )
    first: int | None = None
    populated: Populated | None = None
    why: str = ""

    @property
    def pid(self) -> int:
        """The process id."""
        return self.facts.target.pid

    @property
    def gone(self) -> bool:
        """Whether it has ended, or left the group."""
        return self.facts.end is not None

    @property
    def aside(self) -> bool:
        """Whether the table leaves it out at first: it is gone, or not tracked."""
        return self.gone or bool(self.why)

    @property
    def written(self) -> int:
        """Bytes in all looks together."""
        return self.facts.totals.bytes if self.facts.totals else 0

    @property
    def present(self) -> int:
        """Bytes in memory; 0 if unknown."""
        return self.populated.present * PAGE_SIZE if self.populated else 0

    @property
    def swapped(self) -> int:
        """Bytes in swap; 0 if unknown."""
        return self.populated.swapped * PAGE_SIZE if self.populated else 0

    @property
    def growth(self) -> int:
        """Bytes that became present since it was first counted."""
        return 0 if self.first is None or self.gone else self.present - self.first

    @property
    def name(self) -> str:
        """Its role, without the name of the program in front; or else its name."""
        name = self.facts.target.name
        head, colon, role = (self.facts.label or "").partition(": ")
        if colon and role and name.startswith(head[: len(name)]):
            return escape(role)
        return escape(self.facts.label or name)


class GroupFigures:
    """The rows of all processes, and the sums.

    Attributes:
        rows: The rows by pid; a later process takes the row of a gone one.
        rates: The rate of all processes together, by tick.
        ticks: The number of ticks.
        first: Bytes present in all processes together at the first count; None: not
            counted yet.
        populated: The same now, in pages; shared memory counts once.
        written_by_gone: Bytes that the processes have written that are gone.
    """

    def __init__(self) -> None:
        """Begin without a tick."""
        self.rows: dict[int, ProcessRow] = {}
        self.rates: deque[float] = deque(maxlen=HISTORY)
        self.ticks = 0
        self.first: int | None = None
        self.populated: Populated | None = None
        self.written_by_gone = 0

    def begin(self, facts: list[ProcessFacts]) -> None:
        """Show processes before the first tick."""
        for process in facts:
            self._take(process)

    def add(self, tick: GroupTick) -> None:
        """Add a tick."""
        self.ticks += 1
        seconds = max(tick.seconds, 1e-6)
        reasons = {item.pid: item.why for item in tick.untracked if item.part is None}
        for facts, _ in tick.members:
            row = self._take(facts)
            row.rate = facts.summary.bytes / seconds
            row.why = reasons.get(row.pid, "")
            if row.rate:
                row.history.append((self.ticks, row.rate))
            if row.gone:
                row.rate, row.why = 0.0, ""
                self.written_by_gone += row.written
        self.rates.append(tick.summary.bytes / seconds)
        self._drop_absent({facts.target.pid for facts, _ in tick.members})
        gone = [pid for pid, row in self.rows.items() if row.gone]
        for pid in gone[:-_GONE_KEPT]:
            del self.rows[pid]

    def _drop_absent(self, present: set[int]) -> None:
        """Remove the rows of processes that ended before any look at them."""
        absent = [pid for pid in self.rows.keys() - present if not self.rows[pid].gone]
        for pid in absent:
            del self.rows[pid]

    def _take(self, facts: ProcessFacts) -> ProcessRow:
        pid = facts.target.pid
        row = self.rows.get(pid)
        if row is None or row.facts.target.start_time != facts.target.start_time:
            row = self.rows[pid] = ProcessRow(facts)
        row.facts = facts
        if facts.populated is not None:
            row.populated = facts.populated
            if row.first is None:
                row.first = row.present
        return row

    def count(self, whole: Populated | None) -> None:
        """Take the count of all processes together."""
        self.populated = whole
        if self.first is None and whole is not None:
            self.first = whole.present * PAGE_SIZE

    def bars_of(self, row: ProcessRow, width: int) -> list[float]:
        """Return the rates of the last ticks, as many as fit; 0 without a write."""
        count = min(width, self.ticks)
        first = self.ticks - count + 1
        rates = [0.0] * count
        for tick, rate in row.history:
            if tick >= first:
                rates[tick - first] += rate
        return rates
