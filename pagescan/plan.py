"""The plan of a checkpoint: page regions with an action each, and its binary form.

Pure but for the stream that it is written to. A plan is one ascending list. Pages that
it does not list are not in the image: they were never populated, they were dropped or
unmapped, or they come from their file.
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
_ACTION_BITS = 0xFFF  # of a region's second word; the other bits are its length


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
        batch: The regions; its `categories` are the values of `Action`.
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
        return self.batch.categories

    def regions(self) -> Iterator[PlanRegion]:
        """Yield the regions as objects."""
        batch = self.batch
        for row in zip(batch.starts, batch.ends, batch.categories, strict=True):
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


def write_binary(plan: Plan, stream: BinaryIO) -> None:
    """Write a plan in its binary form: little-endian words of 64 bits.

    The header is the magic "PAGEPLAN" and the words version (1), page size, pid, start
    time, epoch, parent, number of regions, 0; an epoch that does not apply is 2**64-1.
    Two words per region follow: its start, and its length in bytes with the action in
    the low 12 bits (1 dump, 2 zero, 4 keep).
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
    """A plan as `read_binary` returns it; the fields have the meaning of `Plan`'s.

    Attributes:
        pid: The target.
        start_time: Clock ticks since boot; with the pid it identifies the target.
        page_size: Bytes.
        epoch: None: made without a session.
        parent: None: the plan is complete.
        regions: In ascending order.
    """

    pid: int
    start_time: int
    page_size: int
    epoch: int | None
    parent: int | None
    regions: Sequence[PlanRegion]


def read_binary(stream: BinaryIO) -> BinaryPlan:
    """Read a plan that `write_binary` wrote.

    Raises:
        PagescanError: The stream holds no plan, one of another version, or only a part.
    """
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(MAGIC):
        raise PagescanError("this is not a plan, or its header was cut short")
    _, version, page_size, pid, start_time, epoch, parent, count, _ = _HEADER.unpack(
        header
    )
    if version != VERSION:
        raise PagescanError(f"the plan has version {version}, not {VERSION}")
    data = stream.read(16 * count)
    if len(data) < 16 * count:
        raise PagescanError(
            f"the plan was cut short: it has {len(data) // 16} of {count} regions"
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
