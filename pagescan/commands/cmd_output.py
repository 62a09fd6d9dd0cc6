"""Chooses where a launched CMD writes its output, also beside the live view."""

import contextlib
import os
from typing import Self

from pagescan.commands.running import open_kept
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
        self._made = ""  # the path of a new file, until CMD has started

    @classmethod
    def of(cls, path: str | None, *, live: bool) -> Self:
        """Choose: a file, pagescan's stderr, or a process that keeps the output.

        A file that exists keeps its content until `started`.

        Raises:
            PagescanError: The file cannot be written.
        """
        if path is None and not (live and os.isatty(2)):
            return cls(2, "CMD's output goes to stderr")
        if path is None:
            kept = KeptOutput(2)
            return cls(kept.input, "CMD's output is printed at the end", kept)
        try:
            fd, is_new = open_kept(path)
        except OSError as error:
            raise file_error(error, f"write {path!r}") from error
        chosen = cls(fd, f"CMD's output goes to {path}")
        chosen._made = path if is_new else ""
        return chosen

    def started(self) -> None:
        """Close this process's copy of the descriptor; CMD has it, and stands yet."""
        self._made = ""
        if self._kept is not None:
            self._kept.started()
        elif self.fd != 2:
            with contextlib.suppress(OSError):  # it is a pipe, or a device
                os.ftruncate(self.fd, 0)
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
        """Close what is open, and remove a new file that CMD has not got.

        A second call has no effect.
        """
        if self._made:
            with contextlib.suppress(OSError):
                os.unlink(self._made)
            self._made = ""
        if self.fd > 2 and self._kept is None:
            os.close(self.fd)
        if self._kept is not None:
            self._kept.close()
        self.fd = -1
