"""Makes a descriptor readable when a signal asks a running command to end."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from pagescan.console.interrupts import interrupting
from pagescan.console.streams import end_soon


@contextlib.contextmanager
def stop_on_signals() -> Iterator[int]:
    """Yield a descriptor that is readable after SIGINT, SIGTERM or SIGHUP.

    An ignored SIGHUP stays ignored, because nohup(1) sets that. Output that waits for a
    reader that stands still is given up. At the end of the block, output that is still
    buffered is written.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def stop(number: int, _: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writable, b"!")
        end_soon(by_user=number == signal.SIGINT)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield readable
        sys.stdout.flush()  # while these signals still end a wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


@contextlib.contextmanager
def undo_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP undo what the block has begun, as Ctrl-C does.

    This process then ends by the signal, as it would have without this.
    `stop_on_signals` may be entered within the block. An ignored signal stays ignored.
    No signal comes in the middle of an undo, nor of `one_step`.
    """
    numbers = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) == signal.SIG_DFL
    ]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    with interrupting(numbers):
        yield
