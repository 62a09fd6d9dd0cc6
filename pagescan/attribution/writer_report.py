"""Sums up the writers: rows by function, line, thread, mapping or page."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import now
from pagescan.model.writers import (
    MOST_THREADS,
    Writer,
    WriterReport,
    WriterThread,
    WrittenRun,
)

if TYPE_CHECKING:
    from pagescan.attribution.symbols import Name, Symbols
    from pagescan.attribution.thread_names import ThreadNames
    from pagescan.model.batch import Batch
    from pagescan.model.results import TargetFacts
    from pagescan.native import Writers

_TID = (1 << 32) - 1
GONE = "(unmapped since)"
_Source = tuple[int, int, str, int]
"""The address of the code, the thread, the mapping that was written to, and the number
of the chain of callers."""


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

    def add(self, batch: Batch, joined: Writers, lost: int) -> None:
        """Add a look and its writers; `lost`: samples lost since the previous look."""
        pages = batch.summary().pages
        self.ticks += 1
        self.written += pages
        self.attributed += joined.attributed
        self.ambiguous += joined.ambiguous
        self.lost += min(lost, pages - joined.attributed)


class Era:
    """The writes of one program of the process; an exec begins the next era.

    Attributes:
        symbols: The names of its code.
        pages: Pages by source.
        latest: The latest source of each page, by address; None: it had no sample.
        fresh_threads: Threads that have written since the caller emptied this set.
        callers: Names of the callers, by the number of their chain.
    """

    def __init__(self, symbols: Symbols) -> None:
        """Begin with nothing written."""
        self.symbols = symbols
        self.pages: dict[_Source, int] = {}
        self.latest: dict[int, tuple[_Source | None, str]] = {}
        self.fresh_threads: set[int] = set()
        self.callers: dict[int, tuple[str, ...]] = {}
        self._threads: set[int] = set()

    def add(self, batch: Batch, joined: Writers, *, runs: bool) -> None:
        """Add the writers of a look; with `runs`, remember them per page."""
        labels = [*(mapping.label for mapping in batch.mappings), GONE]
        owners = batch.owners
        names = [labels[owners[region]] for region in joined.regions]
        pages = self.pages
        for ip, thread, name, origin, start, end in zip(
            joined.ips,
            joined.threads,
            names,
            joined.origins,
            joined.starts,
            joined.ends,
            strict=True,
        ):
            if thread:
                key = ip, thread, name, origin
                pages[key] = pages.get(key, 0) + (end - start) // PAGE_SIZE
        tids = {thread & _TID for thread in set(joined.threads) - {0}}
        self.fresh_threads |= tids - self._threads
        self._threads |= tids
        if runs:
            self._remember(joined, names)

    def _remember(self, joined: Writers, names: Sequence[str]) -> None:
        for ip, thread, name, start, end in zip(
            joined.ips, joined.threads, names, joined.starts, joined.ends, strict=True
        ):
            source = (ip, thread, name, 0) if thread else None
            for page in range(start, end, PAGE_SIZE):
                self.latest[page] = source, name

    def names(self) -> dict[int, Name]:
        """Return the names of all code in the sources."""
        column = array("Q", {ip for ip, *_ in self.pages})
        return dict(zip(column, self.symbols.name(column), strict=True))


class _Named(NamedTuple):
    """A source, with its name."""

    name: Name
    thread: int
    mapping: str
    callers: tuple[str, ...] = ()


_Key = Callable[[_Named], object]

_KEYS: dict[str, _Key] = {
    "function": lambda source: (*_function_key(source.name), source.callers),
    "page": lambda source: _function_key(source.name),
    "line": lambda source: (source.name.file, source.name.line, source.name.function),
    "thread": lambda source: source.thread,
    "mapping": lambda source: source.mapping,
}


def _function_key(name: Name) -> tuple[str | None, str | None]:
    """Return the key of a function; all code without a name has one key per module."""
    return name.function, name.module


def report(
    eras: Sequence[Era],
    totals: WriterTotals,
    threads: ThreadNames,
    *,
    by: str,
    facts: TargetFacts,
    period: int,
    user_only: bool,
    ring_bytes: int,
) -> WriterReport:
    """Return the writers of all looks so far."""
    sources = [
        (_Named(names[ip], thread & _TID, mapping, era.callers.get(origin, ())), pages)
        for era in eras
        for names in (era.names(),)
        for (ip, thread, mapping, origin), pages in era.pages.items()
    ]
    whole = totals.written if period == 1 else totals.attributed
    groups: dict[object, list[tuple[_Named, int]]] = defaultdict(list)
    for source, pages in sources:
        groups[_KEYS[by](source)].append((source, pages))
    rows = [_row(group, whole, threads, by) for group in groups.values()]
    missing = totals.written - totals.attributed
    return WriterReport(
        now(),
        facts,
        by,
        totals.ticks,
        totals.written,
        totals.attributed,
        missing - totals.lost if period == 1 else None,
        totals.lost if period == 1 else None,
        totals.ambiguous,
        tuple(sorted(rows, key=lambda row: -row.pages)),
        tuple(_runs(eras[-1], threads)) if by == "page" else (),
        totals.samples,
        period,
        user_only,
        ring_bytes,
        tuple(note for era in eras for note in era.symbols.notes),
    )


def _row(
    group: Iterable[tuple[_Named, int]], whole: int, threads: ThreadNames, by: str
) -> Writer:
    names: Counter[Name] = Counter()
    tids: Counter[int] = Counter()
    mappings: Counter[str] = Counter()
    for source, pages in group:
        names[source.name] += pages
        tids[source.thread] += pages
        mappings[source.mapping] += pages
    ((name, _),) = names.most_common(1)
    total = sum(tids.values())
    has_line = by in ("line", "page")
    return Writer(
        total,
        total / whole if whole else 0.0,
        name.function,
        len({_function_key(name) for name in names}),
        name.module,
        name.offset if by == "line" or not name.function else None,
        name.file if has_line or len(names) == 1 else None,
        name.line if has_line or len(names) == 1 else None,
        tuple(
            WriterThread(tid, threads.of(tid), pages)
            for tid, pages in tids.most_common(MOST_THREADS)
        ),
        len(tids),
        mappings.most_common(1)[0][0],
        len(mappings),
        source.callers if by == "function" else (),
    )


def _runs(era: Era, threads: ThreadNames) -> Iterable[WrittenRun]:
    """Yield the written pages, neighbours with one latest writer as one run."""
    names = era.names()
    writers: dict[_Source, Writer] = {}
    start = end = 0
    latest: tuple[_Source | None, str] | None = None

    def run() -> WrittenRun:
        source, mapping = latest or (None, GONE)
        if source is None:
            return WrittenRun(start, end, mapping, None)
        if source not in writers:
            ip, thread, *_ = source
            only = [(_Named(names[ip], thread & _TID, mapping), 1)]
            writers[source] = _row(only, 0, threads, "page")
        return WrittenRun(start, end, mapping, writers[source])

    for page in sorted(era.latest):
        if page == end and era.latest[page] == latest:
            end += PAGE_SIZE
            continue
        if latest is not None:
            yield run()
        start, end, latest = page, page + PAGE_SIZE, era.latest[page]
    if latest is not None:
        yield run()
