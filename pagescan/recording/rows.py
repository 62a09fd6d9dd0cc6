"""Turns the rows of a recording into records; pure, no I/O."""

from __future__ import annotations

import json
import zlib
from array import array
from bisect import bisect_right
from contextlib import suppress
from itertools import compress
from typing import TYPE_CHECKING, Any

from pagescan.model.memory import Mapping, Untracked
from pagescan.model.results import Cost, Estimate, TargetFacts
from pagescan.recording import schema
from pagescan.recording.records import (
    BILLION,
    Counts,
    RecordedLook,
    RecordedMapping,
    RecordedProcess,
    RecordedUntracked,
    RecordingFacts,
    moment,
)

_BYTES = array("I").itemsize
_MOST_KNOWN = 1000

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pagescan.recording.quiet_looks import QuietLook


_TOGETHER = 1 << 16
"""Regions that are read at a time: the processor's caches hold them."""
_OF_LOOK = 32  # regions: what a look costs besides


def portions(looks: Sequence[RecordedLook]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of consecutive looks that are read together."""
    start = rows = 0
    for at, look in enumerate(looks, 1):
        rows += look.regions + _OF_LOOK
        if rows > _TOGETHER:
            yield start, at
            start, rows = at, 0
    if start < len(looks):
        yield start, len(looks)


class Span:
    """The ids of the looks of a file, and their numbers."""

    def __init__(self, numbers: dict[int, int], base: int, end: int) -> None:
        """Take the number of each id; all are from `base` to `end`, exclusive."""
        self._ids = sorted(numbers)
        self._numbers = [numbers[row] for row in self._ids]
        self._base, self._end = base, end

    def first(self, row: int) -> int:
        """Return the number of the first look with that id or a later one."""
        at = bisect_right(self._ids, row - 1)
        return self._numbers[at] if at < len(self._ids) else self._end

    def last(self, row: int | None) -> int:
        """Return the number of the last look with that id or an earlier one."""
        if row is None:
            return self._end - 1
        at = bisect_right(self._ids, row)
        if at == len(self._ids):
            return self._end - 1
        return self._numbers[at] - 1 if at else self._base - 1


def facts_of(rows: list[tuple[Any, ...]]) -> RecordingFacts:
    """Return the facts of a recording; a lost fact is empty."""
    values: dict[str, Any] = {}
    for row in rows:
        with suppress(TypeError, ValueError):
            values[row[1]] = json.loads(row[2])
    return RecordingFacts(
        version=values.get("version", ""),
        kernel=values.get("kernel", ""),
        host=values.get("host", ""),
        begun=moment(values.get("begun", 0)),
        interval=values.get("interval", 0.0),
        budget=values.get("budget"),
        options=values.get("options", {}),
        ending=values.get("ending"),
        rotated_from=values.get("rotated_from"),
        who=values.get("who"),
        group=values.get("group"),
    )


def process_of(row: tuple[Any, ...], span: Span) -> RecordedProcess:
    """Return the record of a row of `processes`."""
    _, pid, start, name, exe, size, armed, tracked, stopped, first, last, end, _ = row
    target = TargetFacts(
        pid, schema.words_of(name) or "", schema.words_of(exe), start, size
    )
    return RecordedProcess(
        target,
        moment(armed),
        tracked,
        stopped,
        span.first(first),
        span.last(last),
        end,
    )


def mapping_of(
    row: tuple[Any, ...], of_process: dict[int, int], span: Span
) -> RecordedMapping:
    """Return the record of a row of `mappings`."""
    _, process, start, end, perms, offset, major, minor, inode, name, size = row[:11]
    label, new, first, last = row[11:15]
    mapping = Mapping(
        schema.unsigned(start),
        schema.unsigned(end),
        perms,
        schema.unsigned(offset),
        (major, minor),
        schema.unsigned(inode),
        schema.words_of(name) or "",
        size,
    )
    return RecordedMapping(
        of_process[process],
        mapping,
        schema.words_of(label),
        bool(new),
        span.first(first),
        span.last(last),
    )


def untracked_of(
    row: tuple[Any, ...], of_process: dict[int, int], span: Span
) -> RecordedUntracked:
    """Return the record of a row of `untracked`."""
    _, process, start, end, mapping, why, first, last, _ = row
    item = Untracked(
        schema.unsigned(start),
        schema.unsigned(end),
        schema.words_of(mapping) or "",
        why,
    )
    return RecordedUntracked(
        of_process[process], item, span.first(first), span.last(last)
    )


_NO_COST = Cost()
_NO_COUNTS = Counts(array("I"), array("I"))


def quiet_look(look: QuietLook, numbers: tuple[int, int]) -> RecordedLook:
    """Return the record of an empty look that is in no file.

    Args:
        look: The look.
        numbers: Its number, and that of its process.
    """
    return RecordedLook(
        *(*numbers, look.number, look.time_ns, look.interval_ns, 0, 0, look.resident),
        *(_NO_COST, None, None, _NO_COUNTS),
    )


def look_of(
    values: tuple[Any, ...], numbers: tuple[int, int], counts: CountsReader
) -> RecordedLook:
    """Return the record of a row of `looks`.

    Args:
        values: The row, without its regions.
        numbers: The numbers of the look and of its process.
        counts: Reads the counts by mapping.
    """
    # In one step, and by position: a recording of a day has 86,400 of them.
    _, _, number, time, interval, pages, regions, resident, *rest = values
    scan, wait, ioctls, walked, added, share, target, used, restored, lost = rest[:10]
    estimated, low, high, ppb, recorder, packed, _ = rest[10:]
    cost = Cost(
        0,
        scan,
        wait,
        ioctls,
        walked,
        added,
        None if share is None else share / BILLION,
        target,
        used,
        restored,
        lost,
    )
    estimate = None
    if estimated is not None:
        estimate = Estimate(estimated, low or 0, high or 0, (ppb or 0) / BILLION)
    return RecordedLook(
        *(*numbers, number, time, interval, pages, regions, resident),
        *(cost, estimate, recorder, counts.read(packed)),
    )


class CountsReader:
    """Reads the counts by mapping of looks, with the numbers of mappings for their ids.

    Most looks find the same mappings as an earlier one: these share the numbers.
    """

    def __init__(self, of_mapping: dict[int, int]) -> None:
        """Take the numbers of mappings by their ids."""
        self._of_mapping = of_mapping
        self._known: dict[bytes, array[int]] = {}

    def read(self, data: bytes) -> Counts:
        """Return the counts of a look; counts of lost mappings are left out."""
        packed = zlib.decompress(data)
        half = len(packed) // (2 * _BYTES) * _BYTES
        ids, pages = packed[:half], array("I", packed[half:])
        numbers = self._known.get(ids)
        if numbers is not None:
            return Counts(numbers, pages)
        rows = array("I", ids)
        try:
            numbers = array("I", [self._of_mapping[row] for row in rows])
        except KeyError:
            known = [row in self._of_mapping for row in rows]
            kept = array("I", compress(rows, known))
            numbers = array("I", [self._of_mapping[row] for row in kept])
            return Counts(numbers, array("I", compress(pages, known)))
        if len(self._known) == _MOST_KNOWN:
            self._known.clear()
        self._known[ids] = numbers
        return Counts(numbers, pages)
