"""Finds the pages that a block of code in this process writes; needs no privileges.

    with pagescan.written_pages() as written:
        work()
    print(written.pages)

Both ends of the block are scans prepared in advance, so that few of pagescan's own
stores fall into it. Protecting is the last step before the block; recording the
unprotected pages is the first step behind it. All other work comes later.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan import native
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.results import Cost
from pagescan.target import maps as mappings
from pagescan.target.process import Target
from pagescan.target.selection import Selection

# Loaded now: a process without a free descriptor can load nothing later.
from pagescan.tracking import attach as _attach  # noqa: F401
from pagescan.tracking.block_scans import UNPACED, BlockTracking

if TYPE_CHECKING:
    from types import TracebackType

    from pagescan.model.batch import Batch
    from pagescan.model.memory import Region, Untracked
    from pagescan.model.results import MappingCounts
    from pagescan.native import Columns


class _Answer(NamedTuple):
    """The result of one block; its fields are the properties of `WrittenPages`."""

    batch: Batch
    untracked: tuple[Untracked, ...]
    cost: Cost


class Block:
    """One open block, with the scans that begin and end it.

    Attributes:
        selection: The ranges that its answer covers.
        tracking: The tracking that all open blocks share.
        prepared: Its scans.
        earlier: Its pages that other blocks have collected and re-protected.
        pid: The process in which it began.
    """

    def __init__(self, selection: Selection, tracking: BlockTracking) -> None:
        """Prepare the scans."""
        self.selection = selection
        self.tracking = tracking
        self.prepared = tracking.prepare()
        self.earlier: list[Columns] = []
        self.pid = os.getpid()


class OwnWrites:
    """The open blocks of this process, in the order in which they began.

    There is one such object per process. Blocks of several threads may end in any
    order. They share one userfaultfd, because memory can have only one. So pages that
    one block collects and re-protects are credited to all open blocks.

    Attributes:
        lock: Held while a block begins or ends.
        blocks: The open blocks.
    """

    def __init__(self) -> None:
        """Start without blocks."""
        self.forget()

    def forget(self) -> None:
        """Reset to no blocks; also in a forked child, whose memory is not tracked."""
        self.lock = threading.Lock()
        self.blocks: list[Block] = []

    def begin(self, selection: Selection) -> Block:
        """Return a new block, open and not protected yet.

        Raises:
            UsageError: Its ranges are malformed, or not those of the open blocks.
            PagescanError: This process cannot be tracked.
        """
        if not self.blocks:
            tracking = _armed(selection)
            try:
                block = Block(selection, tracking)
            except BaseException:
                tracking.end()
                raise
        else:
            tracking = self.blocks[-1].tracking
            _check_within(selection, tracking)
            self._credit(tracking.bank())
            block = Block(selection, tracking)
        self.blocks.append(block)
        return block

    def credit_protected(self, block: Block) -> None:
        """Credit the pages that a block has protected to the blocks around it."""
        if self.blocks[0] is not block:
            regions = block.tracking.result_of(block.prepared.protect)
            self._credit(regions, besides=block)

    def answer(self, block: Block) -> _Answer:
        """Return the pages that a block has written, after its last scans."""
        tracking = block.tracking
        written, fresh = tracking.take_stock(block.prepared)
        for columns in block.earlier:
            written = native.overlay(columns, written, outside=True)
        return _Answer(
            tracking.batch(written, fresh, block.selection),
            tuple(tracking.armed.untracked),
            tracking.cost + tracking.scanner.take_cost(),
        )

    def end(self, block: Block) -> None:
        """Close a block; the last one ends the tracking."""
        self.blocks.remove(block)
        if not self.blocks:
            block.tracking.end()

    def _credit(self, regions: Columns, besides: Block | None = None) -> None:
        """Credit pages that were collected and re-protected to the open blocks."""
        for block in self.blocks:
            if block is not besides:
                block.earlier.append(regions)


own_writes = OwnWrites()
os.register_at_fork(after_in_child=own_writes.forget)


class WrittenPages:
    """The pages that a block of code wrote; a context manager, for one block.

    The answer is available after the block, also if an exception ended it. Blocks
    nest: an outer block also lists the pages of its inner blocks. Stores of all threads
    count. A child forked in the block has no answer, and does not change its parent's.

    Examples:
        >>> import pagescan
        >>> buffer = bytearray(1 << 20)
        >>> with pagescan.written_pages() as written:
        ...     buffer[5000] = 1
        >>> written.pages >= 1
        True
    """

    def __init__(self, ranges: Iterable[str] | None = None) -> None:
        """Take RANGE words, as the commands take them; None: everything."""
        self._selection = Selection.parse(ranges or ())
        self._block: Block | None = None
        self._answer: _Answer | None = None
        self._is_used = False
        self._why = "the block has not begun"

    def __enter__(self) -> Self:
        if self._is_used:
            raise UsageError("this written_pages() was already used for a block")
        with own_writes.lock:
            self._block = block = own_writes.begin(self._selection)
            self._is_used = True
            self._why = "the block is not over yet"
            block.prepared.protect.run()
            own_writes.credit_protected(block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        block = self._block
        if block is None:
            return
        if block.pid != os.getpid():
            self._why = "this process was forked in the block: it is not tracked"
            block.tracking.end()
            return
        with own_writes.lock:
            block.prepared.unprotected.run()
            block.prepared.outside.run()
            # If the block raised, its exception takes precedence over ours.
            quiet = contextlib.suppress(*([PagescanError] if error else []))
            try:
                with quiet:
                    self._answer = own_writes.answer(block)
            finally:
                own_writes.end(block)
                self._block = None

    @property
    def batch(self) -> Batch:
        """The written pages as columns: see `Batch`.

        Raises:
            PagescanError: The block is not over, or this is a child forked in it.
        """
        return self._known_answer().batch

    @property
    def pages(self) -> int:
        """How many pages were written."""
        return self.batch.summary().pages

    @property
    def bytes(self) -> int:
        """The written pages in bytes: whole pages count."""
        return self.batch.summary().bytes

    @property
    def untracked(self) -> tuple[Untracked, ...]:
        """The parts of the selection that were not tracked, and why.

        Raises:
            PagescanError: As for `batch`.
        """
        return self._known_answer().untracked

    @property
    def cost(self) -> Cost:
        """The cost of arming and scanning; no thread was stopped."""
        return self._answer.cost if self._answer else Cost()

    def regions(self) -> Iterator[Region]:
        """Yield the written regions, ascending."""
        return self.batch.regions()

    def by_mapping(self) -> list[MappingCounts]:
        """Return the mappings that were written to, with their page counts."""
        return self.batch.by_mapping()

    def __repr__(self) -> str:
        answer = self._answer
        return f"<WrittenPages: {answer.batch if answer else self._why}>"

    def _known_answer(self) -> _Answer:
        if self._answer is None:
            raise PagescanError(f"there is no answer: {self._why}")
        return self._answer


def written_pages(ranges: Iterable[str] | None = None) -> WrittenPages:
    """Return a context manager that finds the pages its block of code writes.

    Args:
        ranges: RANGE words, as the commands take them; None: everything.

    Raises:
        PagescanError: When the block begins, for the reasons of `track`.

    Examples:
        >>> import pagescan
        >>> with pagescan.written_pages() as written:
        ...     data = bytearray(b"x") * (1 << 20)
        >>> written.bytes >= 1 << 20
        True
    """
    return WrittenPages(ranges)


def _armed(selection: Selection) -> BlockTracking:
    """Arm this process."""
    target = Target.open(os.getpid())
    try:
        mappings.check_selection(selection, target)
        return BlockTracking.start(target, selection, pace=UNPACED)
    except BaseException:
        target.close()
        raise


def _check_within(selection: Selection, tracking: BlockTracking) -> None:
    """Raise if an inner block cannot have its ranges in the tracking of the outer."""
    outer = tracking.armed.selection
    if not outer.everything and outer != selection:
        raise UsageError(
            "an inner written_pages() cannot have other ranges than the outer one",
            hint="give the outer one no ranges, or give both the same ranges",
        )
    mappings.check_selection(selection, tracking.target)
