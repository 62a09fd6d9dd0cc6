"""The records of a recording: its facts, processes, mappings and looks; no I/O."""

from __future__ import annotations

from array import array
from collections.abc import Mapping as Dict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pagescan.model.memory import Mapping, Untracked
    from pagescan.model.results import Cost, Estimate, TargetFacts

BILLION = 1_000_000_000


class RecordedProcess(NamedTuple):
    """A program that was recorded; an exec begins another one with the same pid.

    Attributes:
        target: The process.
        armed_at: When it was armed, in UTC.
        tracked_bytes: Bytes that were tracked at first.
        stopped_ns: How long the attach stopped it.
        first_look: Index of its first look.
        last_look: Index of its last look; -1: it has none.
        ending: Why its looks ended: interrupted count duration exited exec lost; None:
            they go on, or the recorder was killed.
    """

    target: TargetFacts
    armed_at: datetime
    tracked_bytes: int
    stopped_ns: int
    first_look: int
    last_look: int
    ending: str | None


class RecordedMapping(NamedTuple):
    """A mapping, and the looks at which it existed; each size of one is a record.

    Attributes:
        process: Index of the process.
        mapping: The mapping.
        label: Its purpose, as "[java heap]"; None: no rule knows it.
        new: Whether it appeared after arming.
        first_look: Index of the first look at which it existed.
        last_look: Index of the last one.
    """

    process: int
    mapping: Mapping
    label: str | None
    new: bool
    first_look: int
    last_look: int


class RecordedUntracked(NamedTuple):
    """A part of the selection that was not tracked, and the looks for which it was not.

    Attributes:
        process: Index of the process.
        item: The part, and the reason.
        first_look: Index of the first look.
        last_look: Index of the last look.
    """

    process: int
    item: Untracked
    first_look: int
    last_look: int


class RecordedLook(NamedTuple):
    """A look without its regions: `Recording.columns` and `batch` read these.

    Attributes:
        position: Its index in `Recording.looks`.
        process: Index of the process.
        number: Its number in the recording, from 1.
        time_ns: Its end, in nanoseconds since 1970 (UTC).
        interval_ns: The time since the previous look, which its pages refer to.
        pages: Written pages; with a budget, of the tracked part.
        regions: Regions of written pages.
        resident: Resident bytes of the process then; None: not known.
        cost: The cost to the target.
        estimate: With a budget, the estimate for all memory.
        recorder_ns: Processor time that the recorder itself took to store the previous
            look; None: not known.
        counts: Written pages by mapping: indices into `Recording.mappings`.
    """

    position: int
    process: int
    number: int
    time_ns: int
    interval_ns: int
    pages: int
    regions: int
    resident: int | None
    cost: Cost
    estimate: Estimate | None
    recorder_ns: int | None
    counts: Counts

    @property
    def time(self) -> datetime:
        """The end of the look, in UTC."""
        return moment(self.time_ns)

    @property
    def seconds(self) -> float:
        """The time since the previous look."""
        return self.interval_ns / BILLION

    @property
    def written(self) -> int:
        """Written pages: with a budget, the estimate for all memory."""
        return self.estimate.pages if self.estimate else self.pages


class RecordedFunction(NamedTuple):
    """Code that wrote.

    Attributes:
        process: Index of the process.
        function: The function; None: the code has no name.
        module: Its file or mapping; None: nothing was mapped there.
    """

    process: int
    function: str | None
    module: str | None


class RecordedThread(NamedTuple):
    """A thread that wrote, under one name.

    Attributes:
        process: Index of the process.
        tid: The thread.
        name: Its name.
    """

    process: int
    tid: int
    name: str


class WriterCount(NamedTuple):
    """Pages of one mapping that a thread wrote first, in one function, in one look.

    Attributes:
        function: Index into `Recording.functions`; -1: its row is lost.
        thread: Index into `Recording.threads`; -1: its row is lost.
        mapping: Index into `Recording.mappings`; -1: it was unmapped before it was
            known, or its row is lost.
        pages: How many pages.
    """

    function: int
    thread: int
    mapping: int
    pages: int


class RecordedWriters(NamedTuple):
    """The writers of a look, as `record --who` stores them.

    Attributes:
        attributed: Pages with a known first writer.
        ambiguous: Pages with samples of different code; the latest one counts.
        lost: Pages without a writer, up to the number of samples that were lost.
        samples: The samples since the previous look.
        counts: The pages by function, thread and mapping.
    """

    attributed: int
    ambiguous: int
    lost: int
    samples: int
    counts: tuple[WriterCount, ...]


class Counts(NamedTuple):
    """Written pages by mapping.

    Attributes:
        mappings: Indices of the mappings that have written pages, ascending.
        pages: The written pages of each.
    """

    mappings: array[int]
    pages: array[int]


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """The facts of a recording as a whole.

    Attributes:
        version: The version of pagescan that made it.
        kernel: The release of the kernel.
        host: The name of the machine.
        begun: When it began, in UTC.
        interval: Seconds between two looks.
        budget: The percentage of --budget; None: everything was tracked.
        options: The options as they were given, by name.
        ending: Why it ended; None: it goes on, or the recorder was killed.
        rotated_from: The name of the file before this one; None: it is the first.
        who: With --who: `user_only`, whether writes of the kernel for the process, as
            in read(2), have no writer; None: no writers were recorded.
        group: Of a group of processes: `kind` and `name`; None: it was one target.
    """

    version: str
    kernel: str
    host: str
    begun: datetime
    interval: float
    budget: float | None = None
    options: Dict[str, Any] = field(default_factory=dict)
    ending: str | None = None
    rotated_from: str | None = None
    who: Dict[str, Any] | None = None
    group: Dict[str, str] | None = None


def moment(time_ns: int) -> datetime:
    """Return the moment of a number of nanoseconds since 1970, in UTC."""
    seconds, rest = divmod(time_ns, BILLION)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def nanoseconds(time: datetime) -> int:
    """Return the nanoseconds since 1970 of a moment; exact to the microsecond."""
    return int(time.timestamp()) * BILLION + time.microsecond * 1000
