"""Opens the SQLite file of a recording, for reading only."""

import os
import sqlite3
import stat
from contextlib import suppress

from pagescan.model.errors import PagescanError
from pagescan.recording.wrong_paths import unreadable

NOT_OURS = "is not a recording of pagescan"
_SQLITE = b"SQLite format 3\0"


def connect(path: str) -> sqlite3.Connection:
    """Open a file for reading only."""
    try:
        # A FIFO without a writer would keep this waiting.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            head = file.read(16) if regular else b""
    except OSError as error:
        raise unreadable(path, error) from error
    if not regular:
        raise PagescanError(f"{path} {NOT_OURS}: not a regular file")
    if head and head != _SQLITE:
        raise PagescanError(f"{path} {NOT_OURS}")
    from urllib.parse import quote

    name = quote(os.path.abspath(os.fsencode(path)))
    journal = f"{path}-wal"
    alone = not os.path.exists(journal) or not os.path.getsize(journal)
    # Without a journal nothing is written beside the file, which may not be possible.
    words = "mode=ro&immutable=1" if alone else "mode=ro"
    opened = sqlite3.connect(f"file:{name}?{words}", uri=True, isolation_level=None)
    with suppress(sqlite3.Error):
        opened.execute("PRAGMA trusted_schema = OFF")
        opened.execute("PRAGMA cell_size_check = ON")
    return opened
