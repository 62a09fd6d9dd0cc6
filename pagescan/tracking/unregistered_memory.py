"""Memory that is tracked and not registered yet: new memory, and the growing ends."""

from pagescan import native
from pagescan.model.mapping_set import MappingSet, reservations_beside
from pagescan.model.memory import Category, Mapping, Untracked
from pagescan.model.ranges import Ranges, ranges_of, unlabelled
from pagescan.native import Columns
from pagescan.scanner.query import Query
from pagescan.scanner.rules import POPULATED, populated_rule
from pagescan.scanner.spans import as_spans
from pagescan.tracking.arm import Armer
from pagescan.tracking.followed import FollowedMappings
from pagescan.tracking.growing_ends import NOTHING, GrowingEnds, Moves
from pagescan.tracking.written_scan import WrittenScan


class UnregisteredMemory:
    """Finds the unregistered memory of one target, and registers it or compares it.

    Attributes:
        ends: The growing ends, which are compared and not registered.
        edge: The uppermost page of a heap, if this look has left it out again.
    """

    def __init__(
        self,
        armer: Armer,
        mappings: FollowedMappings,
        writes: WrittenScan,
        *,
        leaves_growth_out: bool,
    ) -> None:
        """Work for a look; `leaves_growth_out` says whether ends are compared."""
        self.armer = armer
        self.mappings = mappings
        self.writes = writes
        self._leaves_growth_out = leaves_growth_out
        self.edge: Mapping | None = None
        target = writes.scanner.target
        self.ends = GrowingEnds(target, armer.armed.ends, wanted=leaves_growth_out)

    def register_growth(self) -> None:
        """Compare no growing end from the next look on: register what grows."""
        self._leaves_growth_out = False

    def find(self, *, again: bool = True) -> tuple[MappingSet, Columns, frozenset[int]]:
        """Return the mappings, their unregistered populated pages, and new indices.

        The indices are of mappings with more such pages than the growing ends.
        """
        self.edge = None
        chosen = self.mappings.trackable()
        populated = self.armer.populated_outside(chosen)
        known = self.ends.pieces
        fresh = native.outside(populated, *ranges_of(known)) if known else populated
        new = frozenset(native.shares(fresh, *chosen.bounds).ranges)
        if again and any(chosen[index].reserved for index in new):
            # A part of a reservation was used after the mappings were read.
            return self.find(again=False)
        return chosen, populated, new

    def take_in(
        self,
        chosen: MappingSet,
        new: frozenset[int],
        populated: Columns,
        returned: Category,
    ) -> Columns:
        """Get the written pages, register new memory, move the growing ends.

        New pages of private memory are unprotected: the following scan gets and
        protects them in one step. Compared pages are read when they are protected.
        """
        moves = self.plan(chosen, new, populated)
        registered = self.register(chosen, moves)
        arrived = self.armer.protect_whole(registered)
        written = self.writes.scan(chosen, rearm=True, returned=returned)
        arrived = self.writes.without_own(arrived, arrived)
        found = native.overlay(written, arrived, outside=True)
        found = self.settle(moves, populated, found)
        page = self.ends.heap_without_edge(chosen)
        return found if page is None else self.put_back_edge(page, found, returned)

    def plan(
        self, chosen: MappingSet, new: frozenset[int], populated: Columns
    ) -> Moves:
        """Decide which new memory is registered, and which ends are compared."""
        self.ends.wanted = self._leaves_growth_out and not self.armer.is_full()
        return self.ends.plan(chosen, new, populated)

    def register(self, chosen: MappingSet, moves: Moves) -> list[Mapping]:
        """Register new memory.

        A reservation that touches a mapping which is registered whole is registered
        with it, so that its later parts are one mapping with this one.
        """
        registered = self.armer.register(moves.register, chosen.all_mappings)
        self.armer.register(
            reservations_beside(moves.whole, chosen), chosen.all_mappings
        )
        self.mappings.has_registered |= bool(registered)
        return registered

    def left_out(self, moves: Moves, populated: Columns) -> Columns:
        """Return the populated pages of the parts that are left out from now on."""
        ends = ranges_of((end.start, end.end) for end in moves.out)
        left = native.inside(populated, *ends)
        return self.writes.without_own(left, left)

    def settle(self, moves: Moves, populated: Columns, found: Columns) -> Columns:
        """Compare the growing ends; return the found pages with the changed ones."""
        known = ranges_of(self.ends.pieces)
        left = self.left_out(moves, populated)
        same = ranges_of(self.ends.settle(moves, populated, self.writes.scanner.meter))
        found = native.overlay(
            native.outside(found, *same), native.outside(left, *same), outside=True
        )
        return self._without_dropped(found, known)

    def _without_dropped(self, found: Columns, known: Ranges) -> Columns:
        """Leave out pages of compared parts that the target has dropped since.

        Such a page was populated when the look began, and its bytes are gone: that is
        no store.
        """
        doubtful = native.inside(found, *known)
        if not doubtful.starts:
            return found
        spans = as_spans(unlabelled(Ranges(*doubtful[:2])))
        there = self.writes.scanner.scan_ranges(spans, [populated_rule()])
        dropped = native.outside(doubtful, there.starts, there.ends)
        return native.outside(found, dropped.starts, dropped.ends)

    def written_of(self, populated: Columns) -> Columns:
        """Return the written ones of the populated, unregistered pages."""
        known = self.ends.pieces
        if not known:
            return populated
        fresh = native.outside(populated, *ranges_of(known))
        return native.overlay(fresh, self._changed(populated), outside=True)

    def _changed(self, populated: Columns) -> Columns:
        """Return the pages of the growing ends that have changed."""
        try:
            same = self.ends.unchanged(populated, self.writes.scanner.meter)
        except PermissionError:  # reported as untracked
            return Columns.empty()
        known = ranges_of(self.ends.pieces)
        ends = native.outside(native.inside(populated, *known), *ranges_of(same))
        return self._without_dropped(ends, known)

    def put_back_edge(
        self, page: Mapping, found: Columns, returned: Category
    ) -> Columns:
        """Leave the uppermost page of a heap out again; return the complete result.

        A store to it before it is read is found by one more scan; a later store changes
        its bytes.
        """
        query = Query(any_of=POPULATED, exclude=Category.PFNZERO)
        there = self.writes.scanner.scan(MappingSet([page]), query)
        digest = self.ends.digests.page(page.start)[0] if there.starts else NOTHING
        again = self.writes.scan(MappingSet([page]), rearm=True, returned=returned)
        self.armer.unregister(page)
        self.ends.leave_out(page, digest)
        self.edge = page
        self.mappings.has_registered = True
        return native.overlay(found, again, outside=True)

    def untracked(self) -> tuple[Untracked, ...]:
        """Return the untracked ranges, with growing ends that cannot be read."""
        said = tuple(self.armer.armed.untracked)
        if self.armer.armed.ends and not self.ends.digests.can_read():
            said += self.ends.unreadable()
        return said
