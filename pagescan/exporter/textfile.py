"""Writes the metrics into a file for node_exporter's textfile collector, atomically."""

import contextlib
import os
from typing import TYPE_CHECKING

from pagescan.model.errors import UsageError, file_error

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


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
        self._scratch = f"{path}.{os.getpid()}"

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

    def _replace(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._scratch)  # of an exporter that was killed
        call = "open"
        try:
            with open(self._scratch, "wb", opener=_opener) as file:
                call = "write"
                file.write(text)
            call = "rename"
            os.rename(self._scratch, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(self._scratch)
            hint = "its folder must exist, and this user must be able to write it"
            raise file_error(
                error, f"write {self._path}", call=call, hint=hint
            ) from error

    def __enter__(self) -> "TextFile":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path)


def _opener(path: str, flags: int) -> int:
    """Open a new file, no link, that everybody may read, as node_exporter must."""
    flags |= os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o644)
    os.fchmod(fd, 0o644)
    return fd
