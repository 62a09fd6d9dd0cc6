"""Reads recordings: one file, or several as one; of damaged ones, the whole rows."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Mapping as Dict, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Self

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.results import TargetFacts
from pagescan.model.units import plural
from pagescan.recording.connection import NOT_OURS, connect
from pagescan.recording.file_part import FilePart
from pagescan.recording.journal import damage_of
from pagescan.recording.mappings_over_time import MappingsOverTime
from pagescan.recording.quiet_looks import QuietLook, with_quiet_looks
from pagescan.recording.records import (
    RecordedFunction,
    RecordedLook,
    RecordedMapping,
    RecordedProcess,
    RecordedThread,
    RecordedUntracked,
    RecordedWriters,
    moment,
)
from pagescan.recording.rows import (
    CountsReader,
    Span,
    look_of,
    mapping_of,
    portions,
    process_of,
    quiet_look,
    untracked_of,
)
from pagescan.recording.salvage import UnreadableError, salvage
from pagescan.recording.writer_tables import WriterTables

if TYPE_CHECKING:
    from pagescan.model.mapping_set import MappingSet


class Recording:
    """The looks of one recording, or of several that are read as one.

    Looks, mappings and processes are numbered from 0; records refer to these numbers.
    The regions of a look are read when they are asked for.

    Attributes:
        facts: The facts of the recording; for several files, those of the first.
        processes: The programs that were recorded.
        mappings: All mappings that existed at any look.
        untracked: The parts of the selection that were not tracked.
        looks: The looks, in the order of time, without their regions.
        quiet_step: How many ticks a look stands for at which a process of a group had
            not run: 1, or more if there are more than a million such looks.
        damage: One line per missing part; empty: nothing is missing.
        lost: The positions of looks that were read, and have damaged regions.
        paths: The files.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Read the facts of the files; `pagescan.open_recording` does it.

        Raises:
            PagescanError: A file is no recording, or has no whole row.
        """
        self.paths = tuple(paths)
        self.processes: list[RecordedProcess] = []
        self.mappings: list[RecordedMapping] = []
        self.untracked: list[RecordedUntracked] = []
        self.looks: list[RecordedLook] = []
        self.damage: list[str] = []
        self.quiet_step = 1
        self.lost: set[int] = set()
        self._files: list[sqlite3.Connection] = []
        self._names: list[str] = []  # of each file: its path
        self._who: list[Dict[str, Any] | None] = []  # the same; None: without --who
        self._rows: list[tuple[int, int]] = []  # of each look: its file, and its id
        self._sets: dict[int, MappingsOverTime] = {}
        self._writers = WriterTables()
        try:
            parts = [self._open(path) for path in paths]
            parts.sort(key=lambda part: part.begun)
            for part in parts:
                self._append(part)
        except BaseException:
            self.close()
            raise
        if not parts:
            raise UsageError("no recording is named")
        self.facts = replace(parts[0].facts, ending=parts[-1].facts.ending)

    @property
    def page_size(self) -> int:
        """Bytes per page."""
        return self.processes[0].target.page_size if self.processes else 4096

    def columns(self, look: RecordedLook) -> native.Columns:
        """Return the written pages of a look as regions; none if they are damaged."""
        size = self.processes[look.process].target.page_size
        try:
            return native.unpack(self._packed(look), look.regions, size)
        except (sqlite3.Error, TypeError, ValueError, zlib.error):
            self.damaged(look)
            return native.Columns.empty()

    def packed(self, look: RecordedLook) -> bytes:
        """Return the regions of a look in their packed form; none if they are lost."""
        try:
            return self._packed(look)
        except (sqlite3.Error, TypeError, zlib.error):
            self.damaged(look)
            return b""

    def packed_looks(
        self, looks: Sequence[RecordedLook]
    ) -> Iterator[tuple[list[RecordedLook], list[bytes]]]:
        """Yield some looks at a time, in the order of time, with their packed regions.

        That reads the file once from the first look to the last one: all looks of that
        time, or most of them, should be wanted. A damaged one has no regions.
        """
        for file, part in groupby(looks, lambda look: self._rows[look.position][0]):
            wanted = list(part)
            ids = [self._rows[look.position][1] for look in wanted]
            rows = self._stored(file, min(filter(None, ids), default=0), max(ids))
            known = {0: _NO_REGIONS}  # of quiet looks, which are in no file
            for start, end in portions(wanted):
                numbers = ids[start:end]
                last = max(numbers)
                while next(reversed(known)) < last:
                    more = list(islice(rows, end - start))
                    if not more:
                        break
                    known.update(more)
                yield wanted[start:end], self._regions(wanted[start:end], known)
                later = {row: data for row, data in known.items() if row > last}
                known = {0: _NO_REGIONS, **later}

    def _stored(self, file: int, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield the ids of looks in a range, and their regions as the file has them."""
        query = "SELECT id, written FROM looks WHERE id BETWEEN ? AND ? ORDER BY id"
        with suppress(sqlite3.Error):
            yield from self._files[file].execute(query, (first, last))

    def _regions(
        self, looks: Sequence[RecordedLook], known: Dict[int, bytes]
    ) -> list[bytes]:
        """Return the packed regions of looks, most of which were read already."""
        rows, unpacked = self._rows, zlib.decompress
        with suppress(KeyError, TypeError, zlib.error):
            return [unpacked(known[rows[look.position][1]]) for look in looks]
        return [self.packed(look) for look in looks]  # one is damaged

    def damaged(self, look: RecordedLook) -> None:
        """Say that the regions of a look are damaged."""
        self.lost.add(look.position)
        self._damaged(f"the regions of the look at {look.time:%H:%M:%S}")

    def _packed(self, look: RecordedLook) -> bytes:
        return self._blob(look, "SELECT written FROM looks WHERE id = ?")

    def _blob(self, look: RecordedLook, query: str) -> bytes:
        file, row = self._rows[look.position]
        if not row:  # a quiet look: it is in no file
            return b""
        found = self._files[file].execute(query, (row,)).fetchone()
        return zlib.decompress(found[0])

    @property
    def functions(self) -> list[RecordedFunction]:
        """The functions that wrote; empty without --who."""
        return self._writers.functions

    @property
    def threads(self) -> list[RecordedThread]:
        """The threads that wrote; empty without --who."""
        return self._writers.threads

    @property
    def has_writers(self) -> bool:
        """Whether any look has its writers."""
        return bool(self._writers)

    @property
    def user_only(self) -> bool:
        """Whether writes of the kernel for the process have no writer in some file."""
        return any(who is not None and who.get("user_only") for who in self._who)

    def file_without_writers(self, look: RecordedLook) -> str | None:
        """Return the file of a look that was recorded without --who, else None."""
        file, _ = self._rows[look.position]
        return self._names[file] if self._who[file] is None else None

    def writers_of(self, look: RecordedLook) -> RecordedWriters | None:
        """Return who wrote the pages of a look; None: that was not recorded."""
        file, _ = self._rows[look.position]
        with_who = self._who[file] is not None
        nothing = _NO_WRITERS if with_who and not look.pages else None
        try:
            return self._writers.of(look.position) or nothing
        except (TypeError, ValueError, zlib.error):
            self._damaged(f"the writers of the look at {look.time:%H:%M:%S}")
            return None

    def writer_runs(self, look: RecordedLook) -> native.Columns:
        """Return the written pages of a look as regions with one writer.

        The category is the writer's index in the counts of `writers_of` plus 1; 0: the
        writer is not known.
        """
        size = self.processes[look.process].target.page_size
        try:
            packed = self._blob(look, "SELECT runs FROM writers WHERE id = ?")
            return native.unpack(packed, len(packed) // 2, size)
        except (sqlite3.Error, TypeError, ValueError, zlib.error):
            self._damaged(f"the writers of the look at {look.time:%H:%M:%S}")
            return native.Columns.empty()

    def batch(self, look: RecordedLook) -> Batch:
        """Return the written pages of a look, joined with the mappings of that time."""
        process = self.processes[look.process]
        ids, mappings = self.mappings_at(look)
        rows = [self.mappings[index] for index in ids]
        batch = Batch.join(
            self.columns(look),
            mappings,
            page_size=process.target.page_size,
            new=frozenset(
                at
                for at, row in enumerate(rows)
                if row.new and row.first_look == look.position
            ),
        )
        batch.labels = {
            row.mapping.start: row.label for row in rows if row.label is not None
        }
        return batch

    def batches(self) -> Iterator[tuple[RecordedLook, Batch]]:
        """Yield each look with its written pages, in the order of time."""
        for look in self.looks:
            yield look, self.batch(look)

    def mappings_at(self, look: RecordedLook) -> tuple[Sequence[int], MappingSet]:
        """Return the mappings that existed at a look: their indices, and the set."""
        known = self._sets.get(look.process)
        if known is None:
            rows = [
                (index, row)
                for index, row in enumerate(self.mappings)
                if row.process == look.process
            ]
            known = self._sets[look.process] = MappingsOverTime(rows)
        return known.at(look.position)

    def close(self) -> None:
        """Close the files; the records stay."""
        for file in self._files:
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        names = ", ".join(self.paths)
        return f"<Recording {names}: {len(self.looks)} looks>"

    def _damaged(self, message: str) -> None:
        if message not in self.damage:
            self.damage.append(message)

    def _open(self, path: str) -> FilePart:
        """Read the rows of a file; search for rows that SQLite cannot reach."""
        part = FilePart(connect(path), path)
        reason = damage_of(path)
        try:
            if reason is None:
                part.read()
                return part
        except (sqlite3.Error, UnicodeDecodeError) as error:
            reason = str(error)
        part.file.close()
        try:
            part = FilePart(salvage(path), path)
        except UnreadableError as error:
            raise PagescanError(f"{path} {NOT_OURS}: {error}") from error
        part.read()
        self._damaged(f"{path} is damaged ({reason}): {_found(part.rows['looks'])}")
        return part

    def _append(self, part: FilePart) -> None:
        """Number the rows of a file after the rows of earlier files."""
        processes, mappings = len(self.processes), len(self.mappings)
        looks = len(self.looks)
        file = len(self._files)
        self._files.append(part.file)
        self._names.append(part.path)
        # Its facts may be damaged.
        lost: Dict[str, Any] | None = {} if part.rows["writers"] else None
        self._who.append(lost if part.facts.who is None else part.facts.who)
        rows, step = with_quiet_looks(part.rows["looks"], part.rows["processes"])
        self.quiet_step = max(self.quiet_step, step)
        of_look = {
            row[0]: looks + at
            for at, row in enumerate(rows)
            if not isinstance(row, QuietLook)
        }
        of_process = {
            row[0]: processes + at for at, row in enumerate(part.rows["processes"])
        }
        of_mapping = {
            row[0]: mappings + at for at, row in enumerate(part.rows["mappings"])
        }
        span = Span(of_look, looks, looks + len(rows))
        self.processes += [process_of(row, span) for row in part.rows["processes"]]
        self._add_lost(part, of_process, of_look)
        self.mappings += [
            mapping_of(row, of_process, span) for row in part.rows["mappings"]
        ]
        self.untracked += [
            untracked_of(row, of_process, span) for row in part.rows["untracked"]
        ]
        counts, of_no_file = CountsReader(of_mapping), (file, 0)
        for at, row in enumerate(rows, start=looks):
            if isinstance(row, QuietLook):
                self._rows.append(of_no_file)
                self.looks.append(quiet_look(row, (at, of_process[row.process])))
            else:
                self._rows.append((file, row[0]))
                self.looks.append(look_of(row, (at, of_process[row[1]]), counts))
        self._writers.append(part.rows, of_process, of_mapping, of_look)
        for message in part.damage:
            self._damaged(message)

    def _add_lost(
        self, part: FilePart, of_process: dict[int, int], of_look: dict[int, int]
    ) -> None:
        """Add a process for each one that is lost, so that its looks can be shown."""
        looks = part.rows["looks"]
        named = {
            row[1]
            for table in ("looks", "mappings", "untracked", "functions", "threads")
            for row in part.rows[table]
        }
        for lost in sorted(named - of_process.keys()):
            of_process[lost] = len(self.processes)
            mine = [of_look[row[0]] for row in looks if row[1] == lost]
            span = (mine[0], mine[-1]) if mine else (0, -1)
            self.processes.append(
                RecordedProcess(
                    UNKNOWN, part.facts.begun, 0, 0, *span, part.facts.ending
                )
            )
            self._damaged(f"{part.path}: the facts of the process are lost")


UNKNOWN = TargetFacts(0, "unknown", None, 0, 4096)
"""Stands for a process whose facts are lost."""


def open_recording(*paths: str) -> Recording:
    """Open a recording, or several files as one; they may grow while they are read.

    Args:
        paths: The files that `pagescan record` has written, in any order.

    Raises:
        PagescanError: A file cannot be read, or is no recording. A damaged file is
            read as far as it is whole; `Recording.damage` tells what is missing.
    """
    return Recording(paths)


def _found(looks: list[Any]) -> str:
    """Return which looks of a damaged file are whole, and so where it is damaged."""
    if not looks:
        return "no look was found"
    last = looks[-1]
    found = f"{plural(len(looks), 'look')} up to {moment(last[3]):%H:%M:%S} found"
    lost = last[0] - looks[0][0] + 1 - len(looks)
    return f"{found}, {lost} between them lost" if lost else found


_NO_REGIONS = zlib.compress(b"")
_NO_WRITERS = RecordedWriters(0, 0, 0, 0, ())
