"""Finds written pages that a session tracks without registering, for `scan` and `maps`.

These are new memory since its last look, and the growing ends, which are compared by
content. The kernel does not track their stores, so `written` is added here.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import NO_CATEGORY, Category
from pagescan.model.ranges import Interval, first_bytes
from pagescan.model.results import MappingCounts
from pagescan.native import Columns
from pagescan.scanner.counts import count_by_mapping, joined, scan_mappings
from pagescan.scanner.query import Query
from pagescan.scanner.rules import POPULATED
from pagescan.scanner.scanner import Scanner
from pagescan.session.locks import live_sessions
from pagescan.session.record import Session
from pagescan.session.resume import resume
from pagescan.target.selection import cut


def session_of(scanner: Scanner) -> Session | None:
    """Return this user's session of a target, or None."""
    facts = scanner.target.facts
    for session in live_sessions(facts.pid):
        if session.is_kept and session.target.start_time == facts.start_time:
            return session
    return None


class Unregistered(NamedTuple):
    """The memory that a session tracks and has not registered.

    Attributes:
        written: Its populated pages that were written since the last look.
        judged: All of that memory, as intervals in any order.
    """

    written: Columns
    judged: list[Interval]

    @classmethod
    def of(cls, scanner: Scanner, session: Session) -> "Unregistered":
        """Look at the target; the scanner counts the cost."""
        tracking = resume(session, scanner, pace=scanner.pace)
        tracking.scanner.meter = scanner.meter
        written = tracking.written_outside()
        ends = tracking.ends_that_are_read()
        return cls(written, [*zip(written.starts, written.ends, strict=True), *ends])


def scan(
    scanner: Scanner, chosen: MappingSet, query: Query, session: Session | None
) -> Batch:
    """Scan selected mappings; unregistered memory of a session has `written`, too."""
    if session is None or query.raw or not query.used & Category.WRITTEN:
        return scan_mappings(scanner, chosen, query)
    written = native.inside(Unregistered.of(scanner, session).written, *chosen.bounds)
    found = scanner.scan(chosen, query)
    if written.starts:
        found = native.outside(found, *written[:2])
        more = _of_written(scanner, chosen, query, written)
        found = native.overlay(found, more, outside=True)
        if query.max_pages is not None:
            size = scanner.target.facts.page_size
            found = first_bytes(found, query.max_pages * size)
    return joined(scanner, found, chosen, query)


def maps(
    scanner: Scanner, chosen: MappingSet, session: Session | None
) -> list[MappingCounts]:
    """Count the pages of each mapping, including a session's unregistered memory."""
    rows = count_by_mapping(scanner, chosen)
    if session is None:
        return rows
    written, judged = Unregistered.of(scanner, session)
    size = scanner.target.facts.page_size
    more = {
        row.mapping.start: row.pages
        for row in Batch.join(written, chosen, page_size=size).by_mapping()
    }
    return [_with_written(row, more.get(row.mapping.start, 0), judged) for row in rows]


def _with_written(
    row: MappingCounts, more: int, judged: Sequence[Interval]
) -> MappingCounts:
    """Return a row with additional written pages; "written" may stay unknown."""
    known, mapping = row.counts["written"], row.mapping
    if known is None and not any(
        start < mapping.end and mapping.start < end for start, end in judged
    ):
        return row
    return replace(row, counts={**row.counts, "written": (known or 0) + more})


def _of_written(
    scanner: Scanner, chosen: MappingSet, query: Query, written: Columns
) -> Columns:
    """Return the pages that match a query, of pages known to be written."""
    if query.exclude & Category.WRITTEN:
        return Columns.empty()
    any_of = query.any_of
    if any_of & Category.WRITTEN:
        any_of = NO_CATEGORY
    if not any_of and (query.require | query.any_of) & Category.WRITTEN:
        any_of = POPULATED
    asked = replace(
        query,
        require=query.require & ~Category.WRITTEN,
        any_of=any_of,
        returned=query.returned & ~Category.WRITTEN,
    )
    parts, owners = native.join(written, *chosen.bounds)
    pieces = MappingSet(
        cut(chosen[owner], start, end)
        for start, end, owner in zip(parts.starts, parts.ends, owners, strict=True)
        if owner >= 0
    )
    found = scanner.scan(pieces, asked)
    tag = query.returned & Category.WRITTEN
    return native.relabel(found, {bits: bits | tag for bits in set(found.categories)})
