"""A target that is tracked while this process runs: armed, locked, followed over exec.

`watch`, `demo` and recordings loop over its ticks.
"""

import contextlib
import os
import select
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

from pagescan.model.errors import NoSuchTargetError, TargetError
from pagescan.model.looks import Tick, costs_much
from pagescan.model.memory import DEFAULT_RETURNED, Category
from pagescan.model.results import Cost
from pagescan.model.units import format_seconds, format_share, now
from pagescan.native import Pace
from pagescan.session.locks import Lock
from pagescan.session.record import session_of
from pagescan.target import maps
from pagescan.target.causes import rights_lost
from pagescan.target.launch import Launched, reap
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.tracking.arm import MAX_TABLES
from pagescan.tracking.target_cost import TargetCost
from pagescan.tracking.ticks import Inputs, Limits, Worker, ticks
from pagescan.tracking.tracking import Tracking

if TYPE_CHECKING:
    from pagescan.target.label_rules import Told
    from pagescan.tracking.fault_cost import FaultCost
    from pagescan.tracking.sample import Budget

TRACER_LOST = "the tracer of CMD was killed: CMD goes on, its end will not be seen"

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Discard a message."""


class Follower(Protocol):
    """Follows the looks of a target, as `who` does."""

    returned: Category
    """The categories that it needs."""

    sample_ns: int
    """What it costs the target per page fault."""

    def expect(self, target: Target) -> None:
        """Get ready: the target is about to be armed."""

    def follow(self, tracking: Tracking) -> None:
        """Follow a tracking that has just armed; after an exec, the next one."""

    def unfollow(self, tracking: Tracking) -> None:
        """The tracking of a member of a group has ended, or is lost."""


@dataclass(slots=True)
class Terms:
    """The terms on which a target is tracked.

    Attributes:
        selection: The mappings to track.
        pace: How long one call may hold the target's mmap lock.
        max_tables: Bytes of page tables that holes of shared memory may cost.
        restore_huge: Whether the end puts back the huge pages that were split.
        percent: The most of the target's processor time that tracking may cost; None:
            no bound, and everything is tracked.
        interval: Seconds between two looks; a bound on the cost depends on it.
        fault: The cost of a first write, if it was measured before.
        say: Called with each message for the user.
        detail: Called with each message that only -v shows.
        follower: Follows each tracking, from its arming on; None: no follower.
        holder: The command that tracks, as `sessions` names it.
        told: What the target has said of its memory: see `target.jvm`.
    """

    selection: Selection
    pace: Pace
    max_tables: int = MAX_TABLES
    restore_huge: bool = True
    percent: float | None = None
    interval: float = 1.0
    fault: "FaultCost | None" = None
    say: Say = _silent
    detail: Say = _silent
    follower: Follower | None = None
    holder: str = "watch"
    told: "Sequence[Told]" = ()


class Watched:
    """A tracked target; the process that made this object holds the session's lock.

    Attributes:
        target: The process; another object after an exec of a launched CMD.
        tracking: Its tracking; another object after such an exec, too.
        terms: The terms on which it is tracked.
        cost_warning: Warns once if tracking costs the target much.
    """

    def __init__(
        self,
        arming: "Arming",
        target: Target,
        tracking: Tracking,
        launched: Launched | None,
    ) -> None:
        """Take over an armed target; only `armed` calls this."""
        self.terms = arming.terms
        self.target = target
        self.tracking = tracking
        self.cost_warning = CostWarning(arming.toll, bounded=arming.budget is not None)
        self._arming = arming
        self._launched = launched

    @classmethod
    @contextlib.contextmanager
    def armed(
        cls,
        pid: int,
        terms: Terms,
        *,
        launched: Launched | None = None,
        expect: Callable[[Target], None] | None = None,
    ) -> Iterator[Self]:
        """Attach to a process and arm it; at the end it is disarmed.

        This is the door for every command that runs a CMD:

            launched = launch(argv, stdout=2, stderr=2)  # stands; undo: launched.close
            with Watched.armed(launched.pid, terms, launched=launched) as watched:
                for tick in watched.ticks(limits, stop):  # CMD begins here
                    ...  # in the last tick CMD still stands, with its memory
                cost = watched.end(stop)  # CMD ends, or runs on untracked
                code = watched.exit_code(tick, stop)  # CMD's, or 0

        Args:
            pid: The process.
            terms: The terms on which it is tracked.
            launched: The CMD that has this pid; None: the process ran before.
            expect: Called right before it is armed, which may take long.

        Raises:
            PagescanError: As for `arm`; a launched CMD is ended then.
        """
        with contextlib.ExitStack() as undo:
            if launched:
                undo.callback(reap, pid)
            toll, budget = cost_of(terms)
            undo.callback(toll.close)
            terms.pace.progress = None  # the live view owns the screen
            with contextlib.ExitStack() as before:
                target = before.enter_context(Target.open(pid))
                target.tracee = launched.tracee if launched else None
                for note in maps.check_selection(terms.selection, target):
                    terms.say(note)
                lock = Lock.taken(pid, undo)
                if expect is not None:
                    expect(target)
                arming = Arming(terms, lock, toll, budget)
                watched = cls(arming, target, arming.arm(target), launched)
                before.pop_all()
            undo.callback(watched._close)
            yield watched

    def ticks(
        self,
        limits: Limits,
        stop: int,
        *,
        worker: Worker | None = None,
        inputs: Inputs | None = None,
    ) -> Iterator[Tick]:
        """Let CMD begin; yield the ticks like `tracking.ticks`; follow its execs."""
        tracee = self._launched.tracee if self._launched else None
        if self._launched:
            self._launched.go_on()
        follower = self.terms.follower
        for tick in ticks(
            self.tracking,
            limits,
            stop,
            self._follow,
            tracer=tracee,
            worker=worker,
            inputs=inputs,
            returned=follower.returned if follower else DEFAULT_RETURNED,
        ):
            if tracee is not None and tracee.lost and not self.target.exited():
                self.terms.say(TRACER_LOST)
                tracee = None
            yield tick

    def _follow(self) -> Tracking | None:
        """Attach again after an exec of CMD; None: impossible, so the loop ends."""
        if not self._launched:
            return None
        self.tracking.close()
        old = self.target
        while not old.exited():
            try:
                target = Target.open(old.pid)
            except TargetError:
                return None
            target.tracee = self._launched.tracee
            try:
                tracking = self._arming.arm(target)
            except TargetError:
                again = runs_another_program(target)
                target.close()
                if not again:
                    return None
                continue
            except BaseException:
                target.close()
                raise
            unseen = now() - (self.tracking.since or self.tracking.armed_at)
            self.target, self.tracking = target, tracking
            old.close()
            self._say_exec(unseen.total_seconds())
            self._launched.go_on()
            return tracking
        return None

    def _say_exec(self, unseen: float) -> None:
        """Say that CMD is another program now, and which writes were missed."""
        self.terms.say(
            f"{self.target} was exec'd: attached again; writes in the last"
            f" {format_seconds(max(0, unseen))} before it were not seen"
        )
        if note := rights_lost(self.target.facts.exe or ""):
            self.terms.say(note)

    def exit_code(self, last: Tick | None, stop: int) -> int:
        """Return the exit status of a launched CMD, 128 + N after signal N.

        Args:
            last: The last tick; 0 unless it ended with the target.
            stop: As for `ticks`: a signal ends the wait for CMD's end, with 0.
        """
        if self._launched is None or last is None or last.end != "exited":
            return 0
        return self._launched.exit_code(stop)

    def end(self, stop: int) -> Cost:
        """Let CMD continue, disarm, and put huge pages back; return the cost.

        Args:
            stop: As for `ticks`; one more signal leaves the other huge
                pages split.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(stop, 1 << 10)  # the signal that ended the looks
        ready = select.poll()
        ready.register(stop, select.POLLIN)
        if self._launched:
            self._launched.go_on()
        if self._launched and self._launched.tracee.ends:
            ready.register(self.target.pidfd, select.POLLIN)
            ready.poll()  # no disarm while its memory goes
            ready.unregister(self.target.pidfd)
        tracking = self.tracking
        tracking.end_early = lambda: bool(ready.poll(0))
        tracking.close()
        if tracking.restored.note:
            self.terms.say(tracking.restored.note)
        return tracking.end_cost

    def _close(self) -> None:
        self.tracking.close()
        self.target.close()


@dataclass(slots=True)
class Arming:
    """Arms a target, at first and again after each exec, under one lock."""

    terms: Terms
    lock: Lock
    toll: TargetCost
    budget: "Budget | None"

    def arm(self, target: Target) -> Tracking:
        """Attach to an open target and arm it; write the facts to the lock file."""
        if self.terms.follower is not None:
            self.terms.follower.expect(target)
        tracking = self._start(target)
        try:
            tracking.restore_huge = self.terms.restore_huge
            tracking.toll = self.toll
            self.toll.begin(target.pid)
            self.terms.detail(tracking.attached)
            self.lock.write(session_of(tracking, self.terms.holder))
            if self.terms.follower is not None:
                self.terms.follower.follow(tracking)
        except BaseException:
            tracking.close()
            raise
        return tracking

    def _start(self, target: Target) -> Tracking:
        terms = self.terms
        if self.budget is None:
            return Tracking.start(
                target, terms.selection, max_tables=terms.max_tables, pace=terms.pace
            )
        from pagescan.tracking.sampled import SampledTracking
        from pagescan.tracking.target_cost import usual_use

        budget = self.budget
        if target.tracee is None:  # CMD has not begun
            budget = budget.of_use(usual_use(target.pid, target.facts.start_time))
        return SampledTracking.start_within(
            budget,
            target,
            terms.selection,
            max_tables=terms.max_tables,
            pace=terms.pace,
        )


def cost_of(terms: Terms) -> "tuple[TargetCost, Budget | None]":
    """Return the counter of the cost, and the budget; measure a write for a budget."""
    sample = terms.follower.sample_ns / 1e9 if terms.follower is not None else 0.0
    if terms.percent is None:
        toll = TargetCost(terms.fault)
        toll.sample_seconds = sample
        toll.on_measured = lambda cost: terms.detail(str(cost))
        return toll, None
    from pagescan.tracking.fault_cost import measured
    from pagescan.tracking.sample import Budget

    cost = terms.fault
    if cost is None:
        cost = measured()
        terms.detail(str(cost))
    budget = Budget.of(terms.percent, terms.interval, cost.seconds + sample)
    toll = TargetCost(cost)
    toll.sample_seconds = sample
    return toll, budget


def runs_another_program(target: Target) -> bool:
    """Whether a target called exec since it was opened, and has not ended."""
    ended = isinstance(target.gone(), NoSuchTargetError)
    return not ended and not target.has_address_space()


class CostWarning:
    """Warns once that tracking costs much, unless a budget bounds the cost.

    Attributes:
        toll: The cost.
        warned: Whether it has been high.
    """

    def __init__(self, toll: TargetCost, *, bounded: bool = False) -> None:
        """Watch a cost; `bounded`: a budget bounds it, so never warn."""
        self.toll = toll
        self.warned = False
        self._done = bounded

    @staticmethod
    def remedy(*, sampled: bool) -> str:
        """Return what makes the cost less; `sampled`: samples of writers are a part."""
        if sampled:
            return "a longer interval costs less, and so does a run without writers"
        return "--budget 2 keeps that to 2 %, and a longer interval costs less"

    def check(self, tick: Tick) -> bool:
        """Return whether to warn at this tick; that is once."""
        if tick.look is None or self._done or tick.unseen_ns is not None:
            return False  # or there is no target any more that it could spare
        much = costs_much(tick.look.cost, tick.seconds)
        if not much or not (self.toll.settled or tick.end):
            return False
        self._done = self.warned = True
        return True

    def text(self, tick: Tick) -> str | None:
        """Return the message for this tick, or None."""
        if not self.check(tick) or tick.look is None:
            return None
        share = tick.look.cost.target_share or 0.0
        remedy = self.remedy(sampled=bool(self.toll.sample_seconds))
        return (
            "tracking costs the target about"
            f" {format_seconds(self.toll.last / tick.seconds)} of processor time per"
            f" second, {format_share(share)} of its own: {remedy}"
        )
