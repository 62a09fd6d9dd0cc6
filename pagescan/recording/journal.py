"""Reads the journal of a recording, FILE-wal, and tells whether it is damaged.

SQLite reads a journal up to the first frame whose checksum is wrong, and says nothing
about the frames behind it: a kill may leave one that was not written to its end. But
frames are written one after the other. So a wrong frame means damage if another one of
the same generation follows, or if it ends a transaction.
The format is described at https://sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator
from typing import NamedTuple

_HEAD, _FRAME_HEAD = 32, 24
_MAGIC = 0x377F0682  # plus 1: the sums are of big-endian numbers
_BITS = 0xFFFFFFFF
_TRIES = 3


class Frame(NamedTuple):
    """A page in a journal.

    Attributes:
        number: The number of the page in the file, from 1.
        commits: Whether it is the last one of a transaction.
        page: Its bytes.
    """

    number: int
    commits: bool
    page: bytes


def read_journal(path: str) -> bytes:
    """Return the journal of a recording; empty: it has none."""
    try:
        with open(f"{path}-wal", "rb") as file:
            return file.read()
    except OSError:
        return b""


def frames(journal: bytes, size: int) -> Iterator[Frame]:
    """Yield the frames of the present generation, with right or wrong checksums.

    Args:
        journal: The journal.
        size: Bytes per page.
    """
    salts = journal[16:24]
    if _sums(journal[:24], (0, 0), _order(journal)) != _stored(journal, 24):
        salts = journal[_HEAD + 8 : _HEAD + 16]  # the head is wrong
    for at in range(_HEAD, len(journal) - _FRAME_HEAD - size + 1, _FRAME_HEAD + size):
        if journal[at + 8 : at + 16] == salts:
            number, committed = struct.unpack_from(">II", journal, at)
            page = journal[at + _FRAME_HEAD : at + _FRAME_HEAD + size]
            yield Frame(number, bool(committed), page)


def damage_of(path: str) -> str | None:
    """Return what is wrong with the journal of a recording; None: nothing.

    A recorder that runs may write while this reads. So the journal is damaged only if
    it is wrong at the same place each time.
    """
    wrong = first_wrong(read_journal(path))
    for _ in range(_TRIES - 1):
        if wrong is None or first_wrong(read_journal(path)) != wrong:
            return None
    if wrong is None:
        return None
    return f"frame {wrong} of its journal is wrong" if wrong else "its journal is wrong"


def first_wrong(journal: bytes) -> int | None:
    """Return the number of the first damaged frame, from 1; 0: the head is; None: none.

    A frame that a kill has left unfinished is not damaged.
    """
    if len(journal) <= _HEAD:
        return None
    order, size = _order(journal), int.from_bytes(journal[8:12], "big")
    magic = int.from_bytes(journal[:4], "big") & ~1
    sums = _sums(journal[:24], (0, 0), order)
    if magic != _MAGIC or size < 512 or sums != _stored(journal, 24):
        return 0
    wrong = None
    for at in range(_HEAD, len(journal) - _FRAME_HEAD - size + 1, _FRAME_HEAD + size):
        ours = journal[at + 8 : at + 16] == journal[16:24]
        if wrong is not None and ours:
            return wrong
        if wrong is None:
            sums = _sums(journal[at : at + 8], sums, order)
            page = journal[at + _FRAME_HEAD : at + _FRAME_HEAD + size]
            sums = _sums(page, sums, order)
            if not ours or sums != _stored(journal, at + 16):
                wrong = (at - _HEAD) // (_FRAME_HEAD + size) + 1
                if ours and any(journal[at + 4 : at + 8]):
                    return wrong
    return None


def _order(journal: bytes) -> str:
    return "big" if journal[3:4] and journal[3] & 1 else "little"


def _stored(journal: bytes, at: int) -> tuple[int, int]:
    """Return the sums that are stored at an offset."""
    if len(journal) < at + 8:
        return -1, -1
    first, second = struct.unpack_from(">II", journal, at)
    return first, second


def _sums(data: bytes, sums: tuple[int, int], order: str) -> tuple[int, int]:
    """Add data to the two sums of a checksum."""
    words = array("I", data)
    if order != sys.byteorder:
        words.byteswap()
    first, second = sums
    pairs = iter(words)
    for one, other in zip(pairs, pairs, strict=True):
        first = first + one + second & _BITS
        second = second + other + first & _BITS
    return first, second
