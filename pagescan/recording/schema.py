"""The tables of a recording, a SQLite file; docs/recordings.md describes them."""

import os
import zlib
from typing import Any

APPLICATION_ID = 0x70677363
"""The application id in the head of the file: "pgsc"."""
VERSION = 1
"""Its user_version: a reader refuses a later one."""

COLUMNS = {
    "facts": ("id", "name", "value"),
    "processes": (
        *("id", "pid", "start_time", "name", "exe", "page_size", "armed_at"),
        *("tracked_bytes", "stopped_ns", "first_look", "last_look", "ending"),
    ),
    "mappings": (
        *("id", "process", "start", "end", "perms", "offset", "major", "minor"),
        *("inode", "name", "page_size", "label", "new", "first_look", "last_look"),
    ),
    "untracked": (
        *("id", "process", "start", "end", "mapping", "why"),
        *("first_look", "last_look"),
    ),
    "looks": (
        *("id", "process", "number", "time", "interval_ns", "pages", "regions"),
        *("resident", "scan_ns", "max_wait_ns", "ioctls", "pages_walked"),
        *("mappings_added", "share_ppb", "huge_restored", "huge_lost"),
        *("estimate", "estimate_low", "estimate_high", "estimate_ppb"),
        *("recorder_ns", "counts", "written"),
    ),
}
"""The columns of each table; every row ends with `checksum`, its CRC-32."""

OF_REGIONS = "written"
"""The column with the packed regions, which has a checksum of its own (zlib's)."""

_LAST = ("first_look", "last_look", "ending")
"""Columns that change after the row was written: they are not in the checksum."""


def statements() -> list[str]:
    """Return the statements that make the tables."""
    return [
        f"PRAGMA application_id = {APPLICATION_ID}",
        f"PRAGMA user_version = {VERSION}",
        *(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY,"
            f" {', '.join(quoted(columns[1:]))}, checksum INTEGER)"
            for table, columns in COLUMNS.items()
        ),
    ]


def quoted(columns: tuple[str, ...]) -> list[str]:
    """Return quoted names of columns: `end` is a keyword of SQL."""
    return [f'"{name}"' for name in columns]


def insertion(table: str) -> str:
    """Return the statement that adds a row."""
    places = ", ".join("?" * (len(COLUMNS[table]) + 1))
    return f"INSERT INTO {table} VALUES ({places})"  # noqa: S608 - names of our own


def checksum(table: str, row: tuple[Any, ...]) -> int:
    """Return the CRC-32 of a row, without its regions, lifetime and ending."""
    columns = COLUMNS[table]
    fixed = [
        value
        for name, value in zip(columns, row, strict=False)
        if name not in _LAST and name != OF_REGIONS
    ]
    return zlib.crc32(repr(fixed).encode("utf-8", "surrogatepass"))


def is_whole(table: str, row: tuple[Any, ...]) -> bool:
    """Whether a row, which ends with its checksum, is as it was written."""
    if row[-1] != checksum(table, row[:-1]):
        return False
    values = dict(zip(COLUMNS[table], row, strict=False))
    return (
        isinstance(values.get("first_look", 0), int)
        and isinstance(values.get("last_look"), int | None)
        and isinstance(values.get("ending"), str | None)
    )


def signed(address: int) -> int:
    """Return an address as SQLite stores it: a signed number of 64 bits."""
    return address - (1 << 64) if address >> 63 else address


def unsigned(number: int) -> int:
    """Return the address that `signed` has stored."""
    return number & ((1 << 64) - 1)


def text(words: str | None) -> str | bytes | None:
    """Return text as the file stores it: as bytes if it is not UTF-8."""
    if words is None:
        return None
    try:
        words.encode()
    except UnicodeEncodeError:
        return os.fsencode(words)
    return words


def words_of(value: str | bytes | None) -> str | None:
    """Return the text that `text` has stored."""
    return os.fsdecode(value) if isinstance(value, bytes) else value
