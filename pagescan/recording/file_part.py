"""Reads the rows of one file of a recording, but for the regions of its looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from pagescan.model.errors import PagescanError
from pagescan.recording import schema
from pagescan.recording.connection import NOT_OURS
from pagescan.recording.records import RecordingFacts, moment
from pagescan.recording.rows import facts_of

_NO_FACTS = RecordingFacts("", "", "", moment(0), 0.0)


class FilePart:
    """The rows of one file.

    Attributes:
        file: The file.
        path: Its path.
        rows: The whole rows, by table.
        damage: One line per table with damaged rows.
        facts: The facts of the recording.
    """

    def __init__(self, file: sqlite3.Connection, path: str) -> None:
        """Take a file; `read` reads it."""
        self.file = file
        self.path = path
        self.rows: dict[str, list[tuple[Any, ...]]] = {}
        self.damage: list[str] = []
        self.facts = _NO_FACTS

    def read(self) -> None:
        """Read all rows; leave out rows with a wrong checksum.

        Raises:
            PagescanError: It is no recording, or was written by a later version.
        """
        (version,) = self.file.execute("PRAGMA user_version").fetchone()
        (ours,) = self.file.execute("PRAGMA application_id").fetchone()
        if ours != schema.APPLICATION_ID:
            raise PagescanError(f"{self.path} {NOT_OURS}")
        if version > schema.VERSION:
            raise PagescanError(
                f"{self.path} was written by a later pagescan (schema {version})",
                hint="pip install --upgrade pagescan",
            )
        self.file.execute("BEGIN")  # all tables as of one moment: the file may grow
        for table in schema.COLUMNS:
            columns = schema.columns_of(table, version)
            if not columns:
                self.rows[table] = []
                continue
            wanted = [name for name in columns if name not in schema.OF_REGIONS]
            # With its table a name is a column, or an error: else it could be a text.
            quoted = [*schema.quoted(tuple(wanted)), "checksum"]
            names = ", ".join(f"{table}.{name}" for name in quoted)
            query = f"SELECT {names} FROM {table} ORDER BY id"  # noqa: S608 - our own
            self.rows[table] = self._whole(table, self.file.execute(query), version)
        self.file.execute("COMMIT")
        self.facts = facts_of(self.rows["facts"])

    def _whole(
        self, table: str, rows: Iterator[tuple[Any, ...]], version: int
    ) -> list[tuple[Any, ...]]:
        whole, broken = [], 0
        check = schema.check_of(table, version)
        for row in rows:
            if check(row):
                if version != schema.VERSION:
                    values = schema.upgraded(table, row[:-1], version)
                    row = (*values, row[-1])  # noqa: PLW2901 - it takes its place
                whole.append(row)
            else:
                broken += 1
        if broken:
            self.damage.append(f"{self.path}: {broken} of the {table} are damaged")
        return whole

    @property
    def begun(self) -> tuple[int, str]:
        """What files are sorted by: the time of the first look, and the path."""
        looks = self.rows["looks"]
        return (looks[0][3] if looks else 0, self.path)
