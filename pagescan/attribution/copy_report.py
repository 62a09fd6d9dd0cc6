"""Makes the report of a `CopyWatch`: rows, names, rates, the forecast."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import math
from array import array
from bisect import bisect_left
from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING

from pagescan.attribution.copy_hints import hints
from pagescan.attribution.forks import only_read
from pagescan.attribution.samples import clock_ns, to_time
from pagescan.model.copies import (
    Copies,
    CopyReport,
    CopySummary,
    ForkCopies,
    ProcessCopies,
    SideCopies,
)
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import PAGE_SIZE, Kind, Mapping
from pagescan.model.units import now
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps
from pagescan.target.labels import Labels
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan.attribution.copy_counter import CopyCounter
    from pagescan.attribution.families import FamilyProcess, Program
    from pagescan.attribution.forks import Fork, Side
    from pagescan.attribution.symbols import Name

_FUNCTIONS = 200


class Reporter:
    """Remembers the previous report, from which it computes rates.

    Attributes:
        mappings: The mappings of each process, as they were read last.
        reported: The numbers of the forks whose end has been reported.
    """

    def __init__(self, watch: CopyCounter) -> None:
        """Begin the first interval now."""
        self._watch = watch
        self._at = clock_ns()
        self._tick = 0
        self._sure: set[Fork] = set()
        self._sides: dict[FamilyProcess, list[tuple[Fork, Side]]] = {}
        self._copied: dict[Fork, int] = {}
        self.mappings: dict[FamilyProcess, list[Mapping]] = {}
        self._labels: dict[FamilyProcess, list[str | None]] = {}  # of these mappings
        self.reported: set[int] = set()

    def report(self, by: str, end: str | None) -> CopyReport:
        """Return a report of the copies counted so far; see `CopyWatch.report`."""
        watch, at = self._watch, clock_ns()
        interval, self._at = at - self._at, at
        self._tick += 1
        sure = watch.sure_forks
        self._index(sure)
        for fork in sure:
            if fork.number not in self.reported:
                fork.look(at, interval / 1e9)
        self._forget_old()
        self._read_mappings(labelled=by == "mapping")
        names = self._names()
        forks = [
            self._fork(fork, by, names)
            for fork in sure
            if end is not None or fork.number not in self.reported
        ]
        self.reported.update(fork.number for fork in sure if fork.end is not None)
        rows = [
            self._row(process, interval, names)
            for process in watch.all_processes
            if (end is not None or process.lives) and self._is_shown(process)
        ]
        return CopyReport(
            now(),
            watch.target_facts,
            self._tick,
            interval,
            tuple(rows),
            tuple(forks),
            tuple(self._hints(names, forks)),
            watch.vforks,
            watch.samples,
            watch.lost,
            watch.ring_bytes,
            end,
            self._summary(),
            watch.group,
            watch.untracked,
        )

    def _is_shown(self, process: FamilyProcess) -> bool:
        """Whether a process has a row: it was asked for, or is a side of a fork."""
        return process.shown or any(fork in self._sure for fork, _ in self._of(process))

    def _index(self, sure: list[Fork]) -> None:
        """Find the forks of each process; once per report, since there may be many."""
        self._sure, self._copied = {*sure}, {}
        self._sides = {}
        for fork in self._watch.forks:
            self._copied[fork] = fork.copied
            for side in (fork.parent, fork.child):
                if side.process is not None:
                    self._sides.setdefault(side.process, []).append((fork, side))

    def _of(self, process: FamilyProcess) -> list[tuple[Fork, Side]]:
        """Return the forks that a process is a side of."""
        return self._sides.get(process, [])

    def _summary(self) -> CopySummary:
        watch = self._watch
        new = sum(self._new(process) for process in watch.all_processes)
        before = watch.copied_before
        return CopySummary(watch.fork_count, before + watch.sums.copied, new)

    def _forget_old(self) -> None:
        """Drop what belongs to processes and forks that the watch has dropped."""
        watch = self._watch
        for process in self.mappings.keys() - {*watch.all_processes}:
            del self.mappings[process]
            self._labels.pop(process, None)
        self.reported &= {fork.number for fork in watch.forks}

    def _read_mappings(self, *, labelled: bool) -> None:
        """Read the mappings; for a process that has ended, keep the last ones."""
        for process in self._watch.all_processes:
            if process.lives and self._is_shown(process):
                with (
                    contextlib.suppress(PagescanError),
                    Target.open(process.pid) as target,
                ):
                    self.mappings[process] = rows = maps.read(target)
                    self._forget_read(process, target, rows)
                    if labelled:
                        found = Labels(target).of(rows)
                        texts = [one.text if one else None for one in found]
                        self._labels[process] = texts
            if process not in self.mappings and process.made is not None:
                parent = process.made.parent.process
                if parent is not None:
                    self.mappings[process] = self.mappings.get(parent, [])
                    self._labels[process] = self._labels.get(parent, [])

    def _forget_read(
        self, process: FamilyProcess, target: Target, rows: list[Mapping]
    ) -> None:
        """Take holes that a process has only read out of its new pages."""
        sides = [side for _, side in self._of(process) if side.new_pages]
        if sides:
            anonymous = [row for row in rows if row.kind is Kind.ANON]
            holes = only_read(Scanner(target), MappingSet(anonymous, rows))
            for side in sides:
                side.forget_read(holes)

    def _names(self) -> dict[Program, dict[int, Name]]:
        """Return the names of all code that has copied, of each program its own."""
        codes: dict[Program, set[int]] = {}
        for process in self._watch.all_processes:
            codes.setdefault(process.program, set()).update(process.by_code)
        for fork in self._watch.forks:
            for side in (fork.parent, fork.child):
                if side.process is not None:
                    known = codes.setdefault(side.process.program, set())
                    known.update(side.by_code)
        return {one: one.names(known) if known else {} for one, known in codes.items()}

    def _row(
        self,
        process: FamilyProcess,
        interval: int,
        names: dict[Program, dict[int, Name]],
    ) -> ProcessCopies:
        made = process.made
        sharing = [fork for fork, _ in self._of(process) if fork.end is None]
        shared = [f.pages - self._copied[f] + (f.copied_before or 0) for f in sharing]
        rate = (process.copied - process.seen) / (interval / 1e9) if interval else 0.0
        process.seen = process.copied
        functions = _by_function(process.by_code, names[process.program])
        before = made.copied_before or 0 if made else 0
        new = self._new(process)
        seconds = (clock_ns() - made.at) / 1e9 if made else None
        return ProcessCopies(
            process.name,
            process.pid,
            self._role(process),
            seconds,
            max(shared, default=0),
            process.copied + before,
            new,
            rate,
            functions[0].function if functions else None,
            process.label,
            process.end,
            made.parent.pid if made else None,
        )

    def _role(self, process: FamilyProcess) -> str | None:
        """Return parent or child; None: a process of a group that has not forked."""
        if process.made is not None:
            return "child"
        watch = self._watch
        forked = any(side.role == "parent" for _, side in self._of(process))
        return "parent" if forked or watch.group is None else None

    def _new(self, process: FamilyProcess) -> int:
        """Count the pages of a process that are its own and were never shared."""
        pages: set[int] = set()
        for _, side in self._of(process):
            pages |= side.new_pages
        return self._private(process, pages)

    def _private(self, process: FamilyProcess | None, pages: set[int]) -> int:
        """Count pages outside of files and shared memory, where reads make pages."""
        if not pages:
            return 0
        ordered = sorted(pages)
        count = len(ordered)
        for mapping in self.mappings_of(process):
            if mapping.kind is not Kind.ANON:
                first = bisect_left(ordered, mapping.start // PAGE_SIZE)
                count -= bisect_left(ordered, mapping.end // PAGE_SIZE) - first
        return count

    def mappings_of(self, process: FamilyProcess | None) -> list[Mapping]:
        """Return the mappings of a process, as they were read last."""
        return [] if process is None else self.mappings.get(process, [])

    def _fork(
        self, fork: Fork, by: str, names: dict[Program, dict[int, Name]]
    ) -> ForkCopies:
        watch = self._watch
        until = fork.ended_at if fork.end else self._at
        seconds = max(0.0, (until - fork.at) / 1e9)
        copied = self._copied[fork]
        counted = copied - (fork.copied_before or 0)
        return ForkCopies(
            fork.number,
            to_time(fork.at),
            fork.parent.pid,
            fork.child.pid,
            fork.pages if fork.copied_before is None else None,
            copied,
            tuple(
                SideCopies(
                    side.pid,
                    side.role,
                    side.copied,
                    self._private(side.process, side.new_pages),
                    self._by(fork, side, by, names),
                )
                for side in (fork.parent, fork.child)
            ),
            fork.lost,
            fork.engine if watch.exact is None else watch.exact.engine_of(fork),
            seconds,
            fork.end,
            fork.peak,
            None if fork.end else predicted(counted, fork.pages),
            fork.kept,
            fork.pages + (fork.copied_before or 0),
        )

    def _by(
        self, fork: Fork, side: Side, by: str, names: dict[Program, dict[int, Name]]
    ) -> tuple[Copies, ...]:
        if by == "mapping":
            return tuple(self._by_mapping(side))
        if by == "time":
            return tuple(_by_time(fork, side))
        if side.process is None:
            return ()
        known = names[side.process.program]
        return tuple(_by_function(side.by_code, known)[:_FUNCTIONS])

    def _by_mapping(self, side: Side) -> list[Copies]:
        ordered = array("Q", sorted(side.addresses))
        counts: Counter[tuple[str, str | None]] = Counter()
        labels = self._labels.get(side.process, []) if side.process else []
        for mapping, label in zip_longest(self.mappings_of(side.process), labels):
            first = bisect_left(ordered, mapping.start)
            pages = bisect_left(ordered, mapping.end) - first
            counts[mapping.label, label] += pages
        rest = len(ordered) - sum(counts.values())
        counts["(unmapped since)", None] += rest
        return [
            Copies(pages, pages / len(ordered), mapping=name, label=label)
            for (name, label), pages in counts.most_common()
            if pages
        ]

    def _hints(
        self, names: dict[Program, dict[int, Name]], forks: list[ForkCopies]
    ) -> list[str]:
        functions: Counter[str | None] = Counter()
        parents = {}
        for fork in self._watch.forks:
            if fork.child.process is not None and fork.parent.process is not None:
                known = names[fork.child.process.program]
                for row in _by_function(fork.child.by_code, known):
                    functions[row.function] += row.pages
                parents[fork.number] = fork.parent.process.name
        reserves: dict[str, int] = {}
        for copies in forks:
            name = parents.get(copies.number, "")
            reserves[name] = max(reserves.get(name, 0), copies.reserve)
        return hints(functions.most_common(), reserves)


def predicted(copied: int, shared: int) -> int:
    """Return how many pages will be copied if the child lives as long again.

    Writes at random hit fewer and fewer shared pages: the shared rest shrinks by the
    same factor in equal times. It is an estimate, and no bound.
    """
    if not shared:
        return copied
    left = 1 - copied / shared
    return math.ceil(shared * (1 - left * left))


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
