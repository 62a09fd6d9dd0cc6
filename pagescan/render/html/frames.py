"""Packs the written pages of looks for the HTML page, coarser if they are too many.

A frame is one look, or joins several consecutive looks of a process: a page counts as
written in it if one of the looks found it. A unit is one page, or several that lie side
by side: then a frame holds how many pages of each unit are written; units that lie side
by side, with equally many, are one region.
"""

from __future__ import annotations

import json
import random
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.errors import PagescanError

if TYPE_CHECKING:
    from pagescan.render.html.records import PageContents

_LEVEL = 1
_FRAMES_ENOUGH = 1500
"""A screen has hardly more columns: with fewer frames, units become larger."""
_LARGEST_UNIT = 1 << 20
_MOST_REGIONS = 5_000_000
"""A browser takes about half a second, and 100 MB, for as many."""
_AHEAD = 4  # frames that are read while one is joined
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
    counts = _Counts(contents)
    facts = _text(_facts(contents, counts))
    looks = _looks_by_process(contents)
    room = limit - len(zlib.compress(facts + counts.data, _LEVEL))
    error = 1.0  # of the estimates: how much too low the last one was
    sample = _Sample(contents, looks, 1)
    for level in _levels(looks):
        if level.looks != sample.looks:
            sample = _Sample(contents, looks, level.looks)
        estimate, regions = sample.estimate(level)
        if estimate * error > room or regions > _MOST_REGIONS:
            continue
        data = zlib.compress(_data(contents, facts, counts.data, level), _LEVEL)
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
            unit *= 2
    yield Level(step, unit)


class _Sample:
    """Some frames, of which the looks are read once for all sizes of units."""

    def __init__(
        self, contents: PageContents, looks: dict[int, list[int]], joined: int
    ) -> None:
        """Read the looks of some frames of `joined` looks each."""
        groups = [
            own[at : at + joined]
            for own in looks.values()
            for at in range(0, len(own), joined)
        ]
        rolled = random.Random(1)  # noqa: S311 - no secret
        self._groups = rolled.sample(groups, min(_SAMPLE, len(groups)))
        self._packed = [_read(contents, group) for group in self._groups]
        self._scale = len(groups) / max(len(self._groups), 1)
        self._contents = contents
        self.looks = joined

    def estimate(self, level: Level) -> tuple[float, float]:
        """Return the bytes and the regions of all frames."""
        frames = [
            _packed(self._contents, group, looks, level)
            for group, looks in zip(self._groups, self._packed, strict=True)
        ]
        data = zlib.compress(b"".join(packed for _, packed in frames), _LEVEL)
        regions = sum(regions for regions, _ in frames)
        return len(data) * self._scale, regions * self._scale


def _looks_by_process(contents: PageContents) -> dict[int, list[int]]:
    """Return the indices of the looks of each process."""
    looks: dict[int, list[int]] = {}
    for index, look in enumerate(contents.looks):
        looks.setdefault(look.process, []).append(index)
    return looks


class _Counts:
    """The written pages by look and mapping, as columns: JSON would be far longer.

    Attributes:
        facts: What the scripts need to read them.
        data: The columns: how many mappings each look has, the indices of these, and
            the written pages of each. A column begins with the lowest bytes of all its
            numbers, then come the next ones; bytes that are 0 in all are left out.
    """

    def __init__(self, contents: PageContents) -> None:
        """Join the counts of the looks."""
        sizes, mappings, pages = array("I"), array("I"), array("I")
        for look in contents.looks:
            sizes.append(len(look.mappings))
            mappings.extend(look.mappings)
            pages.extend(look.counts)
        planes = [_planes(column) for column in (sizes, mappings, pages)]
        self.facts = {"entries": len(pages), "planes": [len(each) for each in planes]}
        self.data = b"".join(chain.from_iterable(planes))


def _planes(numbers: array[int]) -> list[bytes]:
    """Return the lowest bytes of all numbers, then the next ones, up to the last."""
    data = numbers.tobytes()
    used = (max(numbers, default=0).bit_length() + 7) // 8
    return [data[at :: numbers.itemsize] for at in range(used)]


def _data(contents: PageContents, facts: bytes, counts: bytes, level: Level) -> bytes:
    """Return the length of the JSON, the JSON itself, counts and packed regions."""
    frames = list(frames_of(contents, level))
    # Notes are read now: reading the frames may have found damage.
    more: dict[str, object] = {"notes": list(contents.notes), "level": level._asdict()}
    more["frames"] = {
        "process": [frame.process for frame in frames],
        "first": [frame.first for frame in frames],
        "last": [frame.last for frame in frames],
        "regions": [frame.regions for frame in frames],
    }
    # One object of both: the facts of a day take a third of a second to write again.
    text = facts[:-1] + b"," + _text(more)[1:]
    packed = (frame.packed for frame in frames)
    return b"".join(chain([len(text).to_bytes(4, "little"), text, counts], packed))


def _text(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _facts(contents: PageContents, counts: _Counts) -> dict[str, object]:
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
        "writers": [writer._asdict() for writer in contents.writers],
        "looks": {
            "process": [look.process for look in looks],
            "from": [look.from_ns // 1000 for look in looks],
            "to": [look.to_ns // 1000 for look in looks],
            "pages": [look.pages for look in looks],
            "resident": [look.resident for look in looks],
            "share": [look.share for look in looks],
            "used": [look.used_ns for look in looks],
            "written": counts.facts,
        },
    }


def frames_of(contents: PageContents, level: Level) -> Iterator[Frame]:
    """Yield the frames, process by process, in the order of time."""
    groups = [
        (process, own[at : at + level.looks])
        for process, own in _looks_by_process(contents).items()
        for at in range(0, len(own), level.looks)
    ]
    packed = _all_packed(contents, [group for _, group in groups], level)
    for (process, group), (regions, data) in zip(groups, packed, strict=True):
        yield Frame(process, group[0], group[-1], regions, data)


def _all_packed(
    contents: PageContents, groups: Sequence[Sequence[int]], level: Level
) -> Iterator[tuple[int, bytes]]:
    """Yield the result of `_packed` for each group.

    A second thread joins looks while this one reads the next ones: neither needs the
    interpreter for long.
    """
    if level == EXACT:
        for group in groups:
            yield contents.packed(group)[0]
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    joining: deque[tuple[Sequence[int], Future[tuple[int, bytes]]]] = deque()
    with ThreadPoolExecutor(1) as pool:
        for group in groups:
            looks = _read(contents, group)
            joining.append((group, pool.submit(native.join_packed, looks, level.unit)))
            if len(joining) > _AHEAD:
                first, joined = joining.popleft()
                yield _joined(contents, first, level, joined.result)
        for first, joined in joining:
            yield _joined(contents, first, level, joined.result)


def _packed(
    contents: PageContents, group: Sequence[int], looks: list[bytes], level: Level
) -> tuple[int, bytes]:
    """Return the number of regions of some joined looks, and their packed form."""
    if level == EXACT:
        return contents.packed(group)[0]
    return _joined(
        contents, group, level, lambda: native.join_packed(looks, level.unit)
    )


def _read(contents: PageContents, group: Sequence[int]) -> list[bytes]:
    return [data for _, data in contents.packed(group)]


def _joined(
    contents: PageContents,
    group: Sequence[int],
    level: Level,
    join: Callable[[], tuple[int, bytes]],
) -> tuple[int, bytes]:
    """Return what `join` does; without the damaged looks, which `columns` notes."""
    try:
        return join()
    except ValueError:
        size = contents.page_size
        whole = [native.pack(contents.columns(index), size) for index in group]
        return native.join_packed(whole, level.unit)
