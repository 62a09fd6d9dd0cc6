"""Turns signals into one KeyboardInterrupt, which never comes between two steps.

Between them lies, for example, a file that has been made and is not yet known to the
block that removes it; or an undo of which one half is done. A signal that comes there
is put off: it comes again a moment later. After the first KeyboardInterrupt everything
is an undo, so that no further one comes.

An undo is known by the names of functions: `__exit__` and `close`, with all that they
call. All this holds within `interrupting`, which the commands use; elsewhere, as in a
program that uses the library, signals do what that program wants.
"""

import _thread
import contextlib
import signal
import time
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any

from pagescan.console.streams import end_soon

_UNDO = frozenset({"__exit__", "close"})
_AGAIN = 0.01  # seconds


class _State:
    """The state of the handler, in the main thread.

    Attributes:
        main: The main thread.
        steps: How many blocks of `one_step` it is in.
        raised: The signal that became a KeyboardInterrupt; 0: none so far.
        put_off: Signals that come again.
        next_comes_again: Whether the next signal is one that was put off.
        hurries: Whether a signal came while something was undone.
    """

    main = _thread.get_ident()
    steps = 0
    raised = 0
    put_off: set[int] = set()  # noqa: RUF012 - there is one state
    next_comes_again = False
    hurries = False


@contextlib.contextmanager
def interrupting(numbers: Collection[int]) -> Iterator[None]:
    """Let signals raise KeyboardInterrupt in the block, as described above.

    At the end of the block each signal gets its earlier handler back. A signal other
    than SIGINT that has raised KeyboardInterrupt is then sent again, to that handler. A
    signal that is still put off is dropped: the block has done all its work, or ends
    with an error that has to be told.
    """
    _State.raised, _State.hurries = 0, False
    before: dict[int, Any] = {}
    try:
        for number in numbers:
            before[number] = signal.getsignal(number)
            signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.put_off.clear()
        if _State.raised not in (0, signal.SIGINT):
            signal.raise_signal(_State.raised)


@contextlib.contextmanager
def one_step() -> Iterator[None]:
    """Put a signal off to the end of the block, which has to be short."""
    _State.steps += 1
    try:
        yield
    finally:
        _State.steps -= 1


def raise_if_put_off() -> None:
    """Raise KeyboardInterrupt if a signal waits for the end of a step: undo it."""
    if _State.put_off and not _State.raised:
        _State.raised = min(_State.put_off)
        raise KeyboardInterrupt


def hurries() -> bool:
    """Whether a signal came while something was undone: leave out what is optional."""
    return _State.hurries


def dropped() -> None:
    """Let a KeyboardInterrupt come again that Python has dropped."""
    number, _State.raised = _State.raised or signal.SIGINT, 0
    _put_off(number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, put it off, or only hurry."""
    comes_again, _State.next_comes_again = _State.next_comes_again, False
    undoes = bool(_State.raised) or _undoes(frame)
    if not (undoes or _State.steps):
        _State.raised, _State.hurries = number, False
        _State.put_off.clear()
        raise KeyboardInterrupt
    if not comes_again:
        _State.hurries |= undoes
        end_soon(by_user=number == signal.SIGINT)
    if not _State.raised:
        _put_off(number)


def _undoes(frame: FrameType | None) -> bool:
    """Whether something is undone, or just entered: contextlib does not know it yet."""
    if frame is not None and frame.f_code.co_filename == contextlib.__file__:
        return True
    while frame is not None:
        if frame.f_code.co_name in _UNDO:
            return True
        frame = frame.f_back
    return False


def _put_off(number: int) -> None:
    def come_again() -> None:
        time.sleep(_AGAIN)
        if number in _State.put_off:
            _State.put_off.discard(number)
            _State.next_comes_again = True
            signal.pthread_kill(_State.main, number)

    _State.put_off.add(number)
    with contextlib.suppress(RuntimeError):  # no more threads: the user tries again
        _thread.start_new_thread(come_again, ())
