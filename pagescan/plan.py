"""What a checkpoint has to store: page regions with an action each; pure, no I/O.

A plan is one ascending list. What it does not list is not in the image: it was never
there, it was dropped or unmapped, or it comes from its file.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from pagescan import native
from pagescan.errors import PagescanError
from pagescan.model import Action
from pagescan.native import Columns

if TYPE_CHECKING:
    from pagescan.model import TargetFacts, Untracked
    from pagescan.regions import Batch

MAGIC = b"PAGEPLAN"
VERSION = 1
_HEADER = struct.Struct("<8s8Q")
_NO_EPOCH = (1 << 64) - 1
_ACTION_BITS = 0xFFF  # of a region's second word; the rest is its length: whole pages


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
        target: Whose memory.
        batch: The regions; its `categories` are the values of `Action`.
        epoch: The number of this plan, to acknowledge; None: of no session.
        parent: The epoch whose image it builds on; None: on none, it is complete.
        left_out: What of the selection belongs elsewhere: shared memory, devices.
    """

    target: TargetFacts
    batch: Batch
    epoch: int | None
    parent: int | None
    left_out: tuple[Untracked, ...] = ()

    @property
    def actions(self) -> array[int]:
        """The column of actions, beside `batch.starts` and `batch.ends`."""
        return self.batch.categories

    def regions(self) -> Iterator[PlanRegion]:
        """Yield the regions as objects."""
        batch = self.batch
        for row in zip(batch.starts, batch.ends, batch.categories, strict=True):
            yield PlanRegion(row[0], row[1], Action(row[2]))

    def pages(self) -> dict[str, int]:
        """Return pages by action."""
        batch = self.batch
        _, counts = native.tally(batch.columns(), None, batch.page_size, 1)
        return {item.word: counts[item.bit_length() - 1] for item in Action}


def lay_out(populated: Columns, changed: Columns, maybe: Columns) -> Columns:
    """Return regions with the value of their action as categories.

    Args:
        populated: What belongs into the image, with KEEP or ZERO as categories.
        changed: What was written, wherever: dumped even if `populated` was read before
            it came.
        maybe: What has to be dumped if it is populated still.
    """
    kept = native.overlay(populated, _dumped(maybe), outside=False)
    return native.overlay(kept, _dumped(changed), outside=True)


def _dumped(columns: Columns) -> Columns:
    actions = array("Q", [Action.DUMP]) * len(columns.starts)
    return Columns(columns.starts, columns.ends, actions)


def write_binary(plan: Plan, stream: BinaryIO) -> None:
    """Write a plan in its binary form: little-endian words of 64 bits.

    The header is the magic "PAGEPLAN" and the words version (1), page size, pid, start
    time, epoch, parent, number of regions, 0; an epoch that does not apply is 2**64-1.
    Then each region is its start, and its length in bytes with the action in the low
    12 bits: 1 dump, 2 zero, 4 keep.
    """
    batch = plan.batch
    count = len(batch)
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        batch.page_size,
        plan.target.pid,
        plan.target.start_time,
        _NO_EPOCH if plan.epoch is None else plan.epoch,
        _NO_EPOCH if plan.parent is None else plan.parent,
        count,
        0,
    )
    words = array("Q", bytes(16 * count))
    words[0::2] = batch.starts
    words[1::2] = array(
        "Q",
        (
            end - start | action
            for start, end, action in zip(
                batch.starts, batch.ends, batch.categories, strict=True
            )
        ),
    )
    stream.write(header)
    stream.write(_little_endian(words))


class BinaryPlan(NamedTuple):
    """What `read_binary` reads; the fields are those of `Plan`.

    Attributes:
        pid: The target.
        start_time: Clock ticks since boot; with the pid it identifies the target.
        page_size: Bytes.
        epoch: None: of no session.
        parent: None: the plan is complete.
        regions: Ascending.
    """

    pid: int
    start_time: int
    page_size: int
    epoch: int | None
    parent: int | None
    regions: Sequence[PlanRegion]


def read_binary(stream: BinaryIO) -> BinaryPlan:
    """Read what `write_binary` wrote.

    Raises:
        PagescanError: It is something else, of another version, or cut short.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise PagescanError("this is no plan, or it was cut short in its header")
    _, version, page_size, pid, start_time, epoch, parent, count, _ = _HEADER.unpack(
        header
    )
    if version != VERSION:
        raise PagescanError(f"the plan is of version {version}, not {VERSION}")
    data = stream.read(16 * count)
    if len(data) < 16 * count:
        raise PagescanError(
            f"the plan was cut short: {len(data) // 16} regions of {count}"
        )
    words = array("Q", data)
    if sys.byteorder == "big":
        words.byteswap()
    try:
        regions = [
            PlanRegion(
                start, start + (word & ~_ACTION_BITS), Action(word & _ACTION_BITS)
            )
            for start, word in zip(words[0::2], words[1::2], strict=True)
        ]
    except ValueError as error:
        raise PagescanError(f"the plan is damaged: {error}") from error
    return BinaryPlan(
        pid,
        start_time,
        page_size,
        None if epoch == _NO_EPOCH else epoch,
        None if parent == _NO_EPOCH else parent,
        regions,
    )


def _little_endian(words: array[int]) -> bytes:
    if sys.byteorder == "big":
        words.byteswap()
    return words.tobytes()
