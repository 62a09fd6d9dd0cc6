"""The tables of a recording, a SQLite file; docs/recordings.md describes them."""

from __future__ import annotations  # itemgetter[Any] is no type at run time

import os
import zlib
from functools import cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

APPLICATION_ID = 0x70677363
"""The application id in the head of the file: "pgsc"."""
VERSION = 3
"""Its user_version: a reader refuses a later one."""
SINCE = {"functions": 2, "threads": 2, "writers": 2}
"""The version that brought a table, if it was not the first."""
LATER = {"looks": {"target_ns": 3, "used_ns": 3}}
"""The version that brought a column to a table of before."""

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
        *("mappings_added", "share_ppb", "target_ns", "used_ns"),
        *("huge_restored", "huge_lost"),
        *("estimate", "estimate_low", "estimate_high", "estimate_ppb"),
        *("recorder_ns", "counts", "written"),
    ),
    "functions": ("id", "process", "function", "module"),
    "threads": ("id", "process", "tid", "name", "first_look"),
    "writers": ("id", "attributed", "ambiguous", "lost", "samples", "counts", "runs"),
}
"""The columns of each table; every row ends with `checksum`, its CRC-32.

No two tables have equally many, in no version: `salvage` knows the table of a row by
that.
"""

OF_REGIONS = ("written", "runs")
"""The columns with packed regions, which have a checksum of their own (zlib's)."""

_NO_NUMBERS = {
    *("name", "value", "exe", "ending", "perms", "label", "mapping", "why"),
    *("function", "module", "counts", "written", "runs"),
}
"""The columns with text or packed regions; all others have numbers, or NULL."""

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


def columns_of(table: str, version: int = VERSION) -> tuple[str, ...]:
    """Return the columns that a table had in a version; none: there was no table."""
    if version < SINCE.get(table, 1):
        return ()
    later = LATER.get(table, {})
    return tuple(name for name in COLUMNS[table] if later.get(name, 1) <= version)


def upgraded(table: str, row: tuple[Any, ...], version: int) -> tuple[Any, ...]:
    """Return a row without its checksum, with all columns: those of later are None."""
    if version == VERSION:
        return row
    values = dict(zip(columns_of(table, version), row, strict=False))
    return tuple(
        values.get(name)
        for name in COLUMNS[table]
        if name in values or name not in OF_REGIONS
    )


def checksum(table: str, row: tuple[Any, ...], version: int = VERSION) -> int:
    """Return the CRC-32 of a row, without its regions, lifetime and ending."""
    return _crc(_places(table, version).fixed(row))


def _crc(values: Iterable[Any]) -> int:
    return zlib.crc32(repr([*values]).encode("utf-8", "surrogatepass"))


def is_whole(table: str, row: tuple[Any, ...], version: int = VERSION) -> bool:
    """Whether a row, which ends with its checksum, is as a recorder writes it.

    Anybody can compute a checksum: each number must be one, too.
    """
    return len(row) > 1 and check_of(table, version)(row)


@cache
def check_of(table: str, version: int) -> Callable[[tuple[Any, ...]], bool]:
    """Return `is_whole` for the rows of a table, which have at least two values."""
    fixed, numbers, first_look, ending = _places(table, version)
    of_numbers = _NUMBER_OR_NULL.issuperset

    def check(row: tuple[Any, ...]) -> bool:
        return (
            row[-1] == _crc(fixed(row))
            and of_numbers(map(type, numbers(row)))
            and (first_look is None or row[first_look] is not None)
            and (ending is None or isinstance(row[ending], str | None))
        )

    return check


class _Places(NamedTuple):
    """Where the columns of a table are in its rows.

    Attributes:
        fixed: Takes the columns that are in the checksum from a row.
        numbers: Takes those with numbers.
        first_look: The index of that column; None: the table does not have it.
        ending: The same.
    """

    fixed: itemgetter[Any]
    numbers: itemgetter[Any]
    first_look: int | None
    ending: int | None


@cache  # a recording of a day has 100,000 rows
def _places(table: str, version: int) -> _Places:
    columns = columns_of(table, version)

    def others(left_out: Iterable[str]) -> itemgetter[Any]:
        out = {*left_out, *OF_REGIONS}
        places = [at for at, name in enumerate(columns) if name not in out]
        # With one place it would return a value: the same one twice is a tuple.
        return itemgetter(*(places if len(places) > 1 else places * 2))

    return _Places(
        others(_LAST),
        others(_NO_NUMBERS),
        *(
            columns.index(name) if name in columns else None
            for name in ("first_look", "ending")
        ),
    )


_NUMBER_OR_NULL = {int, type(None)}


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
