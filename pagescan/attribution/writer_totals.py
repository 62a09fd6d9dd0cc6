"""Adds up the pages and the writers of looks: in total, and by source."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

from pagescan.model.memory import PAGE_SIZE

if TYPE_CHECKING:
    from pagescan.attribution.symbols import Name, Symbols
    from pagescan.model.batch import Batch
    from pagescan.model.memory import Mapping
    from pagescan.native import Writers

TID_MASK = (1 << 32) - 1


class Place(NamedTuple):
    """The mapping that was written to: its name, and what it is for, if known."""

    name: str
    label: str | None = None


GONE = Place("(unmapped since)")
SourceKey = tuple[int, int, int, int]
"""The address of the code, the thread, the number of the place that was written to, and
the number of the chain of callers."""


MOST_UNLABELLED = 4096
"""Mappings without a label that have a number of their own."""


class Places:
    """The places of one program, by number.

    A mapping may get its label late, as the stack of a thread does that was running. It
    keeps its number then, so that earlier writes to it have the label, too.
    """

    def __init__(self) -> None:
        """Begin with no place."""
        self._places: list[Place] = []
        self._numbers: dict[Place, int] = {}
        self._unlabelled: dict[int, int] = {}  # by the start of the mapping

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def number(self, place: Place) -> int:
        """Return the number that all mappings with this name and label have."""
        number = self._numbers.setdefault(place, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        return number

    def may_learn(self, mapping: Mapping) -> bool:
        """Whether a mapping had no label when it was written to."""
        return mapping.start in self._unlabelled

    def number_of(self, mapping: Mapping, label: str | None) -> int:
        """Return the number of a mapping; `label`: what is known of it now."""
        place = Place(mapping.label, label)
        number = self._unlabelled.get(mapping.start)
        if number is None:
            if label or mapping.inode or len(self._unlabelled) >= MOST_UNLABELLED:
                return self.number(place)
            number = self._unlabelled[mapping.start] = len(self._places)
            self._places.append(place)
            return number
        before = self._places[number]
        if before.name == place.name and before.label is None:
            self._places[number] = before = place
        same = before.name == place.name and label in (before.label, None)
        return number if same else self.number(place)


class WriterTotals:
    """Pages of all looks so far.

    Attributes:
        lost: Pages without a sample, up to the number of samples that were lost
            before their look.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ticks = self.samples = 0
        self.written = self.attributed = self.ambiguous = self.lost = 0

    def add(self, batch: Batch, joined: Writers, lost: int) -> int:
        """Add a look and its writers; return how many pages may be among the lost.

        Args:
            batch: The written pages.
            joined: Their writers.
            lost: Samples lost since the previous look.
        """
        pages = batch.summary().pages
        self.ticks += 1
        self.written += pages
        self.attributed += joined.attributed
        self.ambiguous += joined.ambiguous
        missing = min(lost, pages - joined.attributed)
        self.lost += missing
        return missing

    def __iadd__(self, other: WriterTotals) -> Self:
        """Add the pages of another process; its ticks are the same."""
        self.written += other.written
        self.attributed += other.attributed
        self.ambiguous += other.ambiguous
        self.lost += other.lost
        return self


class Era:
    """The writes of one program of the process; an exec begins the next era.

    Attributes:
        symbols: The names of its code.
        pages: Pages by source.
        places: The places that were written to.
        latest: The latest source of each page and its place, by address; None: it had
            no sample.
        fresh_threads: Threads that have written since the caller emptied this set.
        callers: Names of the callers, by the number of their chain.
        is_named: Whether all code has its final name.
    """

    def __init__(self, symbols: Symbols) -> None:
        """Begin with nothing written."""
        self.symbols = symbols
        self.pages: dict[SourceKey, int] = {}
        self.places = Places()
        self.latest: dict[int, tuple[SourceKey | None, int]] = {}
        self.fresh_threads: set[int] = set()
        self.callers: dict[int, tuple[str, ...]] = {}
        self._threads: set[int] = set()
        self._final: dict[int, Name] | None = None

    @property
    def is_named(self) -> bool:
        """Whether `finish` was called."""
        return self._final is not None

    def finish(self) -> None:
        """Name all code for good, and close the files."""
        if self._final is None:
            self._final = self.names()
            self.symbols.forget()

    def add(self, batch: Batch, joined: Writers, *, runs: bool) -> None:
        """Add the writers of a look; with `runs`, remember them per page."""
        labels = batch.labels
        owned = [batch.owners[region] for region in joined.regions]
        written = set(owned)
        known = {-1: self.places.number(GONE)}
        for owner, one in enumerate(batch.mappings):
            if owner in written or self.places.may_learn(one):
                known[owner] = self.places.number_of(one, labels.get(one.start))
        places = [known[owner] for owner in owned]
        pages = self.pages
        for source, _, start, end in _runs(joined, places):
            if source is not None:
                pages[source] = pages.get(source, 0) + (end - start) // PAGE_SIZE
        tids = {thread & TID_MASK for thread in set(joined.threads) - {0}}
        self.fresh_threads |= tids - self._threads
        self._threads |= tids
        if runs:
            self._remember(joined, places)

    def _remember(self, joined: Writers, places: Sequence[int]) -> None:
        for source, place, start, end in _runs(joined, places):
            for page in range(start, end, PAGE_SIZE):
                self.latest[page] = source, place

    def names(self) -> dict[int, Name]:
        """Return the names of all code in the sources."""
        if self._final is not None:
            return self._final
        column = array("Q", {ip for ip, *_ in self.pages})
        return dict(zip(column, self.symbols.name(column), strict=True))


def _runs(
    joined: Writers, places: Sequence[int]
) -> Iterator[tuple[SourceKey | None, int, int, int]]:
    """Yield each run of pages: its source, its place, where it begins and ends.

    A run without a sample has no source.
    """
    for ip, thread, place, origin, start, end in zip(
        joined.ips,
        joined.threads,
        places,
        joined.origins,
        joined.starts,
        joined.ends,
        strict=True,
    ):
        yield (ip, thread, place, origin) if thread else None, place, start, end
