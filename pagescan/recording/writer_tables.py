"""Reads the rows of `record --who`: functions, threads, the writers of each look."""

from __future__ import annotations

import zlib
from array import array
from typing import Any, NamedTuple

from pagescan.recording import schema
from pagescan.recording.records import (
    RecordedFunction,
    RecordedThread,
    RecordedWriters,
    WriterCount,
)

Rows = dict[str, list[tuple[Any, ...]]]


class _Names(NamedTuple):
    """The indices of a file's functions, threads and mappings, by their ids."""

    functions: dict[int, int]
    threads: dict[int, int]
    mappings: dict[int, int]


class WriterTables:
    """The writers of the looks of all files.

    Attributes:
        functions: The functions that wrote.
        threads: The threads that wrote.
    """

    def __init__(self) -> None:
        """Begin without a file."""
        self.functions: list[RecordedFunction] = []
        self.threads: list[RecordedThread] = []
        self._rows: dict[int, tuple[tuple[Any, ...], _Names]] = {}

    def append(
        self,
        rows: Rows,
        of_process: dict[int, int],
        of_mapping: dict[int, int],
        of_look: dict[int, int],
    ) -> None:
        """Number the rows of a file after the rows of earlier files.

        Args:
            rows: The rows of the file, by table.
            of_process: The indices of its processes, by their ids.
            of_mapping: The same of its mappings.
            of_look: The same of its looks.
        """
        functions, threads = rows["functions"], rows["threads"]
        names = _Names(
            {row[0]: len(self.functions) + at for at, row in enumerate(functions)},
            {row[0]: len(self.threads) + at for at, row in enumerate(threads)},
            of_mapping,
        )
        self.functions += [
            RecordedFunction(
                of_process[process], schema.words_of(function), schema.words_of(module)
            )
            for _, process, function, module, _ in functions
        ]
        self.threads += [
            RecordedThread(of_process[process], tid, schema.words_of(name) or "")
            for _, process, tid, name, _, _ in threads
        ]
        for row in rows["writers"]:
            if row[0] in of_look:
                self._rows[of_look[row[0]]] = row, names

    def __bool__(self) -> bool:
        """Whether any look has its writers."""
        return bool(self._rows)

    def of(self, position: int) -> RecordedWriters | None:
        """Return the writers of a look; None: they were not recorded, or are lost."""
        found = self._rows.get(position)
        if found is None:
            return None
        (_, attributed, ambiguous, lost, samples, packed, _), names = found
        numbers = array("I")
        numbers.frombytes(zlib.decompress(packed))
        count = len(numbers) // 4
        functions, threads, mappings, pages = (
            numbers[at * count : (at + 1) * count] for at in range(4)
        )
        counts = tuple(
            WriterCount(
                names.functions.get(function, -1),
                names.threads.get(thread, -1),
                names.mappings.get(mapping, -1),
                number,
            )
            for function, thread, mapping, number in zip(
                functions, threads, mappings, pages, strict=True
            )
        )
        return RecordedWriters(attributed, ambiguous, lost, samples, counts)
