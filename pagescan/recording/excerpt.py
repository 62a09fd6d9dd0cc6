"""The part of a recording that a view shows: some of its looks, some of its memory."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pagescan import native
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.units import parse_seconds
from pagescan.recording.records import BILLION, Counts, moment, nanoseconds
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    from pagescan.model.mapping_set import MappingSet
    from pagescan.recording.records import RecordedLook
    from pagescan.recording.store import Recording

Result = TypeVar("Result")
_ITS_MAPPINGS = "pagescan report FILE --view ages lists"
_BEGINNING = re.compile(r"0+(\.0*)?\s*(us|ms|s|m|h)?")
_AT_A_TIME = 1 << 20  # bytes of looks, in their packed form
_OF_LOOK = 64  # bytes that an empty one takes, too
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?")


class TimeSpan(NamedTuple):
    """A part of a recording's time, in nanoseconds since 1970; None: no limit."""

    start: int | None = None
    end: int | None = None


class _Pending(NamedTuple):
    """Looks of one process, and the memory that is selected in all of them."""

    memory: MappingSet | None
    looks: list[RecordedLook]
    data: list[bytes]


@dataclass
class Excerpt:
    """Some looks of a recording, and their pages in some of its memory.

    Attributes:
        recording: The recording.
        selection: The memory; everything unless RANGE words select.
        span: The part of the time.
    """

    recording: Recording
    selection: Selection = field(default_factory=Selection)
    span: TimeSpan = field(default_factory=TimeSpan)
    _bounds: dict[int, tuple[MappingSet, MappingSet]] = field(default_factory=dict)
    _results: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def looks(self) -> Sequence[RecordedLook]:
        """The looks that end in `span`, in the order of time."""
        start, end = self.span
        if start is None and end is None:
            return self.recording.looks
        return [
            look
            for look in self.recording.looks
            if (start is None or look.time_ns > start)
            and (end is None or look.time_ns <= end)
        ]

    @property
    def seconds(self) -> float:
        """The time that the looks cover; looks of several processes overlap."""
        return sum(look.interval_ns for look in self.ticks()) / BILLION

    @cached_property
    def by_tick(self) -> list[list[RecordedLook]]:
        """The looks of each tick: of one process one, of a group several."""
        return list(ticks_of(self.looks))

    def ticks(self) -> Iterator[RecordedLook]:
        """Yield one look per tick: for a group, the first look of each tick."""
        return (tick[0] for tick in self.by_tick)

    def columns(self, look: RecordedLook) -> native.Columns:
        """Return the written pages of a look, in the selected memory."""
        return self.selected(look, self.recording.columns(look))

    def selected(self, look: RecordedLook, columns: native.Columns) -> native.Columns:
        """Return the parts of regions of a look that lie in the selected memory."""
        if self.selection.everything:
            return columns
        return native.inside(columns, *self._selected(look).bounds)

    def counts(self, look: RecordedLook) -> Counts:
        """Return the written pages by mapping, in the selected memory."""
        if self.selection.everything:
            return look.counts
        ids, mappings = self.recording.mappings_at(look)
        shares = native.shares(self.columns(look), *mappings.bounds)
        size = self.page_size(look)
        return Counts(
            array("I", [ids[index] for index in shares.ranges]),
            array("I", [length // size for length in shares.lengths]),
        )

    def pages(self, look: RecordedLook) -> int:
        """Return the number of written pages; with a budget, the estimate for all."""
        if self.selection.everything:
            return look.written
        return sum(self.counts(look).pages)

    def page_size(self, look: RecordedLook) -> int:
        """Return the bytes per page of the process of a look."""
        return self.recording.processes[look.process].target.page_size

    def by_process(self) -> dict[int, list[RecordedLook]]:
        """Return the looks of each process; the result is cached."""
        return self.once("by process", self._by_process)

    def _by_process(self) -> dict[int, list[RecordedLook]]:
        looks: dict[int, list[RecordedLook]] = {}
        for look in self.looks:
            looks.setdefault(look.process, []).append(look)
        return looks

    def once(self, name: str, make: Callable[[], Result]) -> Result:
        """Return the result of a function; the first result under a name is cached."""
        if name not in self._results:
            self._results[name] = make()
        result: Result = self._results[name]
        return result

    @cached_property
    def page_counts(self) -> dict[int, native.PageCounts]:
        """The number of looks that found each page written, by process."""
        counts = {
            process: native.PageCounts(self.page_size(looks[0]), len(looks))
            for process, looks in self.by_process().items()
        }
        for process, unpacked in self.unpacked(self.looks):
            counts[process].add(unpacked)
        return counts

    def unpacked(
        self, looks: Sequence[RecordedLook]
    ) -> Iterator[tuple[int, native.UnpackedLooks]]:
        """Yield looks in the selected memory, by process, many looks at a time.

        The looks of each process are in their order. A damaged one is empty, and noted.

        Args:
            looks: The looks, or all of some time.
        """
        if self.selection.everything and len(self.by_process()) == 1:
            for some, parts in self.recording.packed_looks(looks):
                yield some[0].process, self._whole(_Pending(None, some, parts))
            return
        pending: dict[int, _Pending] = {}
        size = 0
        for look, data in self._packed(looks):
            memory = None if self.selection.everything else self._selected(look)
            mine = pending.get(look.process)
            if mine is not None and mine.memory is not memory:
                yield look.process, self._whole(mine)
                mine = None
            if mine is None:
                mine = pending[look.process] = _Pending(memory, [], [])
            mine.looks.append(look)
            mine.data.append(data)
            size += len(data) + _OF_LOOK
            if size > _AT_A_TIME:
                yield from ((at, self._whole(one)) for at, one in pending.items())
                pending, size = {}, 0
        yield from ((at, self._whole(one)) for at, one in pending.items())

    def _packed(
        self, looks: Sequence[RecordedLook]
    ) -> Iterator[tuple[RecordedLook, bytes]]:
        """Yield looks with their packed form, one by one."""
        for some, data in self.recording.packed_looks(looks):
            yield from zip(some, data, strict=True)

    def _whole(self, pending: _Pending) -> native.UnpackedLooks:
        """Return looks for C; the damaged ones are empty."""
        bounds = None if pending.memory is None else pending.memory.bounds
        size = self.page_size(pending.looks[0])
        unpacked = native.UnpackedLooks(pending.data, size, bounds)
        for index in unpacked.damaged:
            self.recording.damaged(pending.looks[index])
        return unpacked

    def check(self) -> None:
        """Raise if no look, or no mapping, is selected.

        Raises:
            PagescanError: The recording has no look in that time, or no such mapping.
        """
        if not self.looks:
            empty = not self.recording.looks
            raise PagescanError(
                "the recording has no look"
                if empty
                else "the recording has no look in that time",
                hint=None if empty else f"it is from {_bounds_of(self.recording)}",
            )
        if not self.selection.everything:
            mappings = [row.mapping for row in self.recording.mappings]
            self.selection.check(mappings, hint=_ITS_MAPPINGS)

    def _selected(self, look: RecordedLook) -> MappingSet:
        """Return the selected mappings at a look; the latest answers are cached."""
        _, mappings = self.recording.mappings_at(look)
        known = self._bounds.get(look.process)
        if known is None or known[0] is not mappings:
            known = self._bounds[look.process] = (
                mappings,
                self.selection.select(mappings),
            )
        return known[1]


def ticks_of(looks: Iterable[RecordedLook]) -> Iterator[list[RecordedLook]]:
    """Yield the looks of each tick."""
    tick: list[RecordedLook] = []
    for look in looks:
        if tick and look.time_ns - tick[0].time_ns >= look.interval_ns // 2:
            yield tick
            tick = []
        tick.append(look)
    if tick:
        yield tick


def parse_span(text: str, recording: Recording) -> TimeSpan:
    """Return the time in "10s-2m" (since the beginning) or "12:03-12:04:30" (UTC).

    Either end may be missing.

    Raises:
        UsageError: It is malformed.
    """
    start, dash, end = text.partition("-")
    if not dash or not (start or end) or not recording.looks:
        raise _malformed(text)
    first = recording.looks[0]
    begun = first.time_ns - first.interval_ns
    span = TimeSpan(
        _instant(start, begun, text) if start else None,
        _instant(end, begun, text) if end else None,
    )
    if span.start is not None and span.end is not None and span.start >= span.end:
        raise UsageError(f"not a time span: {text!r} is empty or backwards")
    return span


def _instant(text: str, begun: int, whole: str) -> int:
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        if _BEGINNING.fullmatch(text.strip()):
            return begun
        try:
            return begun + round(parse_seconds(text) * BILLION)
        except UsageError as error:
            raise _malformed(whole) from error
    try:
        at = time(int(clock[1]), int(clock[2]), tzinfo=UTC)
    except ValueError as error:
        raise _malformed(whole) from error
    day = moment(begun)
    instant = datetime.combine(day.date(), at) + timedelta(seconds=float(clock[3] or 0))
    if instant < day - timedelta(minutes=1):  # after midnight
        instant += timedelta(days=1)
    return nanoseconds(instant)


def _malformed(text: str) -> UsageError:
    return UsageError(
        f"not a time span: {text!r}",
        hint="as in 30s-2m since the beginning, or 12:03-12:04:30 in UTC",
    )


def _bounds_of(recording: Recording) -> str:
    first, last = recording.looks[0], recording.looks[-1]
    begun = moment(first.time_ns - first.interval_ns)
    return f"{begun:%H:%M:%S} to {last.time:%H:%M:%S} UTC on {begun:%Y-%m-%d}"
