"""Creates the file of a recording; one that it replaces stays until its first look."""

from __future__ import annotations

import contextlib
import os
import stat

from pagescan.model.errors import PagescanError, UsageError, file_error
from pagescan.recording.owner import check_unmarked, mark

_REPLACED = ".replaced"


def create(path: str, *, overwrite: bool) -> tuple[int, list[tuple[str, str]]]:
    """Create an empty file that only this user can read, at any moment.

    Returns:
        A descriptor that marks it as one that is being written, and the files that it
        replaces: where they are now, and their names.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    replaced: list[tuple[str, str]] = []
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(21, "Is a directory")
        if overwrite:
            replaced = _set_aside(path)
        fd = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise PagescanError(
            f"{path} exists", hint="--force overwrites it", call="open", errno=17
        ) from error
    except OSError as error:
        raise file_error(error, f"create {path}") from error
    mark(fd)
    return fd, replaced


def _set_aside(path: str) -> list[tuple[str, str]]:
    """Rename a recording and its journal; they are removed when a look replaces them.

    Until then the target may be refused, and nothing would have taken their place.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise UsageError(f"{path} is not a regular file")
    check_unmarked(path)
    # Of a recorder that was killed before its first look: what it was to replace.
    has_older = os.path.lexists(f"{path}{_REPLACED}")
    replaced = []
    for end in ("", "-wal", "-shm", "-journal"):
        name, aside = f"{path}{end}", f"{path}{_REPLACED}{end}"
        with contextlib.suppress(FileNotFoundError):
            if has_older:
                os.unlink(name)
            else:
                os.rename(name, aside)
        if os.path.lexists(aside):
            replaced.append((aside, name))
    return replaced
