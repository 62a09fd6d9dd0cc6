"""Sums up the writers: rows by function, line, thread, mapping, page or process."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pagescan.attribution.symbols import Name
from pagescan.attribution.writer_totals import (
    GONE,
    TID_MASK,
    Era,
    Place,
    SourceKey,
    WriterTotals,
)
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.units import now
from pagescan.model.writers import (
    EXACT,
    LIKELY,
    MOST_THREADS,
    PythonPages,
    Writer,
    WriterReport,
    WriterThread,
    WrittenRun,
)

if TYPE_CHECKING:
    from pagescan.attribution.process_writers import ProcessWriters
    from pagescan.attribution.python_frames import PythonFrames


class _Named(NamedTuple):
    """A source, with its name."""

    name: Name
    process: int
    """The index of its process."""
    thread: int
    place: Place
    callers: tuple[str, ...] = ()


_Key = Callable[[_Named], object]

_KEYS: dict[str, _Key] = {
    "function": lambda source: (*_function_key(source.name), source.callers),
    "page": lambda source: _function_key(source.name),
    "line": lambda source: (source.name.file, source.name.line, source.name.function),
    "thread": lambda source: (source.process, source.thread),
    "mapping": lambda source: source.place,
    "process": lambda source: source.process,
}


def _function_key(name: Name) -> tuple[str | None, str | None, int | None]:
    """Return the key of a function; all code without a name has one key per module.

    Functions of Python may have the same name, as <lambda>: the line tells them apart.
    """
    return name.function, name.module, name.line if name.python else None


class Sampling(NamedTuple):
    """How samples were taken, and what the rows of the report stand for."""

    by: str
    period: int
    user_only: bool
    ring_bytes: int


def report(
    parts: Sequence[ProcessWriters],
    sampling: Sampling,
    totals: WriterTotals,
    python: PythonFrames | None = None,
) -> WriterReport:
    """Return the writers of all looks so far.

    Args:
        parts: The processes; the first one is the target.
        sampling: How samples were taken.
        totals: Pages of all looks at all of them.
        python: The Python functions of the samples.
    """
    by, period = sampling.by, sampling.period
    groups: dict[object, list[tuple[_Named, int]]] = defaultdict(list)
    functions = _python_names(python)
    known: Counter[str | None] = Counter()
    for index, part in enumerate(parts):
        for source, pages in _sources(part, index, functions):
            groups[_KEYS[by](source)].append((source, pages))
            known[source.name.python] += pages
    whole = totals.written if period == 1 else totals.attributed
    rows = _Rows(parts, by, whole, functions)
    missing = totals.written - totals.attributed
    notes = {
        note: None for part in parts for era in part.eras for note in era.symbols.notes
    }
    return WriterReport(
        now(),
        parts[0].facts if parts else None,
        by,
        totals.ticks,
        totals.written,
        totals.attributed,
        missing - totals.lost if period == 1 else None,
        totals.lost if period == 1 else None,
        totals.ambiguous,
        tuple(sorted(map(rows.row, groups.values()), key=lambda row: -row.pages)),
        tuple(rows.runs()) if by == "page" else (),
        totals.samples,
        period,
        sampling.user_only,
        sampling.ring_bytes,
        (*notes, *(python.notes() if python is not None else ())),
        python=PythonPages(known[EXACT], known[LIKELY]) if python else None,
    )


def _python_names(python: PythonFrames | None) -> dict[int, Name]:
    """Return the Python functions by their numbers, as names of code."""
    if python is None:
        return {}
    return {
        number: Name(
            function.name,
            function.file,
            0,
            function.file,
            function.line,
            python=EXACT if function.exact else LIKELY,
        )
        for number, function in python.numbers.functions().items()
    }


def _sources(
    part: ProcessWriters, index: int, python: dict[int, Name]
) -> Iterator[tuple[_Named, int]]:
    """Yield the sources of a process, with their pages."""
    for era in part.eras:
        names = era.names()
        for (ip, thread, place, origin), pages in era.pages.items():
            callers = era.callers.get(origin, ())
            name = python.get(origin) or names[ip]
            written = era.places[place]
            yield _Named(name, index, thread & TID_MASK, written, callers), pages


class _Rows:
    """Makes the rows of a report."""

    def __init__(
        self,
        parts: Sequence[ProcessWriters],
        by: str,
        whole: int,
        python: dict[int, Name],
    ) -> None:
        """Begin; `whole`: the pages of which shares are parts."""
        self._parts, self._by, self._whole = parts, by, whole
        self._python = python

    def row(self, group: Iterable[tuple[_Named, int]]) -> Writer:
        """Return the row of some sources."""
        names: Counter[Name] = Counter()
        tids: Counter[tuple[int, int]] = Counter()
        processes: Counter[int] = Counter()
        places: Counter[Place] = Counter()
        for source, pages in group:
            names[source.name] += pages
            tids[source.process, source.thread] += pages
            processes[source.process] += pages
            places[source.place] += pages
        ((name, _),) = names.most_common(1)
        ((place, _),) = places.most_common(1)
        total = sum(tids.values())
        facts = self._parts[processes.most_common(1)[0][0]].facts
        has_line = self._by in ("line", "page")
        return Writer(
            total,
            total / self._whole if self._whole else 0.0,
            name.function,
            len({_function_key(name) for name in names}),
            name.module,
            name.offset if self._by == "line" or not name.function else None,
            name.file if has_line or len(names) == 1 else None,
            name.line if has_line or len(names) == 1 else None,
            tuple(
                self._thread(process, tid, pages)
                for (process, tid), pages in tids.most_common(MOST_THREADS)
            ),
            len(tids),
            place.name,
            len(places),
            source.callers if self._by == "function" else (),
            facts.name,
            facts.pid if len(processes) == 1 else None,
            len(processes),
            place.label,
            name.python,
        )

    def _thread(self, process: int, tid: int, pages: int) -> WriterThread:
        part = self._parts[process]
        return WriterThread(tid, part.threads.of(tid), pages, part.facts.pid)

    def runs(self) -> Iterator[WrittenRun]:
        """Yield the written pages, process by process."""
        for index, part in enumerate(self._parts):
            yield from self._runs_of(part.eras[-1], index)

    def _runs_of(self, era: Era, index: int) -> Iterator[WrittenRun]:
        """Yield the written pages, neighbours with one latest writer as one run."""
        names = era.names()
        writers: dict[SourceKey, Writer] = {}
        pid = self._parts[index].facts.pid
        start = end = 0
        latest: tuple[SourceKey | None, int] | None = None

        def run() -> WrittenRun:
            source, number = latest or (None, -1)
            place = era.places[number] if latest else GONE
            if source is None:
                return WrittenRun(start, end, place.name, None, pid, place.label)
            if source not in writers:
                ip, thread, _, origin = source
                name = self._python.get(origin) or names[ip]
                only = [(_Named(name, index, thread & TID_MASK, place), 1)]
                writers[source] = self.row(only)
            return WrittenRun(start, end, place.name, writers[source], pid, place.label)

        for page in sorted(era.latest):
            if page == end and era.latest[page] == latest:
                end += PAGE_SIZE
                continue
            if latest is not None:
                yield run()
            start, end, latest = page, page + PAGE_SIZE, era.latest[page]
        if latest is not None:
            yield run()
