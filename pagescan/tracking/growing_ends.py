"""The growing ends of a target's mappings: compared by content, not registered.

Memory that grows beside a registered mapping becomes a separate mapping, for ever: the
kernel joins two only if their flags are equal when the first page is populated. Memory
that grows beside unregistered memory is joined with it, and later, when it is
registered, also with its registered neighbour. So the growing end is left out, and
moves at each look:

    [heap]          its uppermost page, after it was seen to grow
    a reservation   the outermost page of its used part, after it was seen to grow
    mmap'ed memory  the growth since the previous look

A border is put only where the target itself has put one, because mremap(2) of a block
fails if there is a border in it. The session stores a digest of each page left out.
"""

from __future__ import annotations

import contextlib
import zlib
from bisect import bisect_right
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pagescan import native
from pagescan.model.mapping_set import (
    MappingSet,
    has_no_room,
    is_whole,
    look_alike,
    reserved_beside,
)
from pagescan.model.memory import DIGEST, PAGE_SIZE, Category, Kind, Mapping, Untracked
from pagescan.model.ranges import Interval, length_of, ranges_of
from pagescan.target.maps import begins
from pagescan.target.selection import cut

if TYPE_CHECKING:
    from pagescan.native import Columns, Meter
    from pagescan.target.process import Target
    from pagescan.tracking.page_digests import PageDigests

LIMIT = 16 << 20
"""Limit of bytes that are compared, over all ends of a target; the rest is tracked."""

NOTHING = bytes(DIGEST)
"""The digest of a page that was not populated."""

_LONGEST = 1 << 30  # limit of an end's length, with all its holes
# Bytes read of an end that does not grow before it is registered: one second of work.
# Growth after that leaves a mapping, and programs pause between two blocks.
_QUIET = 1 << 30
_FRAMES = 8  # pages of an end whose frames are compared
_TELLING = 2  # equal frames that prove more than chance
_HEAP = "[heap]"

Pieces = list[Interval]


class End(NamedTuple):
    """A part of a target that is not registered, in its state of the last look.

    Attributes:
        start: Its first address.
        end: The address behind it.
        heap: Whether it is the end of `[heap]`.
        digests: One digest per page, end to end; zeros for unpopulated pages.
        frames: Page frames of its first pages; 0: not populated, or hidden.
        varied: Whether the first page is not the same byte throughout.
        below: Whether a reservation ended at its start.
        above: Whether a reservation began at its end.
        read: Bytes of it that were compared since its last growth.
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
        """Return the digest of the page at an address."""
        at = digest_bytes(address - self.start)
        return self.digests[at : at + DIGEST]

    def to_json(self) -> dict[str, Any]:
        """Return the form that `from_json` reads."""
        import binascii

        packed = zlib.compress(self.digests, 1)  # most of them may be holes
        return {**self._asdict(), "digests": binascii.b2a_base64(packed).decode()}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Read that form; ValueError, KeyError or TypeError if it is malformed."""
        import binascii

        try:
            digests = zlib.decompress(binascii.a2b_base64(facts["digests"]))
        except zlib.error as error:
            raise ValueError(str(error)) from error
        return cls(**{**facts, "digests": digests, "frames": tuple(facts["frames"])})


class Moves(NamedTuple):
    """The decisions of a rearming look about the growing ends.

    Attributes:
        register: Parts of mappings, ascending.
        whole: Indices of the mappings that are registered whole.
        out: The parts that stay out or are now left out, without digests.
    """

    register: list[Mapping]
    whole: list[int]
    out: list[End]


class GrowingEnds:
    """Decides which parts of a target are left out, and detects changes there.

    Attributes:
        known: The parts that are left out, ascending; `settle` replaces them.
    """

    def __init__(self, target: Target, known: list[End], *, wanted: bool) -> None:
        """Continue with the given parts; `known` is changed in place.

        Args:
            target: The process.
            known: The parts that are left out.
            wanted: Whether more parts may be left out.
        """
        self.target = target
        self.known = known
        self.wanted = wanted

    @cached_property
    def digests(self) -> PageDigests:
        """The reader of the target's memory; loaded only if the target grows."""
        from pagescan.tracking.page_digests import PageDigests

        return PageDigests(self.target)

    @property
    def pieces(self) -> Pieces:
        """The parts that are left out, as intervals."""
        return [(end.start, end.end) for end in self.known]

    def unreadable(self) -> tuple[Untracked, ...]:
        """Return the ends as untracked ranges, if they cannot be read."""
        why = "it grows, so its bytes would be compared; this user may not read them"
        return tuple(
            Untracked(end.start, end.end, _HEAP if end.heap else "[anon]", why)
            for end in self.known
        )

    def unchanged(self, populated: Columns, meter: Meter) -> Pieces:
        """Return the pages, as intervals, that are unchanged since the last look.

        Args:
            populated: The populated pages of the ends.
            meter: The cost is added to it.

        Raises:
            OSError: This process may not read the target's memory.
        """
        same: Pieces = []
        for start, digests in self.digests.read(populated, meter):
            self._compare(start, digests, same)
        return same

    def plan(
        self, chosen: MappingSet, new: frozenset[int], populated: Columns
    ) -> Moves:
        """Decide which parts are registered now and which left out; changes nothing.

        Args:
            chosen: The tracked mappings.
            new: Indices of those with populated pages that are neither registered nor
                known.
            populated: All populated pages that are not registered.
        """
        starts, ends = chosen.bounds
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
        """Compare the parts left out, and remember those that are left out now.

        The registered memory must be protected before this call: a later store is then
        seen by its page, and an earlier one by its bytes.

        Args:
            moves: The decisions, already carried out.
            populated: All populated pages that were not registered before.
            meter: The cost is added to it.

        Returns:
            The unchanged pages, as intervals.
        """
        same: Pieces = []
        out = [(end.start, end.end) for end in moves.out]
        rooms = [bytearray(digest_bytes(end - start)) for start, end in out]
        # if unreadable, nothing is left out any more
        with contextlib.suppress(OSError):
            wanted = native.inside(populated, *ranges_of([*out, *self.pieces]))
            for start, digests in self.digests.read(wanted, meter):
                self._compare(start, digests, same)
                stop = start + len(digests) // DIGEST * PAGE_SIZE
                for (low, high), room in zip(out, rooms, strict=True):
                    first, last = max(low, start), min(high, stop)
                    if first < last:
                        at = slice(digest_bytes(first - low), digest_bytes(last - low))
                        offset = digest_bytes(first - start)
                        room[at] = digests[offset : offset + at.stop - at.start]
        grew = [end for end in self.known if end.heap]
        self.known[:] = [
            self._seen(end, bytes(room))
            for end, room in zip(moves.out, rooms, strict=True)
        ]
        if grew and not any(end.heap for end in self.known):
            self.known[:] = sorted([*self.known, grew[-1]])  # for `heap_without_edge`
        return same

    def heap_without_edge(self, chosen: MappingSet) -> Mapping | None:
        """Return the uppermost page of a heap that has grown, and shrunk; or None."""
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
        """Remember that the uppermost page of the heap is no longer registered."""
        end = End(page.start, page.end, heap=True, digests=digest)
        others = [other for other in self.known if not other.heap]
        self.known[:] = sorted([*others, end])

    def _keep(
        self, chosen: MappingSet, index: int, known: list[End], populated: Columns
    ) -> End | None:
        """Return the part of a mapping that is left out, or None."""
        mapping = chosen[index]
        beside = chosen[max(0, index - 1) : index + 2]
        grew = any(look_alike(*pair) for pair in pairwise(beside))
        if mapping.name == _HEAP:
            is_top = all(other.name != _HEAP for other in chosen[index + 1 : index + 2])
            if is_top and (grew or any(end.heap for end in self.known)):
                return End(mapping.end - PAGE_SIZE, mapping.end, heap=True)
            return None
        # Lost room beside a reservation does not come back; elsewhere it does.
        was_edge = bool(known) and (known[0].below or known[-1].above)
        is_over = was_edge and has_no_room(mapping, chosen.all_mappings)
        if mapping.name == "[stack]" or is_over or not (known or grew):
            return None
        low, high, read = mapping.start, mapping.end, 0
        if known:
            first = max(known[0].start, mapping.start)
            last = min(known[-1].end, mapping.end)
            # Memory that grows over a reservation belongs to an allocator, like a heap.
            if first > low and known[0].below:
                high = low + PAGE_SIZE
            elif first == low and last < high and known[-1].above:
                low = high - PAGE_SIZE
            elif first > low and self._is_border(known[0]):
                high = first
            elif (first, last) == (low, high):
                pages = native.inside(populated, *ranges_of([(low, high)]))
                read = max(end.read for end in known) + length_of(pages)
                on_swap = any(bits & Category.SWAPPED for bits in pages.categories)
                if read > _QUIET or on_swap:
                    return None
        below, above = reserved_beside(low, high, chosen.all_mappings)
        return End(low, high, below=below, above=above, read=read)

    def _is_border(self, end: End) -> bool:
        """Whether the target's own border must still be at the start of an end.

        It was there at the last look. It is gone if the block above was unmapped and a
        larger one mapped there. Then the page at that address is a different page.
        """
        page, now = _first_populated(end), self.frames(end)
        if page is None or len(now) != len(end.frames):
            return False
        pairs = zip(end.frames, now, strict=True)
        if any(before not in (0, after) for before, after in pairs):
            return False
        # A single page may get the same frame by chance: the next free one.
        known = sum(map(bool, end.frames))
        if known == _FRAMES:
            return True
        if known < _TELLING and not end.varied:
            return False
        return self.digests.page(page)[0] == end.digest(page)

    def _seen(self, end: End, digests: bytes) -> End:
        """Return an end with all the facts that the next look needs."""
        end = end._replace(digests=digests)
        if end.heap:
            return end
        page = _first_populated(end)
        varied = page is not None and self.digests.page(page)[1]
        end = end._replace(frames=self.frames(end), varied=varied)
        # If another block has been moved there, its pages do not prove a border.
        return end if begins(self.target, end.start) else end._replace(frames=())

    def frames(self, end: End) -> tuple[int, ...]:
        """Return the page frames of the first pages of an end."""
        count = min(_FRAMES, (end.end - end.start) // PAGE_SIZE)
        return self.digests.frames(end.start, count)

    def _compare(self, start: int, digests: bytes, same: Pieces) -> None:
        """Add those of the read pages that are unchanged."""
        stop = start + len(digests) // DIGEST * PAGE_SIZE
        for end in self.known:
            low, high = max(start, end.start), min(stop, end.end)
            for page in range(low, high, PAGE_SIZE):
                at = digest_bytes(page - start)
                if end.digest(page) != digests[at : at + DIGEST]:
                    continue
                if same and same[-1][1] == page:
                    same[-1] = same[-1][0], page + PAGE_SIZE
                else:
                    same.append((page, page + PAGE_SIZE))


def _first_populated(end: End) -> int | None:
    """Return the first populated page near its start: some pools begin with a hole."""
    pages = range(end.start, min(end.end, end.start + _FRAMES * PAGE_SIZE), PAGE_SIZE)
    return next((page for page in pages if end.digest(page) != NOTHING), None)


def _within_limit(moves: Moves, chosen: MappingSet, populated: Columns) -> Moves:
    """Mark ends as registered whole until the rest is within the limit.

    First come ends that exceed it by themselves, then those without growth for the
    longest time, because the others are more likely to grow again.
    """
    sizes = {
        end: length_of(native.inside(populated, *ranges_of([(end.start, end.end)])))
        for end in moves.out
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
    starts, _ = chosen.bounds
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


def digest_bytes(size: int) -> int:
    """Return the length of the digests of that many bytes of memory."""
    return size // PAGE_SIZE * DIGEST
