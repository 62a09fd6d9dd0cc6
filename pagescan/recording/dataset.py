"""The folder of a dataset: its layout, what is in it, and how files are added to it.

    DIR/_pagescan.json                          the version of the columns
    DIR/TABLE/host=HOST/date=DATE/SESSION.FIRST-LAST.parquet

TABLE is one of `TABLES`. A file has the looks FIRST to LAST of one session, of one day.
Files are written in a folder of their own, DIR/.partial-PID, and renamed when they are
complete, the file of `looks` last: only looks that have one are in the dataset.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self
from urllib.parse import quote

from pagescan.model.errors import PagescanError, UsageError, file_error
from pagescan.recording.wrong_paths import MARKER

VERSION = 1
"""The version of the tables and their columns: a reader refuses a later one."""
LOOKS = "looks"
TABLES = ("regions", "writers", "mappings", LOOKS)
"""The tables, in the order in which their files are renamed."""
_PARTIAL = ".partial-"
_DRAFT = re.compile(r"\.partial-\d+")
_NAME = re.compile(r"(.+)\.(\d+)-(\d+)\.parquet")
_NO_HOST = "__HIVE_DEFAULT_PARTITION__"


class Piece(NamedTuple):
    """Looks of one session, of one day: one file per table.

    Attributes:
        host: The name of the machine.
        date: The day, as 2026-01-02 (UTC).
        session: The session.
        first: The number of its first look.
        last: The number of its last look.
    """

    host: str
    date: str
    session: str
    first: int
    last: int

    def path(self, table: str) -> str:
        """Return the path of its file of a table, below the dataset."""
        host = quote(self.host, safe="") if self.host else _NO_HOST
        session = quote(self.session, safe="")
        name = f"{session}.{self.first}-{self.last}.parquet"
        return f"{table}/host={host}/date={self.date}/{name}"


class Dataset:
    """A dataset that files are added to; no other process can add to it then."""

    def __init__(self, folder: str) -> None:
        """Take a folder; `with` makes and locks it."""
        self.folder = folder
        self._draft = os.path.join(folder, f"{_PARTIAL}{os.getpid()}")
        self._lock = -1
        self._is_new = False  # whether this object has made the folder a dataset
        self._made_folder = False

    def __enter__(self) -> Self:
        """Make the folder, or check that it is a dataset; wait for other writers.

        Raises:
            PagescanError: It is something else, or nothing can be written there.
        """
        try:
            with self._explained():
                self._take()
                is_dataset = self._check()
                os.mkdir(self._draft, 0o700)
                if not is_dataset:
                    self._mark()
                    self._is_new = True
        except BaseException:
            self.__exit__()
            raise
        return self

    def _take(self) -> None:
        """Make the folder and lock it; again, if another writer has removed it."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        while True:
            self._made_folder = not os.path.isdir(self.folder)
            os.makedirs(self.folder, 0o700, exist_ok=True)
            self._lock = os.open(self.folder, flags)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._lock), os.stat(self.folder)):
                    return
            os.close(self._lock)
            self._lock = -1

    def __exit__(self, *_: object) -> None:
        """Unlock the folder; a dataset that got nothing is removed again."""
        shutil.rmtree(self._draft, ignore_errors=True)
        if self._is_new:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.folder, MARKER))
        if self._made_folder:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)  # it fails where anything is in it
        if self._lock >= 0:
            os.close(self._lock)

    def draft(self, piece: Piece, table: str) -> int:
        """Return a descriptor of a file to write, which is not yet in the dataset."""
        path = os.path.join(self._draft, piece.path(table))
        _make_folder(os.path.dirname(path))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def add(self, pieces: Sequence[Piece]) -> int:
        """Move the files of pieces into the dataset; return their bytes."""
        size = 0
        with self._explained():
            for piece in pieces:
                for table in TABLES:
                    before = os.path.join(self._draft, piece.path(table))
                    after = os.path.join(self.folder, piece.path(table))
                    _make_folder(os.path.dirname(after))
                    size += os.stat(before).st_size
                    os.rename(before, after)
                self._is_new = False
        return size

    def looks_of(self, host: str, session: str) -> list[tuple[int, int]]:
        """Return the looks of a session that are in the dataset: first, last.

        Files of other tables without their looks are removed: an earlier writer was
        killed before it had renamed all of them.
        """
        with self._explained():
            names: dict[str, set[str]] = {table: set() for table in TABLES}
            for table in TABLES:
                for path in self._files(table, host, session):
                    names[table].add(os.path.relpath(path, self._table(table)))
            for table in TABLES:
                for name in names[table] - names[LOOKS]:
                    os.unlink(os.path.join(self._table(table), name))
        found = (_NAME.fullmatch(os.path.basename(name)) for name in names[LOOKS])
        return sorted((int(one[2]), int(one[3])) for one in found if one)

    def _files(self, table: str, host: str, session: str) -> Iterator[str]:
        folder = os.path.dirname(
            os.path.dirname(
                os.path.join(self.folder, Piece(host, "", session, 0, 0).path(table))
            )
        )
        if not os.path.isdir(folder):
            return
        for date in os.listdir(folder):
            for name in os.listdir(os.path.join(folder, date)):
                match = _NAME.fullmatch(name)
                if match and match[1] == quote(session, safe=""):
                    yield os.path.join(folder, date, name)

    def _table(self, table: str) -> str:
        return os.path.join(self.folder, table)

    def _check(self) -> bool:
        """Whether it is a dataset; False: an empty folder, which will be one.

        Drafts of a killed writer are removed: nobody else writes now.
        """
        drafts = {name for name in os.listdir(self.folder) if _DRAFT.fullmatch(name)}
        is_dataset = check_dataset(self.folder)
        if not is_dataset and set(os.listdir(self.folder)) - drafts:
            raise PagescanError(
                f"{self.folder} is not empty, and is no dataset of pagescan",
                hint="name a new folder",
            )
        for name in drafts:
            shutil.rmtree(os.path.join(self.folder, name))
        return is_dataset

    def _mark(self) -> None:
        """Write the marker of the dataset."""
        draft = os.path.join(self._draft, MARKER)
        with open(draft, "w", encoding="ascii") as file:
            json.dump({"pagescan_dataset": VERSION, "tables": list(TABLES)}, file)
            file.write("\n")
        os.rename(draft, os.path.join(self.folder, MARKER))

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise UsageError(
                f"{self.folder} is not a folder", call="mkdir", errno=error.errno
            ) from error
        except OSError as error:
            raise file_error(error, f"write {self.folder}", call="write") from error


def _make_folder(path: str) -> None:
    """Make a folder and its parents, for their owner alone."""
    if not os.path.isdir(path):
        _make_folder(os.path.dirname(path))
        os.mkdir(path, 0o700)


def check_dataset(folder: str) -> bool:
    """Whether a folder is a dataset that this version can read.

    Raises:
        PagescanError: It was written by a later version, or its marker is damaged.
    """
    try:
        with open(os.path.join(folder, MARKER), encoding="utf-8") as file:
            version = json.load(file)["pagescan_dataset"]
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise file_error(error, f"read {folder}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PagescanError(f"{folder}/{MARKER} is damaged") from error
    if not isinstance(version, int) or version > VERSION:
        raise PagescanError(
            f"{folder} was written by a later pagescan (dataset {version})",
            hint="pip install --upgrade pagescan",
        )
    return True
