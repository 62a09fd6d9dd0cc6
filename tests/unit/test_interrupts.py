"""Signals that become one KeyboardInterrupt, and what puts them off."""

import _thread
import contextlib
import os
import signal
import time
from collections.abc import Callable

import pytest

from pagescan.console import interrupts
from pagescan.console.interrupts import (
    dropped,
    hurries,
    interrupting,
    one_step,
    raise_if_put_off,
)

USUAL = signal.SIGUSR1


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a command is not the end of these tests."""
    monkeypatch.setattr(interrupts, "end_soon", lambda **_: None)


def send() -> None:
    os.kill(os.getpid(), USUAL)


class Undone:
    """Sends signals while it is closed."""

    def __init__(self, *, times: int = 1) -> None:
        self.times = times
        self.done = self.hurried = False

    def close(self) -> None:
        for _ in range(self.times):
            send()
        time.sleep(0.05)
        self.hurried = hurries()
        self.done = True


def wait() -> None:
    """Wait for a signal that was put off."""
    for _ in range(500):
        time.sleep(0.01)


@pytest.fixture
def handled() -> list[int]:
    """The signals that arrive after a block."""
    came: list[int] = []
    signal.signal(USUAL, lambda number, _: came.append(number))
    return came


def run(act: Callable[[], object]) -> None:
    """Run a function in which the signal interrupts."""
    with interrupting([USUAL]):
        act()


def interrupt(act: Callable[[], object]) -> None:
    """Run it; it has to end by KeyboardInterrupt."""
    with pytest.raises(KeyboardInterrupt):
        run(act)


def test_it_comes_once_and_then_again_as_itself(handled: list[int]) -> None:
    """Further ones change nothing; behind the block the signal itself comes."""
    undone = Undone(times=3)

    def act() -> None:
        try:
            send()
        finally:
            undone.close()

    interrupt(act)
    assert undone.done
    assert undone.hurried
    assert handled == [USUAL]


def test_an_undo_is_completed(handled: list[int]) -> None:
    """The signal that came in it comes again, and the undo knows that it came."""
    undone = Undone()

    def act() -> None:
        undone.close()
        wait()

    interrupt(act)
    assert undone.done
    assert undone.hurried
    assert not hurries()
    assert handled == [USUAL]


def test_a_step_is_completed(handled: list[int]) -> None:
    """It hurries nothing: the undo that follows is to be a whole one."""
    steps = []

    def act() -> None:
        with one_step():
            send()
            steps.append(1)
        wait()

    interrupt(act)
    assert steps == [1]
    assert not hurries()
    assert handled == [USUAL]


def test_a_long_step_can_ask(handled: list[int]) -> None:
    """A step that waits for something may give up."""

    def act() -> None:
        with one_step():
            raise_if_put_off()
            send()
            for _ in range(500):
                raise_if_put_off()
                time.sleep(0.01)

    interrupt(act)
    assert handled == [USUAL]


@pytest.mark.parametrize("error", [None, ValueError])
def test_one_at_the_end_is_dropped(
    error: type[ValueError] | None, handled: list[int]
) -> None:
    """The work is done, or an error has to be told."""

    def work() -> None:
        with interrupting([USUAL]), one_step():
            send()
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    time.sleep(0.05)
    assert handled == []


def test_one_that_python_drops_comes_again(handled: list[int]) -> None:
    """As the same signal."""

    def act() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            send()
        dropped()
        wait()

    interrupt(act)
    assert handled == [USUAL]


def test_no_thread_can_be_started(
    handled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The undo is completed all the same; the next signal is heard."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    def act() -> None:
        undone.close()
        assert undone.done
        send()

    undone = Undone()
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    interrupt(act)
    assert handled == [USUAL]


def test_handlers_are_restored(handled: list[int]) -> None:
    """Each signal has its earlier handler after the block."""
    before: Callable[..., object] = signal.getsignal(USUAL)  # type: ignore[assignment]
    with interrupting([USUAL]):
        assert signal.getsignal(USUAL) is not before
    assert signal.getsignal(USUAL) is before
    assert handled == []
