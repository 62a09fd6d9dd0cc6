"""`watch --budget`: tracks a rotating random sample, and extrapolates from it.

Every tracked page costs its writer one fault per interval. If that would exceed the
budget, only some units of 2 MiB are protected: as many as the budget pays for, judged
by the target's loss in earlier looks (`target_cost`, `ledger`). Half of the sample is
replaced at each look; units outside it cost nothing. The result of the drawn units is
extrapolated to all inhabited units (`estimate`). Newer memory is counted exactly.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

from pagescan import native
from pagescan.model.looks import Look
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import (
    DEFAULT_RETURNED,
    HUGE_PAGE,
    PAGE_SIZE,
    Category,
    Kind,
    Mapping,
)
from pagescan.model.ranges import ranges_of
from pagescan.model.results import Estimate
from pagescan.model.units import now
from pagescan.native import Columns, Masks, Pace, Rule
from pagescan.scanner.rules import POPULATED, PRIVATE
from pagescan.scanner.spans import spans_of
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.arm import MAX_TABLES, Armed
from pagescan.tracking.estimate import Extremes, estimate, within_possible
from pagescan.tracking.growing_ends import End, Moves
from pagescan.tracking.ledger import Ledger
from pagescan.tracking.mapping_count import count_alike
from pagescan.tracking.sample import Budget, Sample
from pagescan.tracking.sample_units import (
    apart,
    count_pages,
    holes,
    sampled,
    units_around,
    units_of,
    within,
)
from pagescan.tracking.target_cost import populated_pages
from pagescan.tracking.tracking import Tracking

_ASKED_ANEW = 32  # looks after which all units are checked for pages
_RESTORED = 64  # huge pages put back per look: 20 ms


class _Grown(NamedTuple):
    """The memory that appeared since the last look.

    Attributes:
        new: Bounds of the new mappings.
        moves: The decisions about the growing ends.
        populated: The populated pages that were not registered.
    """

    new: list[tuple[int, int]]
    moves: Moves
    populated: Columns


class SampledTracking(Tracking):
    """Tracks as much of a target as a budget pays for.

    Attributes:
        budget: The faults per look.
        units: The tracked units: pieces of mappings, up to 2 MiB each, ascending.
        exact: Whether they are all memory; then it works like `Tracking`.
    """

    def __init__(
        self,
        target: Target,
        uffd: int,
        armed: Armed,
        budget: Budget,
        pace: Pace | None = None,
    ) -> None:
        """Remember the budget; `start_within` arms."""
        super().__init__(target, uffd, armed, armed_at=now(), since=None, pace=pace)
        self.budget = budget
        self.sample: Sample[Mapping] = Sample()
        self.exact = False
        self._ledger = Ledger(budget.share or 1.0)
        self._calls = 0  # calls that changed protections since the last count
        self._left: list[Mapping] = []  # have left the sample, and may have been huge
        self._extremes = Extremes()
        self._out: list[End] = []  # left out; not in any unit
        self._came: list[Mapping] = []  # parts that were registered at this look

    @classmethod
    def start_within(
        cls,
        budget: Budget,
        target: Target,
        selection: Selection | None = None,
        *,
        max_tables: int = MAX_TABLES,
        pace: Pace | None = None,
    ) -> Self:
        """Attach, register the selection, and arm a first random sample of it."""
        from pagescan.tracking import attach

        taken = attach.take(target)
        armed = Armed(selection or Selection(), tables_left=max_tables)
        return cls(target, taken.uffd, armed, budget, pace).arm_attached(taken)

    def arm(self) -> None:
        """Register the whole selection, and protect as much as the budget pays for."""
        there = self.mappings.trackable()
        self.armed.alike = count_alike(there.all_mappings)
        registered = self.armer.register(there, there.all_mappings)
        self.mappings.has_registered = bool(registered)
        self.check_armed(self.mappings.has_registered)
        chosen = self.mappings.trackable()
        self.draw(self.inhabited(chosen), 0, ())
        self._protect(self.sample.drawn)
        if self.exact:
            self.armer.protect_whole(chosen)
        self.armed_at = self.since = now()

    def look(
        self, *, rearm: bool = False, returned: Category = DEFAULT_RETURNED
    ) -> Look:
        """Find the written pages of the tracked sample; draw the next sample.

        Raises:
            TargetError: The address space is gone: exit, or exec.
        """
        if not self.exact:
            with self.observed(rearm=rearm):
                return self._look_at_part(rearm=rearm, returned=returned)
        look = super().look(rearm=rearm, returned=returned)
        if (edge := self.unregistered.edge) is not None:
            self._forget_edge(edge)
        if rearm:
            self._out, self._came = list(self.armed.ends), []
            population = self._populate(self.mappings.trackable())
            counts = self._counts(look.batch.columns(), population)
            self._extremes.learn(counts, len(population))
            self._account()
            if not self.draw(population, len(population), counts):
                self._lift(population)
            look = replace(look, cost=look.cost + self._take_cost(rearm=rearm))
        return look

    def _look_at_part(self, *, rearm: bool, returned: Category) -> Look:
        """Look at the sample and at new memory, and estimate the rest.

        No store is lost in between: a unit that is drawn again is read and protected in
        one step, and a newly drawn one is protected before the old ones are read.
        """
        grown = self._register_new() if rearm else None
        chosen = self.mappings.trackable()
        new = frozenset(
            index
            for index, mapping in enumerate(chosen)
            if grown and any(low <= mapping.start < high for low, high in grown.new)
        )
        drawn_from = within(self.sample.population, chosen)
        tracked = within(self.sample.drawn, chosen)
        came: list[Mapping] = []
        arrived = Columns.empty()
        share = None
        if rearm:
            population = self._populate(chosen)
            came = apart(population, drawn_from)
            ahead = self.writes.scan(
                MappingSet(tracked), rearm=False, returned=returned
            )
            counts = self._counts(ahead, tracked)
            share = self._toll_for(sum(counts))
            self.draw(population, len(tracked), counts)
            self._protect(apart(self.sample.drawn, sorted(tracked + came)))
            arrived = self._protect_shared(came, tracked, chosen)
        private = [unit for unit in came if unit.kind in PRIVATE]
        units = MappingSet(sorted(tracked + private))
        found = self.writes.scan(units, rearm=rearm, returned=returned)
        arrived = self.writes.without_own(arrived, arrived)
        found = native.overlay(found, arrived, outside=True)
        if grown and (grown.moves.out or self.armed.ends):
            found, came = self._with_ends(found, came, grown, chosen, returned)
        if rearm and not self.exact:
            self._lift(sorted(tracked + came))
        batch = self.joined(found, chosen, new, returned)
        said = self._estimate(found, tracked, drawn_from, came)
        self.target.check_alive()
        moment = now()
        if rearm:
            self._extremes.learn(self._counts(found, tracked), len(drawn_from))
            self.armed.epoch += 1
            self.since = moment
        cost = self._take_cost(rearm=rearm, share=share)
        about = sampled(tracked, drawn_from, came) if said else None
        return Look(batch, self.unregistered.untracked(), moment, cost, said, about)

    def _toll_for(self, written: int) -> float | None:
        """Count what a look at a part has cost the target; return its share."""
        if self.toll is None:
            return None
        # Growth elsewhere is not part of the cost.
        share = self.toll.look(written, grows=False, calls=self._calls)
        self._calls = 0
        self._account()
        return share

    def _account(self) -> None:
        if self.toll is not None:
            self._ledger.take(self.toll.used, self.toll.spent)

    def _affordable(self) -> float:
        """Return how many faults the next look may cause."""
        if self.toll is None or self.budget.share is None or not self.toll.used:
            return self.budget.faults
        return self._ledger.allowance() / self.toll.write_seconds

    def _estimate(
        self,
        found: Columns,
        tracked: Sequence[Mapping],
        drawn_from: Sequence[Mapping],
        came: Sequence[Mapping],
    ) -> Estimate | None:
        """Extrapolate from the tracked units; add new memory exactly."""
        if len(tracked) == len(drawn_from):
            return None
        sizes = [unit.length // PAGE_SIZE for unit in drawn_from]
        counts, more = self._counts(found, tracked), sum(self._counts(found, came))
        said = estimate(counts, len(sizes), *self._extremes.known(max(sizes)))
        share = (len(tracked) + len(came)) / (len(drawn_from) + len(came))
        unseen = sum(sizes) - sum(unit.length for unit in tracked) // PAGE_SIZE
        most = min(sum(counts) + more + unseen, populated_pages(self.target.pid))
        return within_possible(said._replace(share=share), sum(counts), more, most)

    def _register_new(self) -> _Grown:
        """Register new memory; leave growing ends out."""
        chosen, populated, new = self.unregistered.find()
        moves = self.unregistered.plan(chosen, new, populated)
        self.unregistered.register(chosen, moves)
        self._out, self._came = moves.out, moves.register
        bounds = [(chosen[index].start, chosen[index].end) for index in sorted(new)]
        return _Grown(bounds, moves, populated)

    def _with_ends(
        self,
        found: Columns,
        came: list[Mapping],
        grown: _Grown,
        chosen: MappingSet,
        returned: Category,
    ) -> tuple[Columns, list[Mapping]]:
        """Add the changes of the growing ends to the written and to the new pages.

        The ends are not units: they have no protection, and are known exactly.
        """
        found = self.unregistered.settle(grown.moves, grown.populated, found)
        page = self.unregistered.ends.heap_without_edge(chosen)
        if page is not None:
            found = self.unregistered.put_back_edge(page, found, returned)
            self._forget_edge(page)
        return found, sorted([*came, *units_of(self._out, chosen)])

    def _forget_edge(self, page: Mapping) -> None:
        """Remove a page that was left out again from the units."""
        self._out = list(self.armed.ends)

        def without_page(unit: Mapping) -> Mapping | None:
            if unit.start == page.start:
                return None
            end = min(unit.end, page.start) if unit.end == page.end else unit.end
            return unit._replace(end=end)

        self.sample.replace(without_page)

    def _populate(self, chosen: Sequence[Mapping]) -> list[Mapping]:
        """Return the current units: the earlier ones, and those around new pages.

        To check every page would cost more than tracking. Units that lost all their
        pages, and growing ones that became several, are only found from time to time.
        """
        came: list[Mapping] = []
        if self._out or self._came:
            # New memory is not joined with an earlier unit: it is examined by itself.
            came = self.inhabited(self._came)
            others = [*self._came, *units_of(self._out, chosen)]
            chosen = holes(chosen, sorted(others))
        if self.armed.epoch % _ASKED_ANEW == 0:
            return sorted(came + self.inhabited(chosen))
        known = within(self.sample.population, chosen)
        return sorted(came + known + self.inhabited(holes(chosen, known)))

    def inhabited(self, chosen: Sequence[Mapping]) -> list[Mapping]:
        """Return the units that contain a page; whole mappings if these are smaller."""
        selected = MappingSet(chosen)
        rules = {key: index for index, key in enumerate(selected.kinds)}
        asked = [
            Rule(
                kernel_masks=Masks(anyof=POPULATED, returned=Category.WPALLOWED),
                align=size or HUGE_PAGE,
            )
            for _, size in rules
        ]
        found = self.scanner.scan_ranges(
            spans_of(selected, rules), asked, join_gap=HUGE_PAGE
        )
        return units_around(found, chosen)

    def draw(
        self, population: list[Mapping], tracked: int, counts: Sequence[int]
    ) -> bool:
        """Draw the next sample, without protection; return whether it is everything."""
        known = (self._affordable(), self._extremes.most)
        wanted = self.budget.units(len(population), tracked, counts, *known)
        self.sample.draw(population, wanted)
        self.exact = wanted == len(population)
        return self.exact

    def _protect(self, units: Sequence[Mapping]) -> None:
        """Protect units; earlier writes to them are not reported."""
        self.armer.protect(units)
        self._calls += len(units)
        for unit in units:
            if unit.kind not in PRIVATE:
                self._set(unit, protect=True)

    def _protect_shared(
        self,
        came: Sequence[Mapping],
        tracked: list[Mapping],
        chosen: Sequence[Mapping],
    ) -> Columns:
        """Protect the new shared memory, and return its pages.

        If everything is tracked from now on, holes are protected, too.
        """
        parts = [unit for unit in came if unit.kind not in PRIVATE]
        if self.exact:
            shared = [mapping for mapping in chosen if mapping.kind not in PRIVATE]
            parts += holes(shared, sorted(self.sample.population + tracked))
        return self.armer.protect_whole(sorted(parts))

    def _lift(self, units: Sequence[Mapping]) -> None:
        """Lift the protection of those units that were not drawn again."""
        left = apart(units, self.sample.drawn)
        for unit in left:
            self._calls += 1
            self._set(unit, protect=False)
        if self.restore_huge:
            self._put_back_some(left)

    def _put_back_some(self, left: Sequence[Mapping]) -> None:
        """Put back huge pages of units that left the sample, up to the limit per look.

        The rest stays split until one of the next looks, or until the end. Shared
        memory always does, because the kernel refuses while it is registered.
        """
        drawn = set(self.sample.drawn)
        waiting = [unit for unit in self._left if unit not in drawn]
        waiting += [unit for unit in left if unit.kind is Kind.ANON]
        now, self._left = waiting[:_RESTORED], waiting[_RESTORED:]
        ranges = ranges_of((unit.start, unit.end) for unit in now)
        huge = self.armed.huge
        done = huge.restore(
            self.scanner,
            self.mappings.trackable(),
            within=native.inside(huge.units, *ranges),
        )
        self._restored_bytes += done.restored
        if done.caught:
            raise KeyboardInterrupt

    def _set(self, unit: Mapping, *, protect: bool) -> None:
        try:
            native.uffd_protect(
                *(self.uffd, unit.start, unit.end),
                align=unit.page_size or HUGE_PAGE,
                pace=self.scanner.pace,
                meter=self.scanner.meter,
                protect=protect,
            )
        except OSError as error:  # its mapping is gone, and missing at the next look
            if not self.target.has_address_space():
                raise self.target.gone(error) from error

    def _counts(self, found: Columns, units: Sequence[Mapping]) -> list[int]:
        return count_pages(found, units, page_size=self.target.facts.page_size)
