"""Writes the metrics into a file for node_exporter's textfile collector, atomically."""

import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from pagescan.model.errors import PagescanError, UsageError, file_error
from pagescan.render.whole_file import write_whole

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_OF_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
"""The errors of a folder that is missing, or not for this user."""


class TextFile:
    """A file that holds the newest metrics; a reader never sees a part of them.

    A context manager: the file is removed at the end, since nobody could tell that its
    numbers are old.
    """

    def __init__(self, path: str, registry: "CollectorRegistry") -> None:
        """Check the path; the first `write` makes the file.

        Raises:
            UsageError: node_exporter would not read that file.
        """
        if not path.endswith(".prom"):
            raise UsageError(
                f"--textfile {path}: node_exporter reads only files named *.prom",
                hint=f"--textfile {path}.prom",
            )
        self._path = path
        self._registry = registry
        self._trouble = ""

    def check(self) -> None:
        """Raise a PagescanError if the folder cannot be written."""
        self._replace(b"")

    def write(self) -> None:
        """Replace the file by the metrics of this moment.

        Raises:
            PagescanError: The folder cannot be written, or the disk is full.
        """
        from prometheus_client import generate_latest

        self._replace(generate_latest(self._registry))

    def update(self, say: Callable[[str], None]) -> None:
        """Write, or remove the file and say once why it could not be written.

        Nobody could tell that its numbers are old. If there is room for one file only,
        the old one is removed first. The next call tries again.
        """
        try:
            try:
                self.write()
            except PagescanError:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
                self.write()
        except PagescanError as error:
            if str(error) != self._trouble:
                say(f"{error}; each tick tries again")
            self._trouble = str(error)
            return
        if self._trouble:
            say(f"{self._path} is written again")
        self._trouble = ""

    def _replace(self, text: bytes) -> None:
        try:
            write_whole(self._path, text, 0o644)  # node_exporter must read it
        except OSError as error:
            hint = "its folder must exist, and this user must be able to write it"
            raise file_error(
                error,
                f"write {self._path}",
                call="write",
                hint=hint if error.errno in _OF_FOLDER else None,
            ) from error

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)
