"""The loop of `watch` and `demo` over a target, armed until something ends it."""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pagescan.commands.options import Common
from pagescan.model.errors import NoSuchTargetError, PagescanError, TargetError
from pagescan.model.looks import Tick
from pagescan.model.results import Cost
from pagescan.model.units import format_share, format_size, plural
from pagescan.native import Pace
from pagescan.session.locks import Lock
from pagescan.session.record import session_of
from pagescan.target import maps as mappings
from pagescan.target.launch import Launched
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.target_cost import TargetCost
from pagescan.tracking.ticks import Limits, ticks
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from pagescan.tracking.sampled import Budget


_MUCH = 0.05  # of the target's processor time
_LITTLE = 1e-3  # of a processor: an idle target has nothing to lose


class Watcher:
    """The target of a watch: armed, locked, and armed again after an exec of CMD."""

    def __init__(
        self,
        pid: int,
        selection: Selection,
        max_tables: int,
        pace: Pace,
        common: Common,
        *,
        launched: Launched | None = None,
    ) -> None:
        """Store the settings; `start` arms the target."""
        self.pid = pid
        self.selection = selection
        self.max_tables = max_tables
        self.pace = pace
        pace.progress = None  # the live view owns the screen
        self.common = common
        self.launched = launched
        self.restore_huge = True
        self.budget: Budget | None = None
        self.toll = TargetCost()
        self._warned = False
        self.toll.on_measured = lambda cost: common.detail(str(cost))
        self.lock: Lock | None = None
        self.target: Target
        self.tracking: Tracking | None = None

    def keep_to(self, percent: float, interval: float) -> None:
        """Set the budget; first measure the cost of a write."""
        from pagescan.tracking.fault_cost import Trial
        from pagescan.tracking.sampled import Budget

        trial = Trial()
        try:
            cost = trial.wait()
        finally:
            trial.close()
        self.common.detail(str(cost))
        self.toll = TargetCost(cost)
        self.budget = Budget.of(percent, interval, cost.seconds)

    def too_costly(self, tick: Tick) -> str | None:
        """Return the warning, once, if a look cost the target much."""
        share = tick.look.cost.target_share if tick.look else None
        if share is None or share <= _MUCH or self._warned or self.budget:
            return None
        if self.toll.last < _LITTLE * tick.seconds or not (
            self.toll.settled or tick.end
        ):
            return None
        self._warned = True
        return (
            f"tracking costs the target about {format_share(share)} of its processor"
            " time: --budget 2 keeps that to 2 %, and a longer interval costs less"
        )

    def start(self) -> Tracking:
        """Attach and arm; a launched CMD starts to run.

        Raises:
            PagescanError: As `arm` raises; a launched CMD is ended then.
        """
        self.target = Target.open(self.pid)
        for note in self.selection.check(mappings.read(self.target)):
            self.common.say(note)
        if self.lock is None:
            self.lock = Lock.take(self.pid)
        self.tracking = self._track()
        self.tracking.restore_huge = self.restore_huge
        self.tracking.toll = self.toll
        self.toll.begin(self.pid)
        self.common.detail(self.tracking.attached)
        self.lock.write(session_of(self.tracking, "watch"))
        if self.launched:
            self.launched.go_on()  # only once: a later stop has another cause
        return self.tracking

    def _track(self) -> Tracking:
        if self.budget is None:
            return Tracking.start(
                self.target, self.selection, max_tables=self.max_tables, pace=self.pace
            )
        from pagescan.tracking.sampled import SampledTracking

        return SampledTracking.start_within(
            self.budget,
            self.target,
            self.selection,
            max_tables=self.max_tables,
            pace=self.pace,
        )

    def ticks(self, limits: Limits, stop: int) -> Iterator[Tick]:
        """Yield the looks; go on after an exec of a launched CMD."""
        if self.tracking is None:
            raise PagescanError("not armed")
        return ticks(self.tracking, limits, stop, self._follow)

    def _follow(self) -> Tracking | None:
        """Attach again after an exec of CMD; None: that is not possible."""
        if self.tracking is None or not self.launched:
            return None
        self.tracking.close()
        old = self.target
        while not old.exited():
            try:
                tracking = self.start()
            except TargetError:
                if self._in_another_exec(old):
                    continue
                return None
            old.close()
            self.common.say(f"{self.target} was exec'd: attached again")
            return tracking
        return None

    def _in_another_exec(self, old: Target) -> bool:
        """Whether the target called exec again during the attach; then forget it."""
        if self.target is old:
            return False
        ended = isinstance(self.target.gone(), NoSuchTargetError)
        again = not ended and not self.target.has_address_space()
        self.target.close()
        self.target = old
        return again

    def end(self, stop: int) -> Cost:
        """Disarm and put huge pages back; report how many stay split, and the cost.

        Args:
            stop: As for `ticks`; one more signal leaves the remaining huge pages split.
        """
        tracking = self.tracking
        if tracking is None:
            return Cost()
        with contextlib.suppress(BlockingIOError):
            os.read(stop, 1 << 10)  # the signal that ended the looks
        ready = select.poll()
        ready.register(stop, select.POLLIN)
        tracking.end_early = lambda: bool(ready.poll(0))
        tracking.close()
        if tracking.restored.note:
            self.common.say(tracking.restored.note)
        return tracking.end_cost

    def close(self) -> None:
        """Disarm, and release the lock on the target."""
        self.toll.close()
        if self.tracking is not None:
            self.tracking.close()
            self.target.close()
        if self.lock is not None:
            self.lock.remove()
            self.lock.close()
        if self.launched:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[int]:
    """Yield a descriptor that is readable after SIGINT, SIGTERM or SIGHUP.

    An ignored SIGHUP stays ignored, because nohup(1) sets that.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def stop(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writable, b"!")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield readable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


def end_line(tick: Tick, ending: Cost) -> str:
    """Return the last line: why the watch ended, totals, and added mappings."""
    why = {
        "interrupted": "interrupted",
        "count": "all requested looks are done",
        "duration": "the time is up",
        "exited": "the target has ended",
        "exec": "the target runs another program now (exec)",
        "lost": "tracking was lost",
    }[tick.end or "interrupted"]
    share = tick.total_share
    cost = "" if share is None else f"; {cost_words(share)}"
    if ending.mappings_added:
        cost += f"; it has {plural(ending.mappings_added, 'mapping')} more by that"
    return (
        f"{why}: {plural(tick.totals.pages, 'page')} ({format_size(tick.totals.bytes)})"
        f" written in {plural(tick.number, 'look')}{cost}"
    )


def cost_words(share: float) -> str:
    """Return the words for the cost to the target; the share is 0 to 1."""
    return f"tracking cost it about {format_share(share)} of its processor time"
