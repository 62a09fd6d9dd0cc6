"""Turns an excerpt of a recording into the contents of a page."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.mapping_set import MappingSet
from pagescan.render.html.records import (
    PageContents,
    PageLook,
    PageMapping,
    PageProcess,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook


def page_contents(excerpt: Excerpt) -> PageContents:
    """Return the contents of a page; `render.html.page.page` writes the page."""
    recording, looks = excerpt.recording, excerpt.looks
    facts = recording.facts
    rows = list(_mappings(excerpt))
    index = {recorded: at for at, (recorded, _) in enumerate(rows)}
    return PageContents(
        host=facts.host,
        kernel=facts.kernel,
        version=facts.version,
        page_size=recording.page_size,
        budget=facts.budget,
        processes=[
            PageProcess(one.target.pid, one.target.name, one.ending)
            for one in recording.processes
        ],
        mappings=[mapping for _, mapping in rows],
        looks=[_look(excerpt, look, index) for look in looks],
        columns=lambda at: excerpt.columns(looks[at]),
        packed=lambda at: _packed(excerpt, looks[at]),
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
        name = row.label or row.mapping.label
        for one in excerpt.selection.select(MappingSet([row.mapping])):
            yield (
                recorded,
                PageMapping(row.process, one.start, one.end, name, first, last),
            )


def _packed(excerpt: Excerpt, look: RecordedLook) -> tuple[int, bytes]:
    if excerpt.selection.everything:
        return excerpt.recording.packed(look)
    columns = excerpt.columns(look)
    size = excerpt.page_size(look)
    return len(columns.starts), native.pack(columns, size)


def _look(excerpt: Excerpt, look: RecordedLook, index: dict[int, int]) -> PageLook:
    counts = excerpt.counts(look)
    pairs = zip(counts.mappings, counts.pages, strict=True)
    known = [(index[mapping], pages) for mapping, pages in pairs if mapping in index]
    return PageLook(
        process=look.process,
        from_ns=look.time_ns - look.interval_ns,
        to_ns=look.time_ns,
        pages=excerpt.pages(look),
        resident=look.resident,
        share=look.cost.target_share,
        mappings=[mapping for mapping, _ in known],
        counts=[pages for _, pages in known],
    )
