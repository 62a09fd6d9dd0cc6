"""Packs the written pages of looks for the HTML page, coarser if they are too many.

A frame is one look, or joins several consecutive looks of a process: a page counts as
written in it if one of the looks found it. A unit is one page, or several that lie side
by side: then a frame holds how many pages of each unit are written.
"""

from __future__ import annotations

import json
import random
import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.errors import PagescanError
from pagescan.native import Columns

if TYPE_CHECKING:
    from pagescan.render.html.records import PageContents

_LEVEL = 1
_FRAMES_ENOUGH = 1500
"""A screen has hardly more columns: with fewer frames, units become larger."""
_LARGEST_UNIT = 1 << 20
_SAMPLE = 12  # frames that are packed to learn how large all of them are


class Level(NamedTuple):
    """How coarse the frames are.

    Attributes:
        looks: Looks per frame.
        unit: Pages per unit.
    """

    looks: int = 1
    unit: int = 1


EXACT = Level()


class Frame(NamedTuple):
    """Consecutive looks of a process, joined.

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
        limit: The largest number of bytes that the data may have.
    """
    facts = _facts(contents)
    looks = _looks_by_process(contents)
    room = limit - len(zlib.compress(_text(facts), _LEVEL))
    error = 1.0  # of the estimates: how much too low the last one was
    for level in _levels(looks):
        estimate = _estimate(contents, looks, level)
        if estimate * error > room:
            continue
        data = zlib.compress(_data(contents, facts, level), _LEVEL)
        if len(data) <= limit:
            return data, level
        error = max(error, (len(data) - limit + room) / max(estimate, 1))
    raise PagescanError(
        f"{len(contents.looks)} looks do not fit a page, however coarse its map is",
        hint="--time FROM-TO shows a part of them",
    )


def _levels(looks: dict[int, list[int]]) -> Iterator[Level]:
    """Yield the levels, from the exact one to the coarsest."""
    most = max([*map(len, looks.values()), 1])
    total = sum(map(len, looks.values()))
    step = unit = 1
    while step < most or unit < _LARGEST_UNIT:
        yield Level(step, unit)
        if (total // step > _FRAMES_ENOUGH or unit >= _LARGEST_UNIT) and step < most:
            step *= 2
        else:
            unit *= 4
    yield Level(step, unit)


def _estimate(
    contents: PageContents, looks: dict[int, list[int]], level: Level
) -> float:
    """Return the bytes that frames take, by a sample of them."""
    groups = [
        (own, at) for own in looks.values() for at in range(0, len(own), level.looks)
    ]
    sample = random.Random(1).sample(groups, min(_SAMPLE, len(groups)))  # noqa: S311 - no secret
    packed = b"".join(
        _packed(contents, own[at : at + level.looks], level)[1] for own, at in sample
    )
    return len(zlib.compress(packed, _LEVEL)) * len(groups) / max(len(sample), 1)


def _looks_by_process(contents: PageContents) -> dict[int, list[int]]:
    """Return the indices of the looks of each process."""
    looks: dict[int, list[int]] = {}
    for index, look in enumerate(contents.looks):
        looks.setdefault(look.process, []).append(index)
    return looks


def _data(contents: PageContents, facts: dict[str, object], level: Level) -> bytes:
    """Return the length of the JSON, the JSON itself, and the packed regions."""
    frames = list(frames_of(contents, level))
    # Notes are read now: reading the frames may have found damage.
    notes = list(contents.notes)
    document = {**facts, "notes": notes, "level": level._asdict()}
    document["frames"] = {
        "process": [frame.process for frame in frames],
        "first": [frame.first for frame in frames],
        "last": [frame.last for frame in frames],
        "regions": [frame.regions for frame in frames],
    }
    text = _text(document)
    packed = (frame.packed for frame in frames)
    return b"".join(chain([len(text).to_bytes(4, "little"), text], packed))


def _text(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _facts(contents: PageContents) -> dict[str, object]:
    """Return the facts for the scripts of the page; addresses are in pages."""
    looks, size = contents.looks, contents.page_size
    return {
        "host": contents.host,
        "kernel": contents.kernel,
        "version": contents.version,
        "pageSize": size,
        "budget": contents.budget,
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
            "share": [look.share for look in looks],
            "mappings": [list(look.mappings) for look in looks],
            "counts": [list(look.counts) for look in looks],
        },
    }


def frames_of(contents: PageContents, level: Level) -> Iterator[Frame]:
    """Yield the frames, process by process, in the order of time."""
    for process, own in _looks_by_process(contents).items():
        for at in range(0, len(own), level.looks):
            group = own[at : at + level.looks]
            regions, packed = _packed(contents, group, level)
            yield Frame(process, group[0], group[-1], regions, packed)


def _packed(
    contents: PageContents, group: Sequence[int], level: Level
) -> tuple[int, bytes]:
    """Return the number of regions of some joined looks, and their packed form."""
    if level == EXACT:
        return contents.packed(group[0])
    size = contents.page_size
    parts = [native.widen(contents.columns(index), size) for index in group]
    while len(parts) > 1:
        pairs = zip(parts[::2], parts[1::2], strict=False)
        odd = parts[-1:] if len(parts) % 2 else []
        parts = [native.overlay(*pair, outside=True) for pair in pairs] + odd
    (regions,) = parts
    if level.unit > 1:
        regions = _units(regions, level.unit * size, size)
    return len(regions.starts), native.pack(regions, size)


def _units(regions: Columns, unit: int, page_size: int) -> Columns:
    """Return the units that regions touch, with their written pages as categories."""
    wide = native.widen(regions, unit)
    runs = zip(wide.starts, wide.ends, strict=True)
    starts = array("Q", chain.from_iterable(range(*run, unit) for run in runs))
    ends = array("Q", [start + unit for start in starts])
    lengths = native.shares(regions, starts, ends).lengths
    return Columns(starts, ends, array("Q", [each // page_size for each in lengths]))
