"""Turns signals into one KeyboardInterrupt, which never comes between two steps.

Between them lies, for example, a file that has been made and is not yet known to the
block that removes it; or an undo of which one half is done. A signal that comes there
is put off until it harms nothing. After the first KeyboardInterrupt everything is an
undo, so that no further one comes.
"""

import _thread
import contextlib
import signal
import time
from collections.abc import Collection, Iterator
from types import FrameType

from pagescan.console.streams import end_soon

_UNDO = frozenset({"__exit__", "close"})
"""Functions that undo something, and must not be left before their end."""
_AGAIN = 0.01  # seconds


class _State:
    """The state of the handler, in the main thread.

    Attributes:
        main: The main thread.
        steps: How many blocks of `one_step` it is in.
        raised: The signal that became a KeyboardInterrupt; 0: none so far.
        put_off: Signals that come again.
        repeated: Whether the next signal is one that comes again.
    """

    main = _thread.get_ident()
    steps = 0
    raised = 0
    put_off: set[int] = set()  # noqa: RUF012 - there is one state
    repeated = False


@contextlib.contextmanager
def interrupting(numbers: Collection[int]) -> Iterator[None]:
    """Let signals raise KeyboardInterrupt in the block, as described above.

    Afterwards each has its earlier handler. A signal that was put off to the end of the
    block comes then; so does one other than SIGINT that was raised.
    """
    _State.raised = 0
    before = {number: signal.signal(number, _interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        waiting = sorted(_State.put_off)
        _State.put_off.clear()
        if _State.raised not in (0, signal.SIGINT):
            signal.raise_signal(_State.raised)
        elif not _State.raised and waiting:
            signal.raise_signal(waiting[-1])


@contextlib.contextmanager
def one_step() -> Iterator[None]:
    """Put a signal off to the end of the block, which has to be short."""
    _State.steps += 1
    try:
        yield
    finally:
        _State.steps -= 1


def dropped() -> None:
    """Let a KeyboardInterrupt come again that Python has dropped."""
    _State.raised = 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: raise KeyboardInterrupt, put it off, or only hurry."""
    repeated, _State.repeated = _State.repeated, False
    if not (_State.raised or _State.steps or _undoes(frame)):
        _State.raised = number
        raise KeyboardInterrupt
    if not repeated:
        end_soon(by_user=number == signal.SIGINT)
    if not _State.raised:
        _put_off(number)


def _undoes(frame: FrameType | None) -> bool:
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
            _State.repeated = True
            signal.pthread_kill(_State.main, number)

    if number not in _State.put_off:
        _State.put_off.add(number)
        _thread.start_new_thread(come_again, ())
