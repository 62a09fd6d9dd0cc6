"""Saves the whole rows of a damaged or cut recording: reads its pages without SQLite.

SQLite finds a row through pages that lead to it. Where one of these is lost, the rows
behind it are still in the file. Their format is described at
https://sqlite.org/fileformat2.html: a page that begins with 13 has rows, and a row that
is too long for its page goes on in others. A row is undamaged if its checksum agrees.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator

from pagescan.recording import schema
from pagescan.recording.journal import Frame, frames, read_journal

_LEAF = 13
_HEADER = b"SQLite format 3\0"
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LONGEST = 1 << 30


class UnreadableError(ValueError):
    """A row, or the file, is damaged or has another format."""


def salvage(path: str) -> sqlite3.Connection:
    """Return a recording in memory with all whole rows of a damaged one.

    Raises:
        UnreadableError: The file is no SQLite file, or has no whole row.
    """
    pages, older = _pages(path)
    saved = sqlite3.connect(":memory:")
    for statement in schema.statements():
        saved.execute(statement)
    found = 0
    leaves = [*(pages[number] for number in sorted(pages)), *older]
    for at, page in enumerate(leaves):
        for table, row in _rows(pages, page, 0 if at else 100):
            saved.execute(f"INSERT OR IGNORE{schema.insertion(table)[6:]}", row)
            found += 1
    if not found:
        raise UnreadableError("it has no whole row")
    saved.commit()
    return saved


def _pages(path: str) -> tuple[dict[int, bytes], list[bytes]]:
    """Return the pages by their numbers, from 1, and the pages that they replace.

    Pages of the journal replace those of the file: they are later. Where one of them
    is damaged, the rows are still in the page that it replaces.
    """
    with open(path, "rb") as file:
        data = file.read()
    size = 4096
    if data[:16] == _HEADER:
        size = int.from_bytes(data[16:18], "big")
        size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1):
        size = 4096
    pages = {
        at // size + 1: data[at : at + size]
        for at in range(0, len(data) - size + 1, size)
    }
    older: list[bytes] = []
    waiting: list[Frame] = []
    for frame in frames(read_journal(path), size):
        waiting.append(frame)
        if frame.commits:
            older += [pages[one.number] for one in waiting if one.number in pages]
            pages.update((one.number, one.page) for one in waiting)
            waiting.clear()
    older.reverse()  # the latest first
    return pages, older


def _rows(
    pages: dict[int, bytes], page: bytes, head: int
) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield the whole rows of a page, with their tables; most pages have none."""
    size = len(page)
    if page[head] != _LEAF:
        return
    count = int.from_bytes(page[head + 3 : head + 5], "big")
    for at in range(head + 8, min(head + 8 + 2 * count, size), 2):
        cell = int.from_bytes(page[at : at + 2], "big")
        try:
            row = _row(pages, page, cell)
        except (UnreadableError, IndexError, struct.error, UnicodeDecodeError):
            continue
        if found := _known(row):
            yield found


def _known(row: tuple[object, ...]) -> tuple[str, tuple[object, ...]] | None:
    """Return a row as it is now written, with its table; None: it is broken.

    Its length and its checksum tell the table, and the version that wrote it.
    """
    for table in schema.COLUMNS:
        for version in range(schema.VERSION, 0, -1):
            if len(row) != len(schema.columns_of(table, version)) + 1:
                continue
            if schema.is_whole(table, row, version):
                values = schema.upgraded(table, row[:-1], version)
                return table, (*values, schema.checksum(table, values))
            break
    return None


def _row(pages: dict[int, bytes], page: bytes, at: int) -> tuple[object, ...]:
    """Read the row at an offset of a page."""
    length, at = _number(page, at)
    key, at = _number(page, at)
    payload = _payload(pages, page, at, length)
    head, at = _number(payload, 0)
    types = []
    while at < head:
        kind, at = _number(payload, at)
        types.append(kind)
    values: list[object] = []
    for kind in types:
        value, at = _value(payload, at, kind)
        values.append(value)
    return (key, *values[1:])


def _payload(pages: dict[int, bytes], page: bytes, at: int, length: int) -> bytes:
    """Return the bytes of a row: those in the page, and those in others."""
    size = len(page)
    if length > _LONGEST:
        raise UnreadableError
    if length <= size - 35:
        return page[at : at + length]
    least = (size - 12) * 32 // 255 - 23
    local = least + (length - least) % (size - 4)
    local = local if local <= size - 35 else least
    parts = [page[at : at + local]]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    left = length - local
    while left > 0:
        more = pages.get(following)
        if more is None:
            raise UnreadableError
        parts.append(more[4 : 4 + left])
        left -= size - 4
        following = int.from_bytes(more[:4], "big")
    return b"".join(parts)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of 7 bits per byte, the highest first; the ninth byte has 8."""
    number = 0
    for count in range(9):
        byte = data[at + count]
        if count == 8:
            return number << 8 | byte, at + 9
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, at + count + 1
    raise UnreadableError


def _value(data: bytes, at: int, kind: int) -> tuple[object, int]:
    """Read a value of a type; the types are those of SQLite's record format."""
    if kind in _WIDTHS:
        end = at + _WIDTHS[kind]
        return int.from_bytes(data[at:end], "big", signed=True), end
    if kind == 7:
        return struct.unpack(">d", data[at : at + 8])[0], at + 8
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind], at
    if kind < 12:
        raise UnreadableError
    end = at + (kind - 12) // 2
    if end > len(data):
        raise UnreadableError
    raw = data[at:end]
    return (raw if kind % 2 == 0 else raw.decode()), end
