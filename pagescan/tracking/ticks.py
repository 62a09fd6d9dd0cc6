"""The loop of `watch` and `demo`: one look per tick, until something ends it."""

import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pagescan.model.errors import NoSuchTargetError, SessionLostError, TargetError
from pagescan.model.looks import Look, Tick, add, summary_of
from pagescan.model.results import Summary
from pagescan.tracking.tracking import Tracking


@dataclass(frozen=True, slots=True)
class Limits:
    """The interval between looks, and when to stop; None: no such limit.

    Attributes:
        interval: Seconds between looks, on a grid that does not drift.
        count: Stop after this many looks.
        duration: Stop after this many seconds.
    """

    interval: float = 1.0
    count: int | None = None
    duration: float | None = None


def ticks(
    tracking: Tracking,
    limits: Limits,
    stop: int,
    follow: Callable[[], Tracking | None] = lambda: None,
) -> Iterator[Tick]:
    """Look and rearm at each tick, and yield it; the last tick says why in `end`.

    Args:
        tracking: An armed target.
        limits: The interval, and when to stop.
        stop: A descriptor: the loop ends when it becomes readable.
        follow: Called after an exec: attaches again, or returns None to end the loop.
    """
    waiter = select.poll()
    waiter.register(stop, select.POLLIN)
    waiter.register(tracking.target.pidfd, select.POLLIN)
    begun = before = time.monotonic()
    deadline = begun + limits.duration if limits.duration else None
    totals = Summary(0, 0, 0, {})
    number = 0
    end = None
    while end is None:
        number += 1
        due = _next_on_grid(begun, limits.interval)
        if deadline is not None and due >= deadline:
            due, end = deadline, "duration"
        end = _wait(waiter, due, stop) or end
        if end is None and number == limits.count:
            end = "count"
        since = tracking.since or tracking.armed_at
        look: Look | None
        try:
            look = None if end == "exited" else tracking.look(rearm=True)
        except NoSuchTargetError:
            look, end = None, "exited"
        except SessionLostError:
            look, end = None, "lost"
        except TargetError:
            # If it stayed in the set, a closed descriptor would mean the target's end.
            waiter.unregister(tracking.target.pidfd)
            look, followed = None, follow()
            if followed is None:
                ended = isinstance(tracking.target.gone(), NoSuchTargetError)
                end = "exited" if ended else "exec"
            else:
                tracking = followed
                waiter.register(tracking.target.pidfd, select.POLLIN)
                if end is None:
                    number -= 1
                    continue
        if look is not None:
            totals = add(totals, summary_of(look))
        now = time.monotonic()
        share = tracking.toll.share if tracking.toll else None
        yield Tick(number, look, since, now - before, end, totals, share)
        before = now


def _next_on_grid(begun: float, interval: float) -> float:
    """Return the time of the next tick; missed ticks are skipped, not caught up."""
    passed = int((time.monotonic() - begun) / interval)
    return begun + (passed + 1) * interval


def _wait(waiter: select.poll, due: float, stop: int) -> str | None:
    """Wait for the tick; return what ended the loop before it, or None."""
    while (left := due - time.monotonic()) > 0:
        for fd, _ in waiter.poll(left * 1000):
            return "interrupted" if fd == stop else "exited"
    return None
