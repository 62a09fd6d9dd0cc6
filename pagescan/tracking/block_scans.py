"""The scans that begin and end a block of code in this process, prepared in advance."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import DEFAULT_RETURNED, Category, Kind, Mapping
from pagescan.native import Columns, Masks, Pace, PreparedScan, Rule, Spans
from pagescan.scanner.rules import protection_scan, unregistered_rule
from pagescan.scanner.spans import as_spans
from pagescan.scanner.stages import look_stages
from pagescan.target.kernel import user_space_end
from pagescan.target.selection import Selection, cut
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from pagescan.model.batch import Batch


# Only this process waits for its mmap lock: no pauses are needed.
UNPACED = Pace(max_stall_ns=1 << 40, pause_ns=0)
# Initial capacity in regions, enough for most blocks: it grows only after the block.
_ROOM = 4096
_STACK_GROWTH = 1 << 30


class BlockScans(NamedTuple):
    """The scans of one block.

    Attributes:
        protect: Protects the populated private pages written since they were armed.
        unprotected: Lists the written pages of registered memory.
        outside: Lists the populated pages of unregistered memory, new memory included.
        exact: The rules that the tags of `unprotected` refer to.
    """

    protect: PreparedScan
    unprotected: PreparedScan
    outside: PreparedScan
    exact: Sequence[Rule]

    @property
    def buffers(self) -> tuple[Columns, ...]:
        """The arrays to which the scans of this block write their results."""
        return (*self.protect.rows, *self.unprotected.rows, *self.outside.rows)


class BlockTracking(Tracking):
    """Tracks this process; its looks are prepared scans."""

    leaves_growth_out = False  # a block has one look: little can stay behind

    warm = False
    """Whether the scans have run in this process: the first run writes more pages."""

    def prepare(self) -> BlockScans:
        """Prepare the scans of a block; the first block of a process runs them once."""
        prepared = self._prepare()
        if not BlockTracking.warm:
            BlockTracking.warm = True
            prepared.protect.run()
            prepared.unprotected.run()
            prepared.outside.run()
            prepared = self._prepare()
        return prepared

    def _prepare(self) -> BlockScans:
        chosen = MappingSet(_with_room_to_grow(self.mappings.trackable()))
        spans, stages = look_stages(chosen, rearm=False, returned=DEFAULT_RETURNED)
        exact = stages.exact
        candidates = list(stages.candidates)
        for index, rule in enumerate(candidates):
            if rule.whole_range:  # files: ask for pages written now, not for candidates
                wanted = Masks(mask=Category.WRITTEN)
                candidates[index] = _labelled(exact[index], wanted, index)
        end = user_space_end()  # beyond the last mapping: a new one may lie above it
        everywhere = Spans(array("Q", [0]), array("Q", [end]), array("Q", [0]))
        outside = unregistered_rule(align=end)  # one call
        return BlockScans(
            self._scan(*protection_scan(chosen)),
            self._scan(spans, candidates),
            self._scan(everywhere, [outside]),
            exact,
        )

    def _scan(self, spans: Spans, rules: list[Rule]) -> PreparedScan:
        return PreparedScan(
            self.target.pagemap, [spans], rules, room=_ROOM, pace=UNPACED
        )

    def result_of(self, scan: PreparedScan) -> Columns:
        """Return the regions that a scan found when it ran."""
        return scan.take(UNPACED, self.scanner.meter)

    def take_stock(self, prepared: BlockScans) -> tuple[Columns, Columns]:
        """Return the written pages, and the pages of new mappings, from both scans."""
        written = self.result_of(prepared.unprotected)
        outside = self.result_of(prepared.outside)
        chosen = self.mappings.trackable()
        exact = self.scanner.scan_ranges(as_spans(written), prepared.exact)
        fresh = native.inside(self.armer.populated_outside(chosen), *outside[:2])
        buffers = prepared.buffers
        return self.writes.without_own(exact, *buffers), self.writes.without_own(
            fresh, *buffers
        )

    def batch(self, written: Columns, fresh: Columns, selection: Selection) -> Batch:
        """Join both lists into one batch, restricted to a block's selection."""
        chosen = self.mappings.trackable()
        new = frozenset(native.shares(fresh, *chosen.bounds).ranges)
        found = native.overlay(written, fresh, outside=True)
        # Pages that an inner block found may have been unmapped since.
        found = native.inside(found, *selection.select(chosen).bounds)
        return self.joined(found, chosen, new, DEFAULT_RETURNED)

    def end(self) -> None:
        """Disarm, and close the target."""
        self.close()
        self.target.close()

    def bank(self) -> Columns:
        """Look and rearm as an inner block begins; the outer blocks get the result."""
        batch = self.look(rearm=True).batch
        return Columns(batch.starts, batch.ends, batch.categories)


def _with_room_to_grow(chosen: Iterable[Mapping]) -> Iterator[Mapping]:
    """Extend the stack downwards: pages that it grows into are registered with it."""
    end = 0
    for mapping in chosen:
        start = mapping.start
        if mapping.name == "[stack]" and mapping.kind is Kind.ANON:
            start = max(end, start - _STACK_GROWTH)
        yield cut(mapping, start, mapping.end)
        end = mapping.end


def _labelled(rule: Rule, wanted: Masks, label: int) -> Rule:
    return rule._replace(result_masks=wanted, label=label)
