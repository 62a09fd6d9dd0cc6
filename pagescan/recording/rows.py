"""Turns the rows of a recording into records; pure, no I/O."""

from __future__ import annotations

import json
import zlib
from array import array
from bisect import bisect_right
from contextlib import suppress
from typing import Any, NamedTuple

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


class Span:
    """The ids of the looks of a file, and their numbers."""

    def __init__(self, ids: list[int], base: int) -> None:
        self._ids = ids
        self._base = base

    def first(self, row: int) -> int:
        """Return the number of the first look with that id or a later one."""
        return self._base + bisect_right(self._ids, row - 1)

    def last(self, row: int | None) -> int:
        """Return the number of the last look with that id or an earlier one."""
        count = len(self._ids) if row is None else bisect_right(self._ids, row)
        return self._base + count - 1


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
        of_process.get(process, 0),
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
        of_process.get(process, 0), item, span.first(first), span.last(last)
    )


class _Row(NamedTuple):
    """A row of `looks`, by the names of its columns."""

    id: int
    process: int
    number: int
    time: int
    interval_ns: int
    pages: int
    regions: int
    resident: int | None
    scan_ns: int
    max_wait_ns: int
    ioctls: int
    pages_walked: int
    mappings_added: int | None
    share_ppb: int | None
    huge_restored: int | None
    huge_lost: int | None
    estimate: int | None
    estimate_low: int | None
    estimate_high: int | None
    estimate_ppb: int | None
    recorder_ns: int | None
    counts: bytes
    checksum: int


def look_of(
    values: tuple[Any, ...], numbers: tuple[int, int], of_mapping: dict[int, int]
) -> RecordedLook:
    """Return the record of a row of `looks`.

    Args:
        values: The row, without its regions.
        numbers: The numbers of the look and of its process.
        of_mapping: The numbers of mappings by their ids.
    """
    row = _Row(*values)
    share = row.share_ppb
    estimate = None
    if row.estimate is not None:
        estimate = Estimate(
            row.estimate,
            row.estimate_low or 0,
            row.estimate_high or 0,
            (row.estimate_ppb or 0) / BILLION,
        )
    return RecordedLook(
        *numbers,
        row.number,
        row.time,
        row.interval_ns,
        row.pages,
        row.regions,
        row.resident,
        Cost(
            0,
            row.scan_ns,
            row.max_wait_ns,
            row.ioctls,
            row.pages_walked,
            row.mappings_added,
            None if share is None else share / BILLION,
            row.huge_restored,
            row.huge_lost,
        ),
        estimate,
        row.recorder_ns,
        _counts(row.counts, of_mapping),
    )


def _counts(data: bytes, of_mapping: dict[int, int]) -> Counts:
    """Return the counts by mapping; counts of lost mappings are left out."""
    numbers = array("I")
    numbers.frombytes(zlib.decompress(data))
    half = len(numbers) // 2
    ids, pages = numbers[:half], numbers[half:]
    try:
        return Counts(array("I", [of_mapping[row] for row in ids]), pages)
    except KeyError:
        pairs = [
            (of_mapping[row], count)
            for row, count in zip(ids, pages, strict=True)
            if row in of_mapping
        ]
        return Counts(
            array("I", [index for index, _ in pairs]),
            array("I", [count for _, count in pairs]),
        )
