"""Adds the rows of `record --who`: functions, threads, the writers of each look."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.recording import schema
from pagescan.recording.lifetimes import LEVEL, Rows

if TYPE_CHECKING:
    from pagescan.attribution.look_writers import LookWriters, Source


class WriterRows:
    """The functions and threads of one program that are in the file, and their rows.

    A name is written with the first look that has it: a killed recorder has all names.
    """

    def __init__(self, rows: Rows, process: int) -> None:
        """Begin without a name; `process` is the id of the program."""
        self._rows = rows
        self._process = process
        self._ids: dict[str, dict[tuple[object, ...], int]] = {
            "functions": {},
            "threads": {},
        }
        self._used: dict[str, dict[int, int]] = {"functions": {}, "threads": {}}

    def add(
        self, found: LookWriters, mappings: Sequence[int], look: int, page_size: int
    ) -> None:
        """Add the writers of a look.

        Args:
            found: The writers.
            mappings: The ids of the mappings of the look, by their indices.
            look: The id of the look.
            page_size: Bytes per page.
        """
        sources = found.sources
        columns = (
            [self._function(source, look) for source in sources],
            [self._thread(source, look) for source in sources],
            [mappings[one.mapping] if one.mapping >= 0 else 0 for one in sources],
            [source.pages for source in sources],
        )
        counts = b"".join(array("I", column).tobytes() for column in columns)
        self._rows.next["writers"] = look
        self._rows.insert(
            "writers",
            found.attributed,
            found.ambiguous,
            found.lost,
            found.samples,
            zlib.compress(counts, LEVEL),
            zlib.compress(native.pack(found.runs, page_size), LEVEL),
        )

    def _function(self, source: Source, look: int) -> int:
        key = (schema.text(source.function), schema.text(source.module))
        return self._id("functions", key, look)

    def _thread(self, source: Source, look: int) -> int:
        key = (source.tid, schema.text(source.thread))
        return self._id("threads", key, look, look)

    def _id(self, table: str, key: tuple[object, ...], look: int, *more: object) -> int:
        """Return the id of a name; a new name is written with `more` columns."""
        ids = self._ids[table]
        row = ids.get(key)
        if row is None:
            row = ids[key] = self._rows.insert(table, self._process, *key, *more)
        self._used[table][row] = look
        return row

    def drop_unused(self, last: int) -> None:
        """Drop the names that no look after the one with the id `last` has."""
        for table, used in self._used.items():
            old = {row for row, look in used.items() if look <= last}
            if not old:
                continue
            self._rows.file.executemany(
                f"DELETE FROM {table} WHERE id = ?",  # noqa: S608 - our own
                [(row,) for row in old],
            )
            self._used[table] = {
                row: look for row, look in used.items() if row not in old
            }
            self._ids[table] = {
                key: row for key, row in self._ids[table].items() if row not in old
            }
