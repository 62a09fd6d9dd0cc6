"""The loop of `cow`: one report per interval, until something ends it."""

import select
from collections.abc import Iterator

from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.samples import clock_ns
from pagescan.model.copies import CopyReport
from pagescan.model.errors import UsageError

_PUMP_SECONDS = 0.02


def copy_reports(
    watch: CopyCounter,
    *,
    interval: float = 1.0,
    duration: float | None = None,
    next_fork: bool = False,
    by: str = "process",
    stop: int | None = None,
) -> Iterator[CopyReport]:
    """Yield one report per interval; `end` of the last one says why it is the last.

    Args:
        watch: The followed processes.
        interval: Seconds.
        duration: End after this many seconds; None: do not.
        next_fork: Wait for a fork, and end when its child has ended.
        by: What `sides[].by` lists: function, mapping or time; process: function.
        stop: A descriptor that becomes readable when the caller wants the end.

    Examples:
        >>> import pagescan
        >>> with pagescan.CopyWatch(4242) as watch:
        ...     reports = [*pagescan.copy_reports(watch, interval=0.1, duration=0.3)]
        >>> reports[-1].end
        'duration'

    Raises:
        UsageError: An interval or duration that is not positive.
    """
    if not interval > 0 or (duration is not None and not duration > 0):
        raise UsageError("an interval or a duration is more than 0 seconds")
    begun = clock_ns()
    due = begun + round(interval * 1e9)
    inputs = [*watch.inputs, *([] if stop is None else [stop])]
    while True:
        ready = select.select(inputs, [], [], _PUMP_SECONDS)[0]
        watch.pump()
        now = clock_ns()
        end = _end(watch, ready, stop, next_fork=next_fork)
        if end is None and duration is not None and now - begun >= duration * 1e9:
            end = "duration"
        if end is not None:
            yield watch.report(by, end)
            return
        if now < due:
            continue
        due = max(now, due + round(interval * 1e9))
        if watch.sure_forks or not next_fork:
            yield watch.report(by)


def _end(
    watch: CopyCounter, ready: list[int], stop: int | None, *, next_fork: bool
) -> str | None:
    """Return why the loop ends now; None: it goes on."""
    if stop is not None and stop in ready:
        return "interrupted"
    if next_fork and any(fork.end is not None for fork in watch.sure_forks[:1]):
        return "fork"
    return "exited" if watch.is_over(ready) else None
