"""Makes stdin, stdout and stderr safe: open, complete, and able to print any name.

Descriptors that were closed are opened, so that no file of pagescan's gets their
numbers. Output arrives at stdout as a whole, or an error is raised: a short write is
continued, and a non-blocking descriptor is waited for. Characters that the terminal's
encoding lacks are replaced by others.

A reader may stand still: output then waits for it. Once a signal has asked pagescan to
end, a write waits for a second at most, and then drops the rest. When nothing of a
target is held any more, Ctrl-C does not shorten the wait: the next one ends it.
"""

import _thread
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
_AT_ONCE = 1 << 16  # bytes per write: a slow reader is told from one that stands still
_PATIENCE = 1.0  # seconds for which such a write may wait at the end
_WAITS = 0.05  # seconds after which a write waits for its reader, rather than runs
_STANDS_STILL = 110  # ETIMEDOUT
_SHORT = 30  # characters: such a line fits into any terminal
_ERRORS = "pagescan"
_OWN = "▁▂▃▄▅▆▇█▕▏┄·…µ±≤≥×“”▸▾↑↓←→⏎⌫"
_INSTEAD = dict(zip(_OWN, """.:-=+*%#||_'~u~<>x"">v^v<>EB""", strict=True))
"""Replacements for characters of pagescan's own output, each as wide as its own."""


class OutputError(OSError):
    """Output did not arrive at stdout."""

    def __str__(self) -> str:
        if self.errno == 9:  # EBADF; errno is a module that is not loaded yet
            return "cannot write the output: standard output is closed"
        if self.errno == _STANDS_STILL:
            return "cannot write the output: its reader stands still"
        return f"cannot write the output: {os.strerror(self.errno or 0).lower()}"


class _Ending:
    """How the end of pagescan reaches a write of the main thread.

    Attributes:
        main: The main thread.
        has_begun: Whether a signal has asked for the end.
        by_user: Whether every such signal was Ctrl-C.
        nothing_held: Whether no target is held, so that waiting harms nobody.
        writes: Whether the main thread is in a write.
        not_this: Whether that write is to be given up, because a signal came again.
    """

    main = _thread.get_ident()
    has_begun = False
    by_user = True
    nothing_held = False
    writes = False
    not_this = False

    @classmethod
    def is_soon(cls) -> bool:
        """Whether a write may wait for a moment only."""
        return cls.has_begun and not (cls.by_user and cls.nothing_held)


def end_soon(*, by_user: bool = False) -> None:
    """From now on give up a write if its reader takes nothing for a second.

    Call it in the main thread when a signal asks pagescan to end, also in the signal's
    handler: a write that waits would go on waiting after it. Source: PEP 475.

    Args:
        by_user: Whether the signal was Ctrl-C, which can come again: if a write still
            waits then, it is given up at once.
    """
    _Ending.not_this = _Ending.has_begun and _Ending.writes
    _Ending.has_begun = True
    _Ending.by_user &= by_user
    if _Ending.not_this:
        _set_alarm(_WAITS)
    elif _Ending.writes and _Ending.is_soon():
        _set_alarm()


def nothing_is_held() -> None:
    """Let output wait for its reader as long as the user wants: it harms no target.

    One Ctrl-C ends the looks, and the result waits. The next one ends the wait.
    """
    _Ending.nothing_held = True


def _set_alarm(seconds: float = _PATIENCE) -> None:
    import signal

    def give_up(*_: object) -> None:
        if _Ending.writes and (_Ending.not_this or _Ending.is_soon()):
            raise OutputError(_STANDS_STILL, "interrupted")

    signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _write_some(fd: int, part: memoryview) -> int:
    """Write once; near the end of pagescan, OutputError if it takes too long."""
    is_main = _thread.get_ident() == _Ending.main
    _Ending.writes |= is_main
    try:
        if is_main and _Ending.is_soon():
            _set_alarm()
        while True:
            try:
                return os.write(fd, part)
            except BlockingIOError:  # another process made it non-blocking
                _is_writable(fd)
    finally:
        if is_main:
            _Ending.writes = _Ending.not_this = False


def take_over() -> None:
    """Open closed descriptors of 0, 1 and 2; make stdout and stderr complete."""
    _open_closed()
    codecs.register_error(_ERRORS, _instead)
    sys.stdout = _wrapped(sys.stdout, _Complete(1))
    sys.stderr = _wrapped(sys.stderr, _Unheard(2))
    encoding = sys.stdout.encoding
    if sys.stdout.isatty() and codecs.lookup(encoding).name != "utf-8":
        show_in(encoding)


def _open_closed() -> None:
    """Open closed descriptors; stdout so that each write to it fails, as before."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            flags = os.O_WRONLY if fd == 2 else os.O_RDONLY
            try:
                os.open(os.devnull, flags)
            except OSError:
                os.open("/", os.O_RDONLY | os.O_DIRECTORY)
            os.set_inheritable(fd, True)  # CMD inherits it too


def _wrapped(before: TextIO | None, raw: "_Complete") -> TextIO:
    """Return a text stream like the given one, over a complete descriptor."""
    encoding = before.encoding if before is not None else "utf-8"
    buffered = io.BufferedWriter(raw, _BUFFERED)
    lines = raw.fd == 2 or raw.isatty()
    return io.TextIOWrapper(buffered, encoding, _ERRORS, line_buffering=lines)


class _Complete(io.RawIOBase):
    """A descriptor that writes all data, or remembers why it could not."""

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
        """Write all data; discard it after a failure, which is reported once."""
        view = memoryview(data).cast("B")
        if self.failure is None:
            try:
                _write_all(self.fd, view)
            except BrokenPipeError as error:
                self.failure = error
                raise
            except KeyboardInterrupt:  # the rest would wait for the same reader
                _Ending.has_begun = True
                self.failure = OutputError(4, "interrupted")  # EINTR
                raise
            except OSError as error:
                self.failure = OutputError(error.errno, error.strerror)
                raise self.failure from error
        return len(view)


class _Unheard(_Complete):
    """Stderr: if it cannot be written, no report of that is possible.

    The message of another thread is dropped if it would have to wait: that thread would
    hold a lock that the main thread needs at the end.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        is_main = _thread.get_ident() == _Ending.main
        with contextlib.suppress(OSError):
            if is_main or _is_writable(self.fd, _PATIENCE):
                super().write(data)
        return len(memoryview(data).cast("B"))


def _write_all(fd: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        count = _write_some(fd, view[done : done + _AT_ONCE])
        if not count:
            raise OSError(5, "no byte was taken")  # EIO
        done += count


def _is_writable(fd: int, seconds: float | None = None) -> bool:
    """Wait until a write would not wait; return False if that takes too long."""
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def finish() -> OSError | None:
    """Write buffered data; return the reason why stdout is incomplete, or None."""
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Complete) else None


def arrived() -> None:
    """Raise unless the output has arrived: some file systems only report that at close.

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


def tell(line: str, *, whole: bool = False) -> None:
    """Write one line to stderr; names from the target are escaped.

    A terminal would break a long line in the middle of a word or of a figure. So there
    it becomes several lines.

    Args:
        line: The line.
        whole: Whether it stays one line all the same, so that it can be copied.
    """
    text = escape(line)
    if not whole and len(text) > _SHORT and sys.stderr.isatty():
        from pagescan.model.paragraph import lines_of

        with contextlib.suppress(OSError):
            width = os.get_terminal_size(2).columns
            text = "\n".join(lines_of(text, width))
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _instead(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    texts = [_INSTEAD.get(char) or escape_character(char) for char in lacking]
    return "".join(texts), error.end
