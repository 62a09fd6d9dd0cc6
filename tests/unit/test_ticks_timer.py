"""The timer of the looks: its grid, the pause, another interval, and other inputs."""

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pagescan.tracking.ticks import Limits, Timer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.fixture
def stop() -> Iterator[tuple[int, int]]:
    """The two ends of the pipe that ends the loop."""
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def pressing(fd: int, change: Callable[[], object]) -> Callable[[], bool]:
    """Return a function that reads one byte and changes a limit, like a key."""

    def serve() -> bool:
        os.read(fd, 1)
        change()
        return True

    return serve


def test_pause_puts_the_look_off(pipe: tuple[int, int], stop: tuple[int, int]) -> None:
    """No look comes until the pause ends; then a whole interval passes."""
    limits = Limits(0.05, paused=True)

    def go_on() -> None:
        limits.paused = False

    timer = Timer(limits, stop[0], None, {pipe[0]: pressing(pipe[0], go_on)})
    later = threading.Timer(0.3, os.write, (pipe[1], b"p"))
    begun = time.monotonic()
    later.start()
    assert timer.wait() is None
    assert time.monotonic() - begun >= 0.35
    later.join()


def test_another_interval_counts_at_once(
    pipe: tuple[int, int], stop: tuple[int, int]
) -> None:
    """A look that was to come in an hour comes soon."""
    limits = Limits(3600)

    def shorten() -> None:
        limits.interval = 0.05

    os.write(pipe[1], b"-")
    timer = Timer(limits, stop[0], None, {pipe[0]: pressing(pipe[0], shorten)})
    assert timer.wait() is None


def test_duration_ends_a_pause(stop: tuple[int, int]) -> None:
    """A pause does not make the command run longer than it was told."""
    timer = Timer(Limits(0.05, duration=0.2, paused=True), stop[0], None, {})
    assert timer.wait() == "duration"


def test_an_input_that_ended_is_served_no_more(
    pipe: tuple[int, int], stop: tuple[int, int]
) -> None:
    """An input that has ended stays readable, and is read only once."""
    asked = []

    def serve() -> bool:
        asked.append(1)
        return False

    os.write(pipe[1], b"x")
    timer = Timer(Limits(0.2), stop[0], None, {pipe[0]: serve})
    assert timer.wait() is None
    assert asked == [1]


def test_a_key_may_end_the_loop(pipe: tuple[int, int], stop: tuple[int, int]) -> None:
    """A key like `q` writes to the pipe, which ends the wait."""
    quit_by = pressing(pipe[0], lambda: os.write(stop[1], b"!"))
    os.write(pipe[1], b"q")
    timer = Timer(Limits(60), stop[0], None, {pipe[0]: quit_by})
    assert timer.wait() == "interrupted"


def test_the_wait_is_told_how_much_is_left(stop: tuple[int, int]) -> None:
    """It is told again after the time that it asked for, and the look still comes."""
    told = []

    def waiting(left: float) -> float:
        told.append(left)
        return 0.01

    begun = time.monotonic()
    timer = Timer(Limits(1, waiting=waiting), stop[0], None, {})
    assert timer.wait() is None
    assert time.monotonic() - begun >= 1
    assert len(told) >= 2
    assert told == sorted(told, reverse=True)
    assert all(0 < left <= 1 for left in told)
