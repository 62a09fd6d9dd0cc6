"""The loop of `watch` and `demo`: one look per tick, until something ends it."""

import math
import select
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pagescan.model.errors import NoSuchTargetError, SessionLostError, TargetError
from pagescan.model.looks import Look, Tick, add, summary_of
from pagescan.model.memory import DEFAULT_RETURNED, Category
from pagescan.model.results import Summary
from pagescan.tracking.tracking import Tracking

Inputs = Mapping[int, Callable[[], bool]]
"""Functions by the descriptor that becomes readable; False: never call it again."""


@dataclass(slots=True)
class Limits:
    """The interval between looks, and when to stop; None: no such limit.

    The interval and the pause may change while the loop waits.

    Attributes:
        interval: Seconds between looks, on a grid that does not drift.
        count: Stop after this many looks.
        duration: Stop after this many seconds.
        paused: Whether looks are postponed; the next one finds all writes.
        waiting: Called while the loop waits, with the seconds that are left; it returns
            after how many seconds to call it again.
    """

    interval: float = 1.0
    count: int | None = None
    duration: float | None = None
    paused: bool = False
    waiting: Callable[[float], float] | None = None


class Worker(Protocol):
    """Work that sets the ticks instead of the clock: one tick per round of it."""

    def go(self) -> None:
        """Start a round."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable at the end of a round."""


class Tracer(Protocol):
    """The tracer of a program, which holds it at an exec and at its end."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there is an event."""

    def event(self) -> str:
        """Return the event: exec, exit, lost, or none."""


def ticks(
    tracking: Tracking,
    limits: Limits,
    stop: int,
    follow: Callable[[], Tracking | None] = lambda: None,
    *,
    tracer: Tracer | None = None,
    worker: Worker | None = None,
    inputs: Inputs | None = None,
    returned: Category = DEFAULT_RETURNED,
) -> Iterator[Tick]:
    """Look and rearm at each tick, and yield it; the last tick says why in `end`.

    Args:
        tracking: An armed target.
        limits: The interval, and when to stop.
        stop: A descriptor: the loop ends when it becomes readable.
        follow: Called after an exec: attaches again, or returns None to end the loop.
        worker: Does one round of work per tick, and nothing while its tick is looked
            at; the interval then means nothing. None: the ticks come by the clock.
        tracer: The tracer of the target, if this process started it: an exec is
            followed at once, and the last look is one at the target's end.
        inputs: Served while the loop waits; a keyboard may change the limits.
        returned: The categories that the looks report.
    """
    timer = Timer(limits, stop, worker, inputs or {}, tracer)
    timer.watch(tracking)
    before = looked = time.monotonic()
    totals = Summary.none()
    number, estimated = 0, False
    end = None
    while end is None:
        number += 1
        woken = timer.wait()
        end = _end_after(woken, last=number == limits.count)
        since = tracking.since or tracking.armed_at
        look: Look | None
        try:
            look = None
            if woken != "exited":
                look = tracking.look(rearm=True, returned=returned)
        except NoSuchTargetError:
            look, end = None, "exited"
        except SessionLostError:
            look, end = None, "lost"
        except TargetError:
            # If it stayed in the set, a closed descriptor would mean the target's end.
            timer.forget(tracking)
            look, followed = None, follow()
            if followed is None:
                end = _end_of(tracking)
            else:
                tracking = followed
                timer.watch(tracking)
                looked = time.monotonic()
                if end is None:
                    number -= 1
                    continue
        now = time.monotonic()
        unseen = None
        if look is not None:
            totals, looked = add(totals, summary_of(look)), now
            estimated |= look.estimate is not None
        elif end:
            unseen = round((now - looked) * 1e9)
        share, spent = tracking.toll_of_all
        seconds = now - before
        costs = (share, unseen, spent)
        yield Tick(number, look, since, seconds, end, totals, *costs, estimated)
        before = now


# It stands before the first instruction of another program, or at its end, with its
# memory.
_STANDS = {"exec": None, "exit": "exited"}


def _end_after(woken: str | None, *, last: bool) -> str | None:
    """Return why the loop ends with this look; None: it goes on."""
    if woken in _STANDS:
        return _STANDS[woken]
    return "count" if woken is None and last else woken


def _end_of(tracking: Tracking) -> str:
    """Return how a target was lost: by its end, or by an exec."""
    ended = isinstance(tracking.target.gone(), NoSuchTargetError)
    return "exited" if ended else "exec"


class Timer:
    """Waits for each tick: by the clock, or until a worker has done its round."""

    def __init__(
        self,
        limits: Limits,
        stop: int,
        worker: Worker | None,
        inputs: Inputs,
        tracer: Tracer | None = None,
    ) -> None:
        """Start the clock."""
        self._limits = limits
        self._stop = stop
        self._worker = worker
        self._inputs = dict(inputs)
        self._event: str | None = None
        if tracer is not None:
            self._inputs[tracer.fileno()] = lambda: self._has_more(tracer)
        self._begun = time.monotonic()
        self._grid = (limits.interval, limits.paused)
        duration = limits.duration
        self._deadline = self._begun + duration if duration else math.inf
        self._ready = select.poll()
        for fd in (stop, *self._inputs):
            self._ready.register(fd, select.POLLIN)
        if worker is not None:
            self._ready.register(worker, select.POLLIN)

    def watch(self, tracking: Tracking) -> None:
        """Wake at this target's end, too."""
        self._ready.register(tracking.target.pidfd, select.POLLIN)

    def forget(self, tracking: Tracking) -> None:
        """Do not wake at this target's end any more."""
        self._ready.unregister(tracking.target.pidfd)

    def wait(self) -> str | None:
        """Wait for the tick; return what ended the loop before it or with it."""
        idle = self._worker
        due = self._next()
        while (left := min(due, self._deadline) - time.monotonic()) > 0:
            if idle is not None and not self._limits.paused:
                idle.go()
                idle = None
            if self._limits.waiting is not None:
                left = min(left, self._limits.waiting(left))
            ready = self._ready.poll(None if left == math.inf else left * 1000)
            for fd, _ in ready:
                if fd == self._stop:
                    return "interrupted"
                if fd not in self._inputs:
                    return None if fd == self._done else "exited"
                if not self._inputs[fd]():
                    self._ready.unregister(fd)
            if self._event:
                event, self._event = self._event, None
                return "interrupted" if self._is_stopped() else event
            if (self._limits.interval, self._limits.paused) != self._grid:
                due = self._next()
        return None if due < self._deadline else "duration"

    def _has_more(self, tracer: Tracer) -> bool:
        """Take an event of the tracer; return whether there may be more."""
        event = tracer.event()
        if event in _STANDS:
            self._event = event
        return event != "lost"

    def _is_stopped(self) -> bool:
        """Whether a signal came with an event: Ctrl-C is for the target, too."""
        return any(fd == self._stop for fd, _ in self._ready.poll(0))

    def _next(self) -> float:
        """Return the time of the next tick; missed ticks are skipped, not caught up."""
        now = time.monotonic()
        if (grid := (self._limits.interval, self._limits.paused)) != self._grid:
            self._begun, self._grid = now, grid
        if self._worker is not None or self._limits.paused:
            return math.inf
        passed = int((now - self._begun) / self._limits.interval)
        return self._begun + (passed + 1) * self._limits.interval

    @property
    def _done(self) -> int:
        return -1 if self._worker is None else self._worker.fileno()
