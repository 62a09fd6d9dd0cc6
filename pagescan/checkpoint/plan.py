"""The plan of a checkpoint: page regions with one action each.

A plan is one ascending list. Pages that it does not list are not in the image: they
were never populated, they were dropped or unmapped, or they come from their file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pagescan import native
from pagescan.model.results import Action
from pagescan.native import Columns

if TYPE_CHECKING:
    from pagescan.model.batch import Batch
    from pagescan.model.memory import Untracked
    from pagescan.model.results import TargetFacts


ACTION_BITS = 0xFFF  # low bits of a region's second word; the other bits are its length


class PlanRegion(NamedTuple):
    """A half-open run of pages with one action.

    Attributes:
        start: First address.
        end: Address behind the last byte.
        action: What to do with its pages.
    """

    start: int
    end: int
    action: Action


@dataclass(slots=True)
class Plan:
    """The pages of one image, on top of those of its parent.

    Attributes:
        target: The process whose memory it describes.
        batch: The regions; its `bits` are the values of `Action`.
        epoch: The number of this plan, to acknowledge; None: made without a session.
        parent: The epoch whose image it builds on; None: the plan is complete.
        left_out: The parts of the selection that belong elsewhere: shared memory,
            devices.
    """

    target: TargetFacts
    batch: Batch
    epoch: int | None
    parent: int | None
    left_out: tuple[Untracked, ...] = ()

    @property
    def actions(self) -> array[int]:
        """The actions, one per region: a column like `batch.starts`, `batch.ends`."""
        return self.batch.bits

    def regions(self) -> Iterator[PlanRegion]:
        """Yield the regions as objects."""
        batch = self.batch
        for row in zip(batch.starts, batch.ends, batch.bits, strict=True):
            yield PlanRegion(row[0], row[1], Action(row[2]))

    def pages(self) -> dict[str, int]:
        """Return the number of pages per action."""
        batch = self.batch
        _, counts = native.tally(batch.columns(), None, batch.page_size, 1)
        return {item.word: counts[item.bit_length() - 1] for item in Action}


def lay_out(populated: Columns, changed: Columns, maybe: Columns) -> Columns:
    """Combine three lists into one plan; its categories are the values of `Action`.

    Args:
        populated: The pages of the image, with KEEP, ZERO or DUMP as categories.
        changed: The written pages. They are dumped even where `populated` lacks them:
            it may have been read before they appeared.
        maybe: Pages to dump if they are still populated.
    """
    planned = native.overlay(populated, _dumped(maybe), outside=False)
    return native.overlay(planned, _dumped(changed), outside=True)


def _dumped(columns: Columns) -> Columns:
    actions = array("Q", [Action.DUMP]) * len(columns.starts)
    return Columns(columns.starts, columns.ends, actions)
