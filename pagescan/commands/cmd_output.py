"""Chooses where a launched CMD writes its output, also beside the live view."""

import os
from typing import Self

from pagescan.console.context import Context
from pagescan.model.errors import file_error
from pagescan.model.units import format_size
from pagescan.native import KeptOutput


class CmdOutput:
    """The destination of CMD's stdout and stderr.

    Beside a live view on the same terminal the output is kept, and printed when the
    view closes.

    Attributes:
        fd: The descriptor for CMD.
        note: The words of the live view's head line.
    """

    def __init__(self, fd: int, note: str, kept: KeptOutput | None = None) -> None:
        """Take over a descriptor; only `of` calls this."""
        self.fd = fd
        self.note = note
        self._kept = kept

    @classmethod
    def of(cls, path: str | None, *, live: bool) -> Self:
        """Choose: a file, pagescan's stderr, or a process that keeps the output.

        Raises:
            PagescanError: The file cannot be written.
        """
        if path is None and not (live and os.isatty(2)):
            return cls(2, "CMD's output goes to stderr")
        if path is None:
            kept = KeptOutput(2)
            return cls(kept.input, "CMD's output is printed at the end", kept)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise file_error(error, f"write {path!r}") from error
        return cls(fd, f"CMD's output goes to {path}")

    def started(self) -> None:
        """Close this process's copy of the descriptor, once CMD has it."""
        if self._kept is not None:
            self._kept.started()
        elif self.fd != 2:
            os.close(self.fd)
        self.fd = -1

    def print_kept(self, context: Context) -> None:
        """Print what was kept; later output follows at once."""
        if self._kept is None:
            return
        kept, dropped = self._kept.size()
        if dropped:
            context.say(
                f"CMD's output: the last {format_size(kept)} of"
                f" {format_size(kept + dropped)}"
            )
        self._kept.print()

    def close(self) -> None:
        """Close what is open; a second call has no effect."""
        if self.fd > 2 and self._kept is None:
            os.close(self.fd)
        if self._kept is not None:
            self._kept.close()
        self.fd = -1
