"""The files of a dataset, and those that are cut: no engine would read beside them."""

from __future__ import annotations

import glob
import os
from typing import NamedTuple

_MAGIC = b"PAR1"
_LEAST = 12  # bytes: the magic number twice, and the length of the footer


class Pieces(NamedTuple):
    """The pieces of a dataset: looks of one session, of one day, a file per table.

    Attributes:
        whole: The paths of those that can be read, below the folder of a table.
        damaged: The paths of the files that cannot.
    """

    whole: list[str]
    damaged: list[str]


def pieces_of(dataset: str, tables: tuple[str, ...]) -> Pieces:
    """Return the pieces of a dataset; one with a cut file in any table is not whole.

    Else the looks of a table would be missing in another one, and shares were wrong.

    Args:
        dataset: The folder.
        tables: The tables that are asked; `looks` is one of them.
    """
    names: set[str] = set()
    bad: set[str] = set()
    damaged = []
    for table in tables:
        folder = os.path.join(dataset, table)
        for path in sorted(glob.glob(f"{glob.escape(folder)}/*/*/*.parquet")):
            name = os.path.relpath(path, folder)
            if table == "looks":
                names.add(name)
            if not _is_whole(path):
                damaged.append(path)
                bad.add(name)
    return Pieces(sorted(names - bad), damaged)


def _is_whole(path: str) -> bool:
    """Whether a file begins and ends as Parquet does, with room for its footer."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _LEAST or file.read(4) != _MAGIC:
                return False
            file.seek(size - 8)
            end = file.read(8)
    except OSError:
        return False
    return end[4:] == _MAGIC and int.from_bytes(end[:4], "little") <= size - _LEAST
