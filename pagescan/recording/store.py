"""Reads recordings: one file, or several as one; of damaged ones, the whole rows."""

from __future__ import annotations

import os
import sqlite3
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

from pagescan import native
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError, UsageError, file_error
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import TargetFacts
from pagescan.recording import schema
from pagescan.recording.records import (
    RecordedLook,
    RecordedMapping,
    RecordedProcess,
    RecordedUntracked,
    RecordingFacts,
    moment,
)
from pagescan.recording.rows import (
    Span,
    facts_of,
    look_of,
    mapping_of,
    process_of,
    untracked_of,
)
from pagescan.recording.salvage import UnreadableError, salvage

_NOT_OURS = "is not a recording of pagescan"
_SQLITE = b"SQLite format 3\0"


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
        damage: One line per missing part; empty: nothing is missing.
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
        self._files: list[sqlite3.Connection] = []
        self._rows: list[tuple[int, int]] = []  # of each look: its file, and its id
        self._sets: dict[int, _MappingsOverTime] = {}
        try:
            parts = sorted((self._open(path) for path in paths), key=_begun)
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
            self._damaged(f"the regions of the look at {look.time:%H:%M:%S}")
            return native.Columns.empty()

    def packed(self, look: RecordedLook) -> tuple[int, bytes]:
        """Return how many regions a look has, and their packed form in the file."""
        try:
            return look.regions, self._packed(look)
        except (sqlite3.Error, TypeError, zlib.error):
            self._damaged(f"the regions of the look at {look.time:%H:%M:%S}")
            return 0, b""

    def _packed(self, look: RecordedLook) -> bytes:
        file, row = self._rows[look.position]
        query = "SELECT written FROM looks WHERE id = ?"
        found = self._files[file].execute(query, (row,)).fetchone()
        return zlib.decompress(found[0])

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
            known = self._sets[look.process] = _MappingsOverTime(rows)
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

    def _open(self, path: str) -> _Part:
        """Read the rows of a file; search for rows that SQLite cannot reach."""
        part = _Part(_connect(path), path)
        try:
            part.read()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            part.file.close()
            reason = str(error)
        else:
            return part
        try:
            part = _Part(salvage(path), path)
        except UnreadableError as error:
            raise PagescanError(f"{path} {_NOT_OURS}: {error}") from error
        part.read()
        self._damaged(f"{path} is damaged ({reason}): what is whole was found")
        return part

    def _append(self, part: _Part) -> None:
        """Number the rows of a file after the rows of earlier files."""
        processes, mappings = len(self.processes), len(self.mappings)
        looks = len(self.looks)
        file = len(self._files)
        self._files.append(part.file)
        of_look = {row[0]: looks + at for at, row in enumerate(part.rows["looks"])}
        of_process = {
            row[0]: processes + at for at, row in enumerate(part.rows["processes"])
        }
        of_mapping = {
            row[0]: mappings + at for at, row in enumerate(part.rows["mappings"])
        }
        span = Span(sorted(of_look), looks)
        self.processes += [process_of(row, span) for row in part.rows["processes"]]
        if len(self.processes) == processes and part.rows["looks"]:
            self._add_unknown(part, span)
        self.mappings += [
            mapping_of(row, of_process, span) for row in part.rows["mappings"]
        ]
        self.untracked += [
            untracked_of(row, of_process, span) for row in part.rows["untracked"]
        ]
        for row in part.rows["looks"]:
            self._rows.append((file, row[0]))
            self.looks.append(
                look_of(row, (of_look[row[0]], of_process.get(row[1], 0)), of_mapping)
            )
        for message in part.damage:
            self._damaged(message)

    def _add_unknown(self, part: _Part, span: Span) -> None:
        """Add a process for looks that have lost theirs, so that they can be shown."""
        target = TargetFacts(0, "unknown", None, 0, 4096)
        begun, first, last = part.facts.begun, span.first(0), span.last(None)
        self.processes.append(
            RecordedProcess(target, begun, 0, 0, first, last, part.facts.ending)
        )
        self._damaged(f"{part.path}: the facts of the process are lost")


def open_recording(*paths: str) -> Recording:
    """Open a recording, or several files as one; they may grow while they are read.

    Args:
        paths: The files that `pagescan record` has written, in any order.

    Raises:
        PagescanError: A file cannot be read, or is no recording. A damaged file is
            read as far as it is whole; `Recording.damage` tells what is missing.
    """
    return Recording(paths)


class _Part:
    """The rows of one file."""

    def __init__(self, file: sqlite3.Connection, path: str) -> None:
        self.file = file
        self.path = path
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.damage: list[str] = []
        self.facts = _NO_FACTS

    def read(self) -> None:
        """Read all rows; leave out rows with a wrong checksum."""
        (version,) = self.file.execute("PRAGMA user_version").fetchone()
        (ours,) = self.file.execute("PRAGMA application_id").fetchone()
        if ours != schema.APPLICATION_ID:
            raise PagescanError(f"{self.path} {_NOT_OURS}")
        if version > schema.VERSION:
            raise PagescanError(
                f"{self.path} was written by a later pagescan (schema {version})",
                hint="pip install --upgrade pagescan",
            )
        self.file.execute("BEGIN")  # all tables as of one moment: the file may grow
        for table, columns in schema.COLUMNS.items():
            wanted = [name for name in columns if name != schema.OF_REGIONS]
            # With its table a name is a column, or an error: else it could be a text.
            quoted = [*schema.quoted(tuple(wanted)), "checksum"]
            names = ", ".join(f"{table}.{name}" for name in quoted)
            query = f"SELECT {names} FROM {table} ORDER BY id"  # noqa: S608 - our own
            self.rows[table] = self._whole(table, self.file.execute(query))
        self.file.execute("COMMIT")
        self.facts = facts_of(self.rows["facts"])

    def _whole(
        self, table: str, rows: Iterator[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        whole, broken = [], 0
        for row in rows:
            if schema.is_whole(table, row):
                whole.append(row)
            else:
                broken += 1
        if broken:
            self.damage.append(f"{self.path}: {broken} of the {table} are damaged")
        return whole


_NO_FACTS = RecordingFacts("", "", "", moment(0), 0.0)


def _begun(part: _Part) -> tuple[int, str]:
    looks = part.rows["looks"]
    return (looks[0][3] if looks else 0, part.path)


def _connect(path: str) -> sqlite3.Connection:
    """Open a file for reading only."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise file_error(error, f"read {path}") from error
    if head and head != _SQLITE:
        raise PagescanError(f"{path} {_NOT_OURS}")
    from urllib.parse import quote

    name = quote(os.path.abspath(os.fsencode(path)))
    journal = f"{path}-wal"
    alone = not os.path.exists(journal) or not os.path.getsize(journal)
    # Without a journal nothing is written beside the file, which may not be possible.
    words = "mode=ro&immutable=1" if alone else "mode=ro"
    file_ = sqlite3.connect(f"file:{name}?{words}", uri=True, isolation_level=None)
    with suppress(sqlite3.Error):
        file_.execute("PRAGMA trusted_schema = OFF")
        file_.execute("PRAGMA cell_size_check = ON")
    return file_


class _MappingsOverTime:
    """The mappings of a process at any look; the last answer is cached."""

    def __init__(self, rows: list[tuple[int, RecordedMapping]]) -> None:
        self._rows = sorted(rows, key=lambda pair: pair[1].mapping.start)
        edges = {row.first_look for _, row in rows}
        self._edges = sorted(edges | {row.last_look + 1 for _, row in rows})
        self._at = -1
        self._answer: tuple[Sequence[int], MappingSet] = ((), MappingSet())

    def at(self, look: int) -> tuple[Sequence[int], MappingSet]:
        """Return the indices of the mappings at a look, and their set."""
        at = bisect_right(self._edges, look)
        if at != self._at:
            alive = [
                (index, row.mapping)
                for index, row in self._rows
                if row.first_look <= look <= row.last_look
            ]
            self._answer = (
                [index for index, _ in alive],
                MappingSet(mapping for _, mapping in alive),
            )
            self._at = at
        return self._answer
