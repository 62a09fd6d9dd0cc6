"""The binary form of a plan: written for and read by programs that make images."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from pagescan.checkpoint.plan import ACTION_BITS, Plan, PlanRegion
from pagescan.model.errors import PagescanError
from pagescan.model.results import Action

MAGIC = b"PAGEPLAN"

VERSION = 1

_HEADER = struct.Struct("<8s8Q")

_NO_EPOCH = (1 << 64) - 1


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
                batch.starts, batch.ends, batch.bits, strict=True
            )
        ),
    )
    stream.write(header)
    stream.write(_little_endian(words))


class BinaryPlan(NamedTuple):
    """A plan as `read_plan` returns it; its fields mean the same as in `Plan`.

    Attributes:
        pid: The target.
        start_time: Clock ticks since boot; with the pid it identifies the target.
        page_size: Bytes.
        epoch: None: the plan was made without a session.
        parent: None: the plan is complete.
        regions: In ascending order.
    """

    pid: int
    start_time: int
    page_size: int
    epoch: int | None
    parent: int | None
    regions: Sequence[PlanRegion]


def read_plan(stream: BinaryIO) -> BinaryPlan:
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
            PlanRegion(start, start + (word & ~ACTION_BITS), Action(word & ACTION_BITS))
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
