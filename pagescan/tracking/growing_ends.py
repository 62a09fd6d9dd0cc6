"""The growing ends of a target's mappings: not registered, but compared by content.

What grows beside a registered mapping is a mapping of its own, for ever: the kernel
joins two only where the flags are equal when the first page comes. What grows beside
memory that is not registered becomes one with it, and once it is registered it becomes
one with what is registered. So the end that grows is left out, and at each look moves:

    [heap]          its uppermost page, where it was seen to grow
    a reservation   the outermost page of what is used of it, likewise
    mmap'ed memory  what came since the look before

A border is put only where the target itself has put one: mremap(2) of a block with a
border in it fails. Of each page that is left out the session keeps a digest.
"""

from __future__ import annotations

import contextlib
import zlib
from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pagescan.model.mapping_set import (
    Chosen,
    bounds_of,
    has_no_room,
    is_whole,
    reserved_beside,
)
from pagescan.model.memory import DIGEST, PAGE_SIZE, Category, Kind, Mapping, Untracked
from pagescan.model.overlay import Interval, common
from pagescan.target.selection import cut
from pagescan.tracking.mapping_count import look_alike

if TYPE_CHECKING:
    from pagescan.native import Columns, Meter
    from pagescan.target.process import Target
    from pagescan.tracking.page_digests import PageDigests


LIMIT = 16 << 20
"""Bytes that are compared at most, of all ends of a target; what is more is tracked."""

NOTHING = bytes(DIGEST)
"""In place of a digest, of a page that was not populated."""

_LONGEST = 1 << 30  # bytes of an end that may be left out, with all its holes
# Bytes read of an end that does not grow until it is registered: a second of our time.
# For what grows after that leaves a mapping, and programs pause between two blocks.
_QUIET = 1 << 30
_FRAMES = 8  # pages that are asked for it
_TELLING = 2  # of them: as many as tell more than chance
_HEAP = "[heap]"

Pieces = list[Interval]


class End(NamedTuple):
    """A part of a target that is not registered, as it was at the last look.

    Attributes:
        start: Its first address.
        end: The address behind it.
        heap: Whether it is the end of `[heap]`.
        digests: Of each of its pages, zeros where there was none; end to end.
        frames: Page frames of its first pages; 0: none, or not to be seen.
        varied: Whether the first page holds more than one byte again and again.
        below: Whether a reservation ended where it starts.
        above: Whether a reservation began where it ends.
        read: Bytes of it that were compared since it grew.
    """

    start: int
    end: int
    heap: bool = False
    digests: bytes = b""
    frames: tuple[int, ...] = ()
    varied: bool = False
    below: bool = False
    above: bool = False
    read: int = 0

    def digest(self, address: int) -> bytes:
        """Return that of the page at an address."""
        at = length_of(address - self.start)
        return self.digests[at : at + DIGEST]

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes."""
        import binascii

        packed = zlib.compress(self.digests, 1)  # most may be holes
        return {**self._asdict(), "digests": binascii.b2a_base64(packed).decode()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Read what `to_json` gave; ValueError, KeyError or TypeError if it is not."""
        import binascii

        try:
            digests = zlib.decompress(binascii.a2b_base64(facts["digests"]))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return cls(**{**facts, "digests": digests, "frames": tuple(facts["frames"])})


class Moves(NamedTuple):
    """What a look that rearms does about the growing ends.

    Attributes:
        register: Parts of mappings, ascending.
        whole: Indices of the mappings that are registered whole.
        out: What stays out, or is left out from now on; without digests.
    """

    register: list[Mapping]
    whole: list[int]
    out: list[End]


class GrowingEnds:
    """Decides what of a target is left out, and tells what changed there.

    Attributes:
        known: What is left out, ascending; replaced by `settle`.
    """

    def __init__(self, target: Target, known: list[End], *, wanted: bool) -> None:
        """Go on with what is left out; `known` is changed in place.

        Args:
            target: The process.
            known: What is left out.
            wanted: Whether anything more may be left out.
        """
        self.target = target
        self.known = known
        self.wanted = wanted

    @cached_property
    def digests(self) -> PageDigests:
        """What reads the target's memory; loaded for targets that grow."""
        from pagescan.tracking.page_digests import PageDigests

        return PageDigests(self.target)

    @property
    def pieces(self) -> Pieces:
        """What is left out, as intervals."""
        return [(end.start, end.end) for end in self.known]

    def unreadable(self) -> tuple[Untracked, ...]:
        """Return the ends as ranges for which nothing can be promised."""
        why = "it grows, so its bytes are compared, and this user may not read them"
        return tuple(
            Untracked(end.start, end.end, _HEAP if end.heap else "[anon]", why)
            for end in self.known
        )

    def unchanged(self, populated: Columns, meter: Meter) -> Pieces:
        """Return the pages, as intervals, that are as they were at the last look.

        Args:
            populated: What of the ends is populated now.
            meter: What it costs is added here.

        Raises:
            OSError: This process may not read the target's memory.
        """
        same: Pieces = []
        for start, digests in self.digests.read(populated, meter):
            self._compare(start, digests, same)
        return same

    def plan(self, chosen: Chosen, new: frozenset[int], populated: Columns) -> Moves:
        """Decide what is registered now and what is left out; changes nothing.

        Args:
            chosen: The mappings that are tracked.
            new: Indices of those with populated pages that are neither registered nor
                known.
            populated: All that is populated and not registered.
        """
        starts, ends = bounds_of(chosen)
        of: dict[int, list[End]] = {index: [] for index in new}
        for end in self.known:
            index = bisect_right(ends, end.start)
            while index < len(chosen) and starts[index] < end.end:
                of.setdefault(index, []).append(end)
                index += 1
        moves = Moves([], [], [])
        can_leave = bool(of) and self.wanted and self.digests.can_read()
        for index in sorted(of):
            mapping = chosen[index]
            keep = None
            if can_leave and mapping.kind is Kind.ANON and is_whole(mapping, chosen):
                keep = self._keep(chosen, index, of[index], populated)
            if keep is None:
                moves.whole.append(index)
                moves.register.append(mapping)
                continue
            moves.out.append(keep)
            for low, high in ((mapping.start, keep.start), (keep.end, mapping.end)):
                if low < high:
                    moves.register.append(cut(mapping, low, high))
        return _within_limit(moves, chosen, populated)

    def settle(self, moves: Moves, populated: Columns, meter: Meter) -> Pieces:
        """Compare what was left out, and remember what is left out from now on.

        What is registered has to be protected by then: a store that comes later is
        seen by its page, and one that came before by its bytes.

        Args:
            moves: What was planned, and is done.
            populated: All that is populated and was not registered before.
            meter: What it costs is added here.

        Returns:
            The pages that are as they were, as intervals.
        """
        same: Pieces = []
        out = [(end.start, end.end) for end in moves.out]
        rooms = [bytearray(length_of(end - start)) for start, end in out]
        with contextlib.suppress(OSError):  # then nothing is left out any more
            wanted = common(populated, _union(out, self.pieces))
            for start, digests in self.digests.read(wanted, meter):
                self._compare(start, digests, same)
                stop = start + len(digests) // DIGEST * PAGE_SIZE
                for (low, high), room in zip(out, rooms, strict=True):
                    first, last = max(low, start), min(high, stop)
                    if first < last:
                        at = slice(length_of(first - low), length_of(last - low))
                        offset = length_of(first - start)
                        room[at] = digests[offset : offset + at.stop - at.start]
        grew = [end for end in self.known if end.heap]
        self.known[:] = [
            self._seen(end, bytes(room))
            for end, room in zip(moves.out, rooms, strict=True)
        ]
        if grew and not any(end.heap for end in self.known):
            self.known[:] = sorted([*self.known, grew[-1]])  # for `heap_without_edge`
        return same

    def heap_without_edge(self, chosen: Chosen) -> Mapping | None:
        """Return the uppermost page of a heap that has lost its edge; None: it has not.

        That is one which was seen to grow, and has shrunk.
        """
        if not any(end.heap for end in self.known):
            return None
        heaps = [mapping for mapping in chosen if mapping.name == _HEAP]
        if not heaps or not is_whole(heaps[-1], chosen):
            return None
        top = heaps[-1]
        if top.length == PAGE_SIZE or any(
            end.start < top.end and top.start < end.end for end in self.known
        ):
            return None
        return cut(top, top.end - PAGE_SIZE, top.end)

    def leave_out(self, page: Mapping, digest: bytes) -> None:
        """Remember that the uppermost page of the heap is not registered any more."""
        end = End(page.start, page.end, heap=True, digests=digest)
        others = [other for other in self.known if not other.heap]
        self.known[:] = sorted([*others, end])

    def _keep(
        self, chosen: Chosen, index: int, known: list[End], populated: Columns
    ) -> End | None:
        """Return what of a mapping is left out; None: nothing."""
        mapping = chosen[index]
        beside = chosen[max(0, index - 1) : index + 2]
        grew = any(look_alike(*pair) for pair in pairwise(beside))
        if mapping.name == _HEAP:
            is_top = all(other.name != _HEAP for other in chosen[index + 1 : index + 2])
            if is_top and (grew or any(end.heap for end in self.known)):
                return End(mapping.end - PAGE_SIZE, mapping.end, heap=True)
            return None
        may_grow = (known or grew) and not has_no_room(mapping, chosen.there)
        if mapping.name == "[stack]" or not may_grow:
            return None
        low, high, read = mapping.start, mapping.end, 0
        if known:
            first = max(known[0].start, mapping.start)
            last = min(known[-1].end, mapping.end)
            # What grows over a reservation is an allocator's: as a heap is.
            if first > low and known[0].below:
                high = low + PAGE_SIZE
            elif first == low and last < high and known[-1].above:
                low = high - PAGE_SIZE
            elif first > low and self._is_border(known[0]):
                high = first
            elif (first, last) == (low, high):
                there = common(populated, [(low, high)])
                read = max(end.read for end in known) + _length(there)
                on_swap = any(bits & Category.SWAPPED for bits in there.categories)
                if read > _QUIET or on_swap:
                    return None
        below, above = reserved_beside(low, high, chosen.there)
        return End(low, high, below=below, above=above, read=read)

    def _is_border(self, end: End) -> bool:
        """Whether the target's own border must be where an end starts, still.

        It was there at the last look. It may have gone since then, if the block above
        it was unmapped, and a larger one was mapped there. Then its page is another.
        """
        before = end.digest(end.start)
        if before == NOTHING or self._frames(end)[: len(end.frames)] != end.frames:
            return False
        # Of one page the frame may be the same by chance: the next one to be had.
        known = sum(map(bool, end.frames))
        if known == _FRAMES:
            return True
        if known < _TELLING and not end.varied:
            return False
        return self.digests.page(end.start)[0] == before

    def _seen(self, end: End, digests: bytes) -> End:
        """Return an end with all that the next look has to know of it."""
        if end.heap:
            return end._replace(digests=digests)
        varied = digests[:DIGEST] != NOTHING and self.digests.page(end.start)[1]
        return end._replace(digests=digests, frames=self._frames(end), varied=varied)

    def _frames(self, end: End) -> tuple[int, ...]:
        """Return the page frames of its first pages."""
        count = min(_FRAMES, (end.end - end.start) // PAGE_SIZE)
        return self.digests.frames(end.start, count)

    def _compare(self, start: int, digests: bytes, same: Pieces) -> None:
        """Add the pages that are as they were, of some that were read."""
        stop = start + len(digests) // DIGEST * PAGE_SIZE
        for end in self.known:
            low, high = max(start, end.start), min(stop, end.end)
            for page in range(low, high, PAGE_SIZE):
                at = length_of(page - start)
                if end.digest(page) != digests[at : at + DIGEST]:
                    continue
                if same and same[-1][1] == page:
                    same[-1] = same[-1][0], page + PAGE_SIZE
                else:
                    same.append((page, page + PAGE_SIZE))


def _within_limit(moves: Moves, chosen: Chosen, populated: Columns) -> Moves:
    """Register ends whole until what is left is not too much to compare.

    First those that are too much by themselves, then those that have not grown for
    longest: the others are more likely to grow again.
    """
    sizes = {
        end: _length(common(populated, [(end.start, end.end)])) for end in moves.out
    }
    out = [
        end
        for end in moves.out
        if end.end - end.start <= _LONGEST and sizes[end] <= LIMIT
    ]
    while sum(sizes[end] for end in out) > LIMIT:
        out.remove(max(out, key=lambda end: (end.read, sizes[end])))
    if len(out) == len(moves.out):
        return moves
    starts, _ = bounds_of(chosen)
    left = {end.start for end in moves.out} - {end.start for end in out}
    indices = {bisect_right(starts, start) - 1 for start in left}
    ranges = [(chosen[index].start, chosen[index].end) for index in indices]
    register = [
        part
        for part in moves.register
        if not any(low <= part.start < high for low, high in ranges)
    ]
    register += [chosen[index] for index in indices]
    return Moves(sorted(register), sorted({*moves.whole, *indices}), out)


def _length(columns: Columns) -> int:
    return sum(columns.ends) - sum(columns.starts)


def _union(one: Pieces, other: Pieces) -> Pieces:
    """Return the intervals that either list covers, ascending and disjoint."""
    found: Pieces = []
    for low, high in sorted([*one, *other]):
        if found and low <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return found


def length_of(size: int) -> int:
    """Return how long the digests of so many bytes of memory are."""
    return size // PAGE_SIZE * DIGEST
