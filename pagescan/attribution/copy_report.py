"""Makes the report of a `CopyWatch`: rows, names, rates, the forecast."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import math
from array import array
from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from pagescan.attribution.copy_hints import hints
from pagescan.attribution.samples import clock_ns, to_time
from pagescan.model.copies import (
    Copies,
    CopyReport,
    ForkCopies,
    ProcessCopies,
    SideCopies,
)
from pagescan.model.errors import PagescanError
from pagescan.model.memory import PAGE_SIZE, Kind, Mapping
from pagescan.model.units import now
from pagescan.target import maps
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan.attribution.copies import CopyWatch, FamilyProcess
    from pagescan.attribution.forks import Fork, Side
    from pagescan.attribution.symbols import Name

_FUNCTIONS = 200


class Reporter:
    """Remembers the previous report, from which it computes rates."""

    def __init__(self, watch: CopyWatch) -> None:
        """Begin the first interval now."""
        self._watch = watch
        self._at = clock_ns()
        self._tick = 0
        self._mappings: dict[int, list[Mapping]] = {}
        self._reported: set[int] = set()

    def report(self, by: str, end: str | None) -> CopyReport:
        """Return a report of the copies counted so far; see `CopyWatch.report`."""
        watch, at = self._watch, clock_ns()
        interval, self._at = at - self._at, at
        self._tick += 1
        sure = watch.sure_forks
        for fork in sure:
            if fork.number not in self._reported:
                fork.look(at, interval / 1e9)
        self._read_mappings()
        names = self._names()
        forks = [
            self._fork(fork, by, names)
            for fork in sure
            if end is not None or fork.number not in self._reported
        ]
        self._reported.update(fork.number for fork in sure if fork.end is not None)
        rows = [
            self._row(process, interval, names)
            for process in watch.processes.values()
            if end is not None or process.lives
        ]
        return CopyReport(
            now(),
            watch.target.facts,
            self._tick,
            interval,
            tuple(rows),
            tuple(forks),
            tuple(self._hints(names, [fork.reserve for fork in forks])),
            watch.vforks,
            watch.samples,
            watch.lost,
            watch.ring_bytes,
            end,
        )

    def _read_mappings(self) -> None:
        """Read the mappings; for a process that has ended, keep the last ones."""
        for pid, process in self._watch.processes.items():
            if process.lives:
                with contextlib.suppress(PagescanError), Target.open(pid) as target:
                    self._mappings[pid] = maps.read(target)
            if pid not in self._mappings and process.made is not None:
                parent = process.made.parent.pid
                self._mappings[pid] = self._mappings.get(parent, [])

    def _names(self) -> dict[int, Name]:
        codes: set[int] = set()
        for process in self._watch.processes.values():
            codes.update(process.by_code)
        for fork in self._watch.forks:
            codes.update(fork.parent.by_code, fork.child.by_code)
        column = array("Q", codes)
        return dict(zip(column, self._watch.symbols.name(column), strict=True))

    def _row(
        self, process: FamilyProcess, interval: int, names: dict[int, Name]
    ) -> ProcessCopies:
        fork = process.made
        sharing = [f for f in self._watch.living if process.pid in _pids(f)]
        shared = [f.pages - f.copied + (f.copied_before or 0) for f in sharing]
        rate = (process.copied - process.seen) / (interval / 1e9) if interval else 0.0
        process.seen = process.copied
        functions = _by_function(process.by_code, names)
        before = fork.copied_before or 0 if fork else 0
        new = self._new(process.pid)
        seconds = (clock_ns() - fork.at) / 1e9 if fork else None
        return ProcessCopies(
            process.name,
            process.pid,
            "child" if fork else "parent",
            seconds,
            max(shared, default=0),
            process.copied + before,
            new,
            rate,
            functions[0].function if functions else None,
        )

    def _new(self, pid: int) -> int:
        """Count the pages of a process that are its own and were never shared."""
        pages: set[int] = set()
        for fork in self._watch.forks:
            for side in (fork.parent, fork.child):
                if side.pid == pid:
                    pages |= side.new_pages
        return self._private(pid, pages)

    def _private(self, pid: int, pages: set[int]) -> int:
        """Count pages outside of files and shared memory, where reads make pages."""
        ordered = sorted(pages)
        count = len(ordered)
        for mapping in self._mappings.get(pid, []):
            if mapping.kind is not Kind.ANON:
                first = bisect_left(ordered, mapping.start // PAGE_SIZE)
                count -= bisect_left(ordered, mapping.end // PAGE_SIZE) - first
        return count

    def _fork(self, fork: Fork, by: str, names: dict[int, Name]) -> ForkCopies:
        until = fork.ended_at if fork.end else self._at
        seconds = max(0.0, (until - fork.at) / 1e9)
        counted = fork.copied - (fork.copied_before or 0)
        return ForkCopies(
            fork.number,
            to_time(fork.at),
            fork.parent.pid,
            fork.child.pid,
            fork.pages if fork.copied_before is None else None,
            fork.copied,
            tuple(
                SideCopies(
                    side.pid,
                    side.role,
                    side.copied,
                    self._private(side.pid, side.new_pages),
                    self._by(fork, side, by, names),
                )
                for side in (fork.parent, fork.child)
            ),
            fork.lost,
            fork.engine,
            seconds,
            fork.end,
            fork.peak,
            None if fork.end else predicted(counted, fork.pages),
        )

    def _by(
        self, fork: Fork, side: Side, by: str, names: dict[int, Name]
    ) -> tuple[Copies, ...]:
        if by == "mapping":
            return tuple(self._by_mapping(side))
        if by == "time":
            return tuple(_by_time(fork, side))
        return tuple(_by_function(side.by_code, names)[:_FUNCTIONS])

    def _by_mapping(self, side: Side) -> list[Copies]:
        ordered = array("Q", sorted(side.addresses))
        counts: Counter[str] = Counter()
        for mapping in self._mappings.get(side.pid, []):
            first = bisect_left(ordered, mapping.start)
            counts[mapping.label] += bisect_left(ordered, mapping.end) - first
        rest = len(ordered) - sum(counts.values())
        counts["(unmapped since)"] += rest
        return [
            Copies(pages, pages / len(ordered), mapping=label)
            for label, pages in counts.most_common()
            if pages
        ]

    def _hints(self, names: dict[int, Name], reserves: list[int]) -> list[str]:
        codes: Counter[int] = Counter()
        for fork in self._watch.forks:
            codes.update(fork.child.by_code)
        functions = [(row.function, row.pages) for row in _by_function(codes, names)]
        name = self._watch.target.facts.name
        return hints(name, functions, max(reserves, default=0))


def predicted(copied: int, shared: int) -> int:
    """Return how many pages will be copied if the child lives as long again.

    Writes at random hit fewer and fewer shared pages: the shared rest shrinks by the
    same factor in equal times. It is an estimate, and no bound.
    """
    if not shared:
        return copied
    left = 1 - copied / shared
    return math.ceil(shared * (1 - left * left))


def _pids(fork: Fork) -> tuple[int, int]:
    return fork.parent.pid, fork.child.pid


def _by_function(codes: Counter[int], names: dict[int, Name]) -> list[Copies]:
    """Sum pages by function; code without a name by its file."""
    groups: Counter[tuple[str | None, str | None]] = Counter()
    for code, pages in codes.items():
        name = names[code]
        groups[name.function, name.module] += pages
    total = sum(groups.values())
    return [
        Copies(pages, pages / total, function, module)
        for (function, module), pages in groups.most_common()
    ]


def _by_time(fork: Fork, side: Side) -> list[Copies]:
    """Return one row per interval in which the side has copied something."""
    rows, begin, before = [], fork.at, 0
    for at, *counts in fork.series:
        total = counts[0 if side is fork.parent else 1]
        if total > before:
            share = (total - before) / side.copied
            rows.append(Copies(total - before, share, at=to_time(begin)))
        begin, before = at, total
    return rows
