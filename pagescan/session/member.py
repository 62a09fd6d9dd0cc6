"""A process of a watched group: taken in, looked at, followed over exec, let go."""

import contextlib
import time
from datetime import datetime
from typing import TYPE_CHECKING

from pagescan.model.errors import NoSuchTargetError, PagescanError, TargetError
from pagescan.model.groups import MemberLook, MemberUntracked, Populated, ProcessFacts
from pagescan.model.looks import Look, add, summary_of
from pagescan.model.memory import DEFAULT_RETURNED, PAGE_SIZE
from pagescan.model.results import Cost, Summary, TargetFacts
from pagescan.model.units import format_seconds, now
from pagescan.session.locks import Lock
from pagescan.session.watched import Arming, Terms, runs_another_program
from pagescan.target import maps
from pagescan.target.group import Member, lives
from pagescan.target.living import executable
from pagescan.target.process import Target
from pagescan.tracking.fault_cost import USUAL, FaultCost
from pagescan.tracking.target_cost import TargetCost

if TYPE_CHECKING:
    from pagescan.native import Tracee
    from pagescan.tracking.sample import Budget
    from pagescan.tracking.tracking import Tracking

JUST_JOINED = "it has only just joined"
"""Why a process is not tracked that will be tried at the next tick."""
_FIRST_TRY, _LONGEST = 10.0, 300.0
"""Seconds until a refused process is tried again: at first, and at most."""
_SKIPPED = 10
"""After this many ticks a process that has not run is looked at all the same: other
processes may write to it."""


class WatchedMember:
    """A process of a group, tracked or not.

    Attributes:
        member: Which process it is.
        tracking: Its tracking; None: it is not tracked.
        why: The reason why it is not tracked, or "".
        refusal: The error behind the reason; None: there was no error.
        ended: Whether it is known to have ended.
        totals: Its writes since it joined.
        facts: The facts of the process; an exec changes its name.
        populated: Its memory, at the last count; None: not counted.
        tracee: Its tracer, if this process has started it.
    """

    def __init__(self, member: Member, terms: Terms) -> None:
        """Remember a process; `attach` begins to track it."""
        self.member = member
        self.facts = TargetFacts(
            member.pid,
            member.name,
            executable(member.pid),
            member.start_time,
            PAGE_SIZE,
        )
        self.tracking: Tracking | None = None
        self.toll = TargetCost(FaultCost(USUAL, "it is that of most machines"))
        self.why = ""
        self.refusal: Exception | None = None
        self.ended = False
        self.totals = self._written = Summary.none()
        self.joined_at: datetime | None = None
        self.populated: Populated | None = None
        self.tracee: Tracee | None = None
        self._terms = terms
        self._undo = contextlib.ExitStack()
        self._due = 0.0
        self._wait = _FIRST_TRY
        self._clock = -1
        self._skipped = 0
        self._stopped_ns = 0
        self._seen = 0.0  # when its writes were known
        self._was_exec = False  # and is not attached again yet
        follower = terms.follower
        self._returned = follower.returned if follower else DEFAULT_RETURNED
        self.toll.sample_seconds = follower.sample_ns / 1e9 if follower else 0.0

    @property
    def never_tried(self) -> bool:
        """Whether it was neither tracked nor refused so far."""
        return self.joined_at is None and self.refusal is None

    @property
    def due(self) -> bool:
        """Whether an attach may be tried now: one by a tracer, while CMD stands."""
        tracee = self.tracee
        runs = tracee is not None and not (tracee.stands or tracee.lost)
        waits = self.ended or runs or time.monotonic() < self._due
        return self.tracking is None and not waits

    def attach(self, budget: "Budget | None") -> bool:
        """Begin to track it; after a failure, store the reason and the next time.

        Args:
            budget: Bounds what tracking may cost it; None: no bound.

        Returns:
            Whether it is tracked.
        """
        try:
            with contextlib.ExitStack() as undo:
                pid, start_time = self.member.key
                target = undo.enter_context(Target.open(pid, start_time=start_time))
                target.tracee = self.tracee
                maps.check_selection(self._terms.selection, target)
                lock = Lock.taken(pid, undo)
                # So idle processes are not all looked at in the same tick.
                self._clock, self._skipped = _clock(pid), pid % _SKIPPED
                arming = Arming(self._terms, lock, self.toll, budget)
                tracking = undo.enter_context(arming.arm(target))
                self._undo = undo.pop_all()
        except (PagescanError, OSError) as error:
            self._refused(error)
            return False
        self.tracking, self.facts = tracking, target.facts
        self.why, self.refusal = "", None
        self.joined_at = self.joined_at or tracking.armed_at
        if self._was_exec and self.tracee is None:  # else the tracer says so
            self._terms.say(
                f"{pid} ({self.facts.name}) was exec'd: attached again; its writes in"
                f" the last {format_seconds(time.monotonic() - self._seen)} are not"
                " known"
            )
        self._seen, self._was_exec = time.monotonic(), False
        self._stopped_ns += tracking.cost.stopped_ns
        self._wait = _FIRST_TRY
        return True

    def _refused(self, error: Exception) -> None:
        if not lives(self.member):
            self.ended = True
            return
        self.why, self.refusal = str(error), error
        self._due = time.monotonic() + self._wait
        self._wait = min(2 * self._wait, _LONGEST)

    def look(self, *, last: bool = False) -> Look | None:
        """Return its writes since its last look, and protect these pages again.

        None: it has not run since then, or it cannot be looked at any more: see
        `tracking` and `ended`.

        Args:
            last: Whether this is the last look: it is made even if it has not run.
        """
        self._written = Summary.none()
        tracking = self.tracking
        if tracking is None:
            return None
        clock = _clock(self.member.pid)
        if clock == self._clock and not last and self._skipped < _SKIPPED:
            self._skipped += 1
            self._seen = time.monotonic()
            return None
        self._clock, self._skipped = clock, 0
        try:
            look = tracking.look(rearm=True, returned=self._returned)
        except NoSuchTargetError:
            self.close()
            self.ended = True
        except TargetError as error:
            again = runs_another_program(tracking.target)
            self.close()
            self._refused(error)
            if again:
                self._due = 0.0  # an exec: it is attached again at once
                self._was_exec = True
        except PagescanError as error:
            self.close()
            self._refused(error)
        else:
            self._written, self._seen = summary_of(look), time.monotonic()
            self.totals = add(self.totals, self._written)
            return look
        return None

    def take_stopped(self) -> int:
        """Return the nanoseconds for which it was stopped since the last call."""
        stopped, self._stopped_ns = self._stopped_ns, 0
        return stopped

    def at_tick(self, look: Look | None, end: str | None = None) -> MemberLook:
        """Return the facts of this tick."""
        unseen = None
        if end == "exited" and look is None and self.joined_at is not None:
            unseen = round((time.monotonic() - self._seen) * 1e9)
        facts = ProcessFacts(
            self.facts,
            self.member.label,
            self._written,
            self.totals,
            self.joined_at,
            now() if end else None,
            end,
            None if end else self.populated,
            unseen,
        )
        return MemberLook(facts, look)

    def untracked(self, look: Look | None) -> list[MemberUntracked]:
        """Return the parts that are not tracked, or the process as a whole.

        Parts that are never written are left out: every process has such parts.
        """
        pid, name = self.facts.pid, self.facts.name
        if self.tracking is None:
            why = self.why or JUST_JOINED
            return [MemberUntracked(pid, name, None, why)]
        parts = look.untracked if look else self.tracking.armed.untracked
        return [
            MemberUntracked(pid, name, part, part.why)
            for part in parts
            if not part.never_written
        ]

    def close(self) -> Cost:
        """Disarm it; return the cost of that. A second call has no effect."""
        tracking, self.tracking = self.tracking, None
        if tracking is not None and self._terms.follower is not None:
            self._terms.follower.unfollow(tracking)
        self._undo.close()
        return tracking.end_cost if tracking else Cost()


def _clock(pid: int) -> int:
    """Return the processor time of a process in nanoseconds; -1: it has ended.

    It includes threads that run at this moment.
    """
    try:
        # A process's clock is the complement of its pid; CPUCLOCK_SCHED is 2.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return -1
