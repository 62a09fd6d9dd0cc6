"""Reads the populated memory of one process, by kind and state, again and again."""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping as Dict, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import NamedTuple, Self

from pagescan import native
from pagescan.exporter.metrics import (
    OF_FILE,
    SHOWN,
    STATES,
    State,
    kind_of,
    state_of,
)
from pagescan.model.errors import NoSuchTargetError, PagescanError, TargetError
from pagescan.model.mapping_set import MappingSet, NamedScan
from pagescan.model.memory import Category, Kind, Mapping
from pagescan.model.ranges import Ranges
from pagescan.native import Pace, Rule, Spans
from pagescan.scanner.counts import swapped_of_file
from pagescan.scanner.query import Query
from pagescan.scanner.rules import query_rule
from pagescan.scanner.scanner import Scanner
from pagescan.scanner.spans import spans_of
from pagescan.target.group import Member
from pagescan.target.kernel import known_categories, swap_in_use
from pagescan.target.maps import Reader
from pagescan.target.process import Target
from pagescan.target.shared_files import devices_in_memory

_BITS = tuple((state.category.bit_length() - 1, state) for state in State)

_KEPT = 500
"""At most this many processes stay open between readings: each takes 60 KiB."""

FileKey = tuple[tuple[int, int], int, int, int]
"""A mapped part of a file: device, inode, offset, length."""
Key = tuple[str, State]
"""Kind and state."""
Bytes = dict[Key, int]
Pairs = tuple[tuple[Key, int], ...]
"""The same as Bytes, in less memory."""

_KEYS = {key: key for key in itertools.product(STATES, State)}
"""The one object of each key, for all processes."""


@dataclass(slots=True)
class Populated:
    """The populated memory of a group; `add` adds the processes one by one.

    Attributes:
        own: The bytes of pages that belong to one process only.
        files: The bytes of pages that belong to files, by the mapped part of the file.
            Several processes may map it: it counts once, as in the process that has
            most of it.
        shared_swap: Whether the swap of shared memory is known.
    """

    own: Bytes = field(default_factory=dict)
    files: dict[FileKey, Pairs] = field(default_factory=dict)
    shared_swap: bool = True

    def add(self, other: "Populated") -> None:
        """Add the memory of one process."""
        self.shared_swap &= other.shared_swap
        for key, count in other.own.items():
            self.own[key] = self.own.get(key, 0) + count
        for file, counts in other.files.items():
            if _bytes_of(counts) > _bytes_of(self.files.get(file, ())):
                self.files[file] = counts

    def total(self) -> Bytes:
        """Return the sums by kind and state."""
        total = dict(self.own)
        for key, count in itertools.chain.from_iterable(self.files.values()):
            total[key] = total.get(key, 0) + count
        return total

    def add_to_file(self, file: FileKey, more: Iterable[tuple[Key, int]]) -> None:
        """Add pages of a file that one process maps, in bytes."""
        known = self.files.get(file)
        if known is None:
            self.files[file] = tuple(more)
            return
        sums = dict(known)
        for key, count in more:
            sums[key] = sums.get(key, 0) + count
        self.files[file] = tuple(sums.items())


def _bytes_of(counts: Pairs) -> int:
    return sum(count for _, count in counts)


class _Place(NamedTuple):
    """The kind, or the file, to which the pages of a mapping are added."""

    kind: str
    file: FileKey | None


class _Mapped(NamedTuple):
    """The part of the mappings that a reading needs: a tenth of their memory.

    Attributes:
        bounds: Where each mapping begins and ends.
        places: Where its pages count.
        spans: The ranges to scan.
        rules: The rules to scan them by.
        shared: The mappings of shared memory whose swap is counted by their files.
    """

    bounds: Ranges
    places: Sequence[_Place]
    spans: Spans
    rules: Sequence[Rule]
    shared: Sequence[Mapping]


class ProcessReader:
    """Reads one process; keeps it open, with data that the next reading can use again.

    A context manager that closes the process.

    Attributes:
        member: The process.
        target: The open target of this process.
    """

    def __init__(self, member: Member, target: Target, pace: Pace) -> None:
        """Take over an open target; only `open` calls this."""
        self.member = member
        self.target = target
        self._scanner = Scanner(target, pace, threads=1)
        self.scans: dict[str, NamedScan] = {}  # see scanner.Keeper
        self._maps = Reader(target)
        self._mapped: _Mapped | None = None
        self._swap = False  # whether it was made for a machine with swap
        self._found = native.Columns.empty()
        self._last = Populated()

    @classmethod
    def open(cls, member: Member, pace: Pace) -> Self:
        """Open a process.

        Raises:
            TargetError: It has ended, or cannot be looked at.
            AccessDeniedError: This user may not look at it.
        """
        target = Target.open(member.pid, start_time=member.start_time)
        return cls(member, target, pace)

    def read(self, *, swap: bool) -> Populated:
        """Return the populated memory.

        Args:
            swap: Whether this machine has swap.

        Raises:
            TargetError: It has ended, or runs another program.
        """
        with native.keeping_the_processor(self._scanner.pace):
            changed, mapped = self._follow(swap=swap)
            found = self._scanner.scan_ranges(
                mapped.spans, mapped.rules, kept_as=(self, "populated")
            )
        if not swap and not changed and found == self._found:
            return self._last  # a quiet process
        self._found, self._last = found, self._interpret(found, mapped)
        if swap:
            self._add_shared_swap(self._last, mapped)
        return self._last

    def _interpret(self, found: native.Columns, mapped: _Mapped) -> Populated:
        """Return the bytes of populated regions by kind and state."""
        labels = {bits: int(state_of(bits).category) for bits in set(found.categories)}
        states = native.relabel(found, labels)
        parts, owners = native.join(states, *mapped.bounds)
        size = self.target.facts.page_size
        places = mapped.places
        pages, counts = native.tally(parts, owners, size, len(places))
        populated = Populated()
        for index, (count, place) in enumerate(zip(pages, places, strict=True)):
            if count:
                at = index * native.CATEGORY_BITS
                self._count(populated, place, counts[at : at + native.CATEGORY_BITS])
        return populated

    def take_hold(self) -> float:
        """Return the longest time, in seconds, that one call held the mmap lock."""
        return self._scanner.take_cost().max_wait_ns / 1e9

    def _follow(self, *, swap: bool) -> tuple[bool, _Mapped]:
        """Read the mappings; unchanged ones keep their prepared scan.

        Returns:
            Whether they have changed, and what the scan needs of them.
        """
        if swap != self._swap:
            self._swap = swap
            self._maps.forget()
        mappings = self._maps.read_changed()
        if mappings is None and self._mapped is not None:
            return False, self._mapped
        self._mapped = _mapped(mappings or (), swap=swap)
        self.scans.clear()
        return True, self._mapped

    def _count(
        self, populated: Populated, place: _Place, counts: Sequence[int]
    ) -> None:
        """Add the pages of one mapping."""
        size = self.target.facts.page_size
        kind, file = place
        own, of_file = populated.own, []
        for bit, state in _BITS:
            if count := counts[bit]:
                key = _KEYS[kind, state]
                if file is not None and state in OF_FILE:
                    of_file.append((key, count * size))
                else:
                    own[key] = own.get(key, 0) + count * size
        if file is not None and of_file:
            populated.add_to_file(file, of_file)

    def _add_shared_swap(self, populated: Populated, mapped: _Mapped) -> None:
        """Add the swap of shared memory, which the page table does not show."""
        size = self.target.facts.page_size
        for mapping in mapped.shared:
            file = _file_of(mapping)
            try:
                pages = swapped_of_file(self.target, mapping)
            except OSError:  # it needs CAP_CHECKPOINT_RESTORE
                populated.shared_swap = False
                continue
            if file is not None:
                key = _KEYS["shmem", State.SWAPPED]
                populated.add_to_file(file, [(key, pages * size)])

    def close(self) -> None:
        """Close the process."""
        self.target.close()


def _mapped(mappings: Sequence[Mapping], *, swap: bool) -> _Mapped:
    """Return what a reading needs of mappings."""
    memory = devices()
    kinds = [kind_of(mapping, memory) for mapping in mappings]
    pairs = [
        (mapping, kind) for mapping, kind in zip(mappings, kinds, strict=True) if kind
    ]
    selected = MappingSet(mapping for mapping, _ in pairs)
    known = known_categories()
    query = Query(
        any_of=(Category.PRESENT | Category.SWAPPED) & known,
        returned=SHOWN & known,
    )
    rules = {
        key: rule
        for key in selected.kinds
        if (rule := query_rule(key[0], query, key[1], in_use=swap)) is not None
    }
    return _Mapped(
        selected.bounds,
        tuple(_place(kind, _file_of(mapping)) for mapping, kind in pairs),
        spans_of(selected, {key: index for index, key in enumerate(rules)}),
        tuple(rules.values()),
        tuple(
            mapping
            for mapping, kind in pairs
            if kind == "shmem" and mapping.inode and mapping.kind is Kind.SHARED
        ),
    )


@lru_cache(maxsize=2048)
def _place(kind: str, file: FileKey | None) -> _Place:
    """Return the one object for a place: most files are mapped by many processes."""
    return _Place(kind, file)


def _file_of(mapping: Mapping) -> FileKey | None:
    """Return the mapped part of a file, by which several processes share it."""
    if not mapping.inode:
        return None
    return mapping.device, mapping.inode, mapping.offset, mapping.length


@cache
def devices() -> frozenset[tuple[int, int]]:
    """Return major and minor number of the devices of files in memory."""
    return frozenset(
        (os.major(device), os.minor(device)) for device in devices_in_memory()
    )


class Readers:
    """The open processes of all groups; processes that have left them are closed.

    Processes beyond a limit are opened again for each reading.

    Attributes:
        hold: The longest time, in seconds, that one call held a process's mmap lock,
            since the last call of `begin`.
        unread: Processes that could not be read since then, and the reasons.
    """

    def __init__(self, pace: Callable[[], Pace]) -> None:
        """Begin without open processes; each will have its own pace."""
        self._pace = pace
        self._open: dict[tuple[int, int], ProcessReader] = {}
        self.hold = 0.0
        self.unread: dict[Member, str] = {}
        self._swap = False

    def begin(self, members: Dict[tuple[int, int], Member]) -> None:
        """Begin to read these processes, by pid and start time; close all others."""
        self.hold, self.unread = 0.0, {}
        self._swap = swap_in_use()
        for key in self._open.keys() - members.keys():
            self._open.pop(key).close()

    @property
    def swap(self) -> bool:
        """Whether the machine has swap, since the last call of `begin`."""
        return self._swap

    def read(self, member: Member) -> Populated | None:
        """Return the populated memory of a process; None: it ended, or is `unread`."""
        try:
            try:
                return self._read(member)
            except NoSuchTargetError:
                raise
            except TargetError:  # an exec: the new program is read
                self._forget(member)
                return self._read(member)
        except NoSuchTargetError:
            self._forget(member)
        except PagescanError as error:
            self._forget(member)
            self.unread[member] = str(error)
        return None

    def _read(self, member: Member) -> Populated:
        reader = self._open.get(member.key)
        if reader is None:
            reader = ProcessReader.open(member, self._pace())
            self._open[member.key] = reader
        try:
            return reader.read(swap=self._swap)
        finally:
            self.hold = max(self.hold, reader.take_hold())
            if len(self._open) > _KEPT:
                self._forget(member)

    def _forget(self, member: Member) -> None:
        if reader := self._open.pop(member.key, None):
            reader.close()

    def close(self) -> None:
        """Close all processes."""
        while self._open:
            self._open.popitem()[1].close()
