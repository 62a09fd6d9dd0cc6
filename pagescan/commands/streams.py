"""The three descriptors that a command begins with: there, complete, fit for any name.

Descriptors that were closed are opened, so that no file of ours gets their numbers.
What is written to stdout arrives as a whole, or it is an error: a short write is gone
on with, and a descriptor that does not block is waited for. What the encoding of a
terminal lacks is shown by something that it has.
"""

import codecs
import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from pagescan.model.units import escape, escape_character, show_in

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


_BUFFERED = 1 << 13
_ERRORS = "pagescan"
_INSTEAD = dict(zip("▁▂▃▄▅▆▇█▕▏·…µ±", ".:-=+*%#||.~u~", strict=True))
"""What an encoding may lack among the characters of our own."""


class OutputError(OSError):
    """What was to be written to stdout did not arrive."""

    def __str__(self) -> str:
        if self.errno == 9:  # EBADF; errno is a module that is not loaded yet
            return "cannot write the output: standard output is closed"
        return f"cannot write the output: {os.strerror(self.errno or 0).lower()}"


def take_over() -> None:
    """Open what is closed of 0, 1 and 2; have sys.stdout and sys.stderr complete."""
    _open_closed()
    codecs.register_error(_ERRORS, _instead)
    sys.stdout = _wrapped(sys.stdout, _Complete(1))
    sys.stderr = _wrapped(sys.stderr, _Unheard(2))
    encoding = sys.stdout.encoding
    if sys.stdout.isatty() and codecs.lookup(encoding).name != "utf-8":
        show_in(encoding)


def _open_closed() -> None:
    """Open what is closed: stdout so that each write to it fails, as it would have."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            flags = os.O_WRONLY if fd == 2 else os.O_RDONLY
            try:
                os.open(os.devnull, flags)
            except OSError:
                os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            os.set_inheritable(fd, True)  # a CMD is to have it too


def _wrapped(before: TextIO | None, raw: "_Complete") -> TextIO:
    """Return a text stream like the one before, over a descriptor of our own."""
    encoding = before.encoding if before is not None else "utf-8"
    buffered = io.BufferedWriter(raw, _BUFFERED)
    lines = raw.fd == 2 or raw.isatty()
    return io.TextIOWrapper(buffered, encoding, _ERRORS, line_buffering=lines)


class _Complete(io.RawIOBase):
    """A descriptor that takes all of what is written, or says why not."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.failure: OutputError | BrokenPipeError | None = None

    def fileno(self) -> int:
        return self.fd

    def isatty(self) -> bool:
        return os.isatty(self.fd)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write all; what follows a failure goes nowhere: it is said already."""
        view = memoryview(data).cast("B")
        if self.failure is None:
            try:
                _write_all(self.fd, view)
            except BrokenPipeError as error:
                self.failure = error
                raise
            except KeyboardInterrupt:  # the rest would wait for the same reader
                self.failure = OutputError(4, "interrupted")  # EINTR
                raise
            except OSError as error:
                self.failure = OutputError(error.errno, error.strerror)
                raise self.failure from error
        return len(view)


class _Unheard(_Complete):
    """Stderr: where it cannot be written there is nobody to be told."""

    def write(self, data: "ReadableBuffer", /) -> int:
        with contextlib.suppress(OSError):
            super().write(data)
        return len(memoryview(data).cast("B"))


def _write_all(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        try:
            count = os.write(fd, view[done:])
        except BlockingIOError:  # somebody else made it non-blocking
            _wait_until_writable(fd)
            continue
        if not count:
            raise OSError(5, "no byte was taken")  # EIO
        done += count


def _wait_until_writable(fd: int) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()


def finish() -> OSError | None:
    """Write what is buffered; return what kept stdout from being complete, or None."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Complete) else None


def arrived() -> None:
    """Raise unless what was written has arrived: some file systems say it at a close.

    Source: close(2), of NFS and of quotas.
    """
    sys.stdout.flush()
    try:
        os.close(os.dup(1))
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def put(line: str) -> None:
    """Write a line of data to stdout."""
    sys.stdout.write(line + "\n")


def tell(line: str) -> None:
    """Write a line to stderr: one line, whatever names of the target are in it."""
    sys.stderr.write(escape(line) + "\n")
    sys.stderr.flush()


def _instead(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    texts = [_INSTEAD.get(char) or escape_character(char) for char in lacking]
    return "".join(texts), error.end
