"""Packs the written pages of looks for a page, in a coarser form if they are too many.

A frame is one look, or several consecutive looks of a process as one: a page counts as
written in it if one of the looks found it. A unit is one page, or several that lie side
by side: then a frame holds how many pages of each unit are written.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.native import Columns

if TYPE_CHECKING:
    from pagescan.render.html.records import PageContents, PageLook

_LEVEL = 1
_FRAMES_ENOUGH = 1500
"""A screen has hardly more columns: with fewer frames, units become larger."""


class Level(NamedTuple):
    """How coarse the frames are.

    Attributes:
        looks: Looks per frame.
        unit: Pages per unit.
    """

    looks: int = 1
    unit: int = 1


class Frame(NamedTuple):
    """Some looks of a process as one.

    Attributes:
        process: Index of the process.
        first: Index of its first look.
        last: Index of its last look.
        regions: The number of its regions.
        packed: Its regions, as `native.pack` writes them.
    """

    process: int
    first: int
    last: int
    regions: int
    packed: bytes


def payload(contents: PageContents, limit: int) -> tuple[bytes, Level]:
    """Return the compressed data of a page, and how coarse it is.

    Args:
        contents: What the page shows.
        limit: The most bytes that the data may have.
    """
    level = Level(_looks_per_frame(contents, limit))
    while True:
        data = zlib.compress(_data(contents, level), _LEVEL)
        if len(data) <= limit or level.looks > len(contents.looks):
            return data, level
        level = _coarser(level, len(contents.looks), len(data) / limit)


def _looks_per_frame(contents: PageContents, limit: int) -> int:
    """Return a first guess: a day of looks needs no try that holds all of them."""
    looks = len(contents.looks)
    pages = sum(look.pages for look in contents.looks)
    fewest = pages // 64 // max(limit, 1)  # 64 pages per byte: they lie side by side
    return max(1, min(fewest, looks // _FRAMES_ENOUGH))


def _coarser(level: Level, looks: int, times: float) -> Level:
    """Return the next level for data that is some times too large."""
    frames = looks // level.looks
    if frames > _FRAMES_ENOUGH:
        wanted = min(times, frames / _FRAMES_ENOUGH)
        return level._replace(looks=max(level.looks + 1, round(level.looks * wanted)))
    if level.unit < 1 << 20:
        return level._replace(unit=level.unit * 4)
    return level._replace(looks=level.looks * 2)


def _data(contents: PageContents, level: Level) -> bytes:
    """Return the length of the JSON, the JSON itself, and the packed regions."""
    frames = list(frames_of(contents, level))
    document = _facts(contents, level)
    document["frames"] = {
        "process": [frame.process for frame in frames],
        "first": [frame.first for frame in frames],
        "last": [frame.last for frame in frames],
        "regions": [frame.regions for frame in frames],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    packed = (frame.packed for frame in frames)
    return b"".join(chain([len(text).to_bytes(4, "little"), text], packed))


def _facts(contents: PageContents, level: Level) -> dict[str, object]:
    """Return the facts for the scripts of the page; addresses are in pages."""
    looks, size = contents.looks, contents.page_size
    return {
        "host": contents.host,
        "kernel": contents.kernel,
        "version": contents.version,
        "pageSize": size,
        "budget": contents.budget,
        "notes": list(contents.notes),
        "level": level._asdict(),
        "processes": [process._asdict() for process in contents.processes],
        "mappings": [
            {**one._asdict(), "start": one.start // size, "end": one.end // size}
            for one in contents.mappings
        ],
        "looks": {
            "process": [look.process for look in looks],
            "from": [look.from_ns // 1000 for look in looks],
            "to": [look.to_ns // 1000 for look in looks],
            "pages": [look.pages for look in looks],
            "resident": [look.resident for look in looks],
            "target": [look.target_ns for look in looks],
            "mappings": [list(look.mappings) for look in looks],
            "counts": [list(look.counts) for look in looks],
        },
    }


def frames_of(contents: PageContents, level: Level) -> Iterator[Frame]:
    """Yield the frames, in the order of their first look."""
    size = contents.page_size
    for process, group in _groups(contents.looks, level.looks):
        regions = native.widen(contents.columns(group[0]), size)
        for index in group[1:]:
            more = native.widen(contents.columns(index), size)
            regions = native.overlay(regions, more, outside=True)
        if level.unit > 1:
            regions = _units(regions, level.unit * size, size)
        packed = native.pack(regions, size)
        yield Frame(process, group[0], group[-1], len(regions.starts), packed)


def _groups(looks: Sequence[PageLook], size: int) -> Iterator[tuple[int, list[int]]]:
    """Yield the indices of consecutive looks of a process, up to `size` at a time."""
    open_groups: dict[int, list[int]] = {}
    groups: list[tuple[int, list[int]]] = []
    for index, look in enumerate(looks):
        group = open_groups.get(look.process)
        if group is None or len(group) == size:
            group = open_groups[look.process] = []
            groups.append((look.process, group))
        group.append(index)
    return iter(groups)


def _units(regions: Columns, unit: int, page_size: int) -> Columns:
    """Return the units that regions touch, with their written pages as categories."""
    wide = native.widen(regions, unit)
    runs = zip(wide.starts, wide.ends, strict=True)
    starts = array("Q", chain.from_iterable(range(*run, unit) for run in runs))
    ends = array("Q", [start + unit for start in starts])
    lengths = native.shares(regions, starts, ends).lengths
    return Columns(starts, ends, array("Q", [each // page_size for each in lengths]))
