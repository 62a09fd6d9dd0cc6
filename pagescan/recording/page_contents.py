"""Turns an excerpt of a recording into the contents of a page."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import compress
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.mapping_set import MappingSet
from pagescan.model.units import escape_character
from pagescan.model.writers import KERNEL_OR_OTHER, LOST
from pagescan.recording.by_writer import writers
from pagescan.render.html.records import (
    PageContents,
    PageLook,
    PageMapping,
    PageProcess,
    PageWriter,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook
    from pagescan.recording.tables import WriterRow

_MOST_WRITERS = 1000
"""Functions of a page at most: its room is for the map."""


def page_contents(excerpt: Excerpt) -> PageContents:
    """Return the contents of a page; `render.html.page.page` writes the page."""
    recording, looks = excerpt.recording, excerpt.looks
    facts = recording.facts
    rows = list(_mappings(excerpt))
    index = {recorded: at for at, (recorded, _) in enumerate(rows)}
    same = [*index] == [*index.values()] == [*range(len(recording.mappings))]
    return PageContents(
        host=facts.host,
        kernel=facts.kernel,
        version=facts.version,
        page_size=recording.page_size,
        budget=facts.budget,
        processes=[
            PageProcess(one.target.pid, _shown(one.target.name), one.ending)
            for one in recording.processes
        ],
        mappings=[mapping for _, mapping in rows],
        looks=[_look(excerpt, look, None if same else index) for look in looks],
        columns=lambda at: excerpt.columns(looks[at]),
        packed=lambda group: _packed(excerpt, [looks[at] for at in group]),
        writers=_writers(excerpt) if recording.has_writers else (),
        notes=recording.damage,  # it may grow while the looks are read
    )


def _mappings(excerpt: Excerpt) -> Iterator[tuple[int, PageMapping]]:
    """Yield the selected mappings that existed in the span, with their indices."""
    positions = [look.position for look in excerpt.looks]
    for recorded, row in enumerate(excerpt.recording.mappings):
        first = bisect_left(positions, row.first_look)
        last = bisect_right(positions, row.last_look) - 1
        if last < first:
            continue
        name = _shown(row.label or row.mapping.label)
        for one in excerpt.selection.select(MappingSet([row.mapping])):
            yield (
                recorded,
                PageMapping(row.process, one.start, one.end, name, first, last),
            )


def _writers(excerpt: Excerpt) -> list[PageWriter]:
    """Return the functions that wrote most, then the pages without a function."""
    view = writers(excerpt)
    several = bool(excerpt.recording.facts.group)
    rows = [
        PageWriter(
            _shown(row.function or "(no name)"),
            _last_part(row.module),
            _shown(row.thread),
            row.thread_count,
            _last_part(row.mapping),
            row.pages,
            row.share,
            _process_of(row) if several else "",
            row.process_count,
        )
        for row in view.functions[:_MOST_WRITERS]
    ]
    fixed = ((KERNEL_OR_OTHER, view.kernel_or_other), (LOST, view.lost))
    return rows + [
        PageWriter(name, "", "", 0, "", pages, pages / view.pages)
        for name, pages in fixed
        if pages
    ]


def _process_of(row: WriterRow) -> str:
    name = _shown(row.process)
    return name if row.pid is None else f"{name} ({row.pid})"


def _last_part(name: str | None) -> str:
    return _shown((name or "").rpartition("/")[2])


def _shown(name: str) -> str:
    """Return a name in which nothing turns the direction of the text behind it."""
    return "".join(
        char if char.isprintable() else escape_character(char) for char in name
    )


def _packed(excerpt: Excerpt, looks: Sequence[RecordedLook]) -> list[tuple[int, bytes]]:
    """Return the number of regions of each look, and these in their packed form."""
    recording = excerpt.recording
    if not excerpt.selection.everything:
        size = excerpt.page_size(looks[0])
        parts = map(excerpt.columns, looks)
        return [(len(part.starts), native.pack(part, size)) for part in parts]
    if len(looks) == 1 or looks[-1].position - looks[0].position >= len(looks):
        found = [recording.packed(look) for look in looks]
    else:
        found = [one for _, some in recording.packed_looks(looks) for one in some]
    return [
        (look.regions if data else 0, data)
        for look, data in zip(looks, found, strict=True)
    ]


def _look(
    excerpt: Excerpt, look: RecordedLook, index: dict[int, int] | None
) -> PageLook:
    """Return a look; `index` tells which mapping of the page each recorded one is."""
    mappings, pages = excerpt.counts(look)
    known: Sequence[int] = mappings
    if index is not None:
        known = [index[mapping] for mapping in mappings if mapping in index]
        if len(known) < len(mappings):
            pages = array("I", compress(pages, (one in index for one in mappings)))
    return PageLook(
        process=look.process,
        from_ns=look.time_ns - look.interval_ns,
        to_ns=look.time_ns,
        pages=excerpt.pages(look),
        resident=look.resident,
        share=look.cost.target_share,
        used_ns=look.cost.used_ns,
        mappings=known,
        counts=pages,
    )
