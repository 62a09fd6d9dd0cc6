"""Adds the rows of a recording, and follows the lifetimes of mappings."""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from collections.abc import Iterable, Mapping as Dict, Sequence
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.model.mapping_set import MappingSet, bounds_of
from pagescan.recording import schema

if TYPE_CHECKING:
    from pagescan.model.batch import Batch
    from pagescan.model.looks import Look
    from pagescan.model.memory import Mapping, Untracked

LEVEL = 1
"""The level of zlib: higher ones take longer and gain 1 %."""


class Rows:
    """Adds rows with their ids and checksums, within the transaction of the caller.

    Attributes:
        next: The id of the next row, by table. After a failed transaction some ids
            are never used.
    """

    def __init__(self, file: sqlite3.Connection) -> None:
        """Begin with an empty file."""
        self.file = file
        self.next = dict.fromkeys(schema.COLUMNS, 1)

    def insert(self, table: str, *values: object) -> int:
        """Add a row, with an id and a checksum; return the id."""
        row = self.next[table]
        full = (row, *values)
        checksum = schema.checksum(table, full)
        self.file.execute(schema.insertion(table), (*full, checksum))
        self.next[table] += 1
        return row

    def retire(self, table: str, ids: Iterable[int], last: int) -> None:
        """Write the last look for which some rows were valid."""
        self.file.executemany(
            f"UPDATE {table} SET last_look = ? WHERE id = ?",  # noqa: S608 - our own
            [(last, row) for row in ids],
        )

    def relabel(self, row: int, label: str) -> None:
        """Write the label of a mapping that was not known before."""
        run = self.file.execute
        names = ", ".join(schema.quoted(schema.COLUMNS["mappings"]))
        query = f"SELECT {names} FROM mappings WHERE id = ?"  # noqa: S608 - our own
        full = list(run(query, (row,)).fetchone())
        full[schema.COLUMNS["mappings"].index("label")] = schema.text(label)
        run(
            "UPDATE mappings SET label = ?, checksum = ? WHERE id = ?",
            (schema.text(label), schema.checksum("mappings", tuple(full)), row),
        )


class Lifetimes:
    """The mappings of one program that exist now, and their rows.

    Attributes:
        row: The id of the program.
        in_order: The ids of the present mappings, by their indices in the batch.
    """

    def __init__(self, rows: Rows, row: int) -> None:
        """Begin without a mapping."""
        self.row = row
        self._rows = rows
        self._mappings: Sequence[Mapping] = ()
        self._labels: Dict[int, str] = {}
        self._ids: dict[Mapping, int] = {}
        self.in_order = array("I")
        self._untracked: tuple[Untracked, ...] = ()
        self._untracked_ids: dict[Untracked, int] = {}

    def follow(self, look: Look, now: int) -> None:
        """Write which mappings came and went since the previous look.

        Args:
            look: The look.
            now: Its id.
        """
        batch = look.batch
        relabelled = batch.labels is not self._labels and batch.labels != self._labels
        if batch.mappings is not self._mappings or relabelled:
            self._follow_mappings(batch, now)
        if look.untracked != self._untracked:
            self._follow_untracked(look.untracked, now)

    def _follow_mappings(self, batch: Batch, now: int) -> None:
        mappings = batch.mappings
        new = {mappings[index] for index in batch.new}
        here = set(mappings)
        gone = [row for one, row in self._ids.items() if one not in here]
        self._rows.retire("mappings", gone, now - 1)
        ids = {one: row for one, row in self._ids.items() if one in here}
        for one in mappings:
            label = batch.labels.get(one.start)
            if one not in ids:
                ids[one] = self._insert(one, label, now, new=one in new)
            elif label is not None and label != self._labels.get(one.start):
                self._rows.relabel(ids[one], label)
        self._ids, self._mappings = ids, mappings
        self._labels = batch.labels
        self.in_order = array("I", [ids[one] for one in mappings])

    def _insert(self, one: Mapping, label: str | None, now: int, *, new: bool) -> int:
        return self._rows.insert(
            "mappings",
            self.row,
            schema.signed(one.start),
            schema.signed(one.end),
            one.perms,
            schema.signed(one.offset),
            *one.device,
            schema.signed(one.inode),
            schema.text(one.name),
            one.page_size,
            schema.text(label),
            int(new),
            now,
            None,
        )

    def _follow_untracked(self, items: tuple[Untracked, ...], now: int) -> None:
        old = self._untracked_ids
        here = set(items)
        gone = [row for item, row in old.items() if item not in here]
        self._rows.retire("untracked", gone, now - 1)
        ids = {item: row for item, row in old.items() if item in here}
        for item in items:
            if item not in ids:
                ids[item] = self._rows.insert(
                    "untracked",
                    self.row,
                    schema.signed(item.start),
                    schema.signed(item.end),
                    schema.text(item.mapping),
                    item.why,
                    now,
                    None,
                )
        self._untracked, self._untracked_ids = items, ids

    def counts(self, batch: Batch) -> tuple[bytes, int]:
        """Return the written pages per mapping id, packed, and the sum of the pages."""
        mappings = batch.mappings
        bounds = (
            mappings.bounds if isinstance(mappings, MappingSet) else bounds_of(mappings)
        )
        shares = native.shares(batch.columns(), *bounds)
        size = batch.page_size
        pages = array("I", [length // size for length in shares.lengths])
        ids = array("I", [self.in_order[index] for index in shares.ranges])
        total = sum(pages) + shares.outside // size
        return zlib.compress(ids.tobytes() + pages.tobytes(), LEVEL), total

    def end(self, last: int) -> None:
        """Write that all present mappings end with a look."""
        self._rows.retire("mappings", self._ids.values(), last)
        self._rows.retire("untracked", self._untracked_ids.values(), last)
