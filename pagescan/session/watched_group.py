"""A group of processes that is tracked while this process runs: `watch --tree`, ….

One process holds the descriptors of all members. New members are attached at the next
tick; the writes of members that have gone stay in the totals; a member that cannot be
tracked is named with the reason, and the others are tracked all the same.
"""

import contextlib
import math
import os
import resource
import select
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Self

from pagescan.model.errors import PagescanError
from pagescan.model.groups import GroupTick, MemberLook, MemberUntracked, Populated
from pagescan.model.looks import Look, add
from pagescan.model.results import Cost, Estimate, Summary
from pagescan.model.shared_once import SharedOnce
from pagescan.model.units import now
from pagescan.scanner.counts import populated_regions
from pagescan.session.group_toll import GroupToll
from pagescan.session.member import WatchedMember
from pagescan.session.watched import Terms, cost_of
from pagescan.target.births import Births
from pagescan.target.census import Census
from pagescan.target.group import Member, Selector, lives
from pagescan.tracking.ticks import Inputs, Limits, Timer

if TYPE_CHECKING:
    from pagescan.tracking.sample import Budget

MOST = 1000
"""The most tracked members: a fork bomb must not use up all descriptors."""
_SPARE, _PER_MEMBER = 64, 6  # descriptors
_ATTACHING = 0.5  # of an interval: the longest time per tick for new members


class WatchedGroup:
    """The tracked members of a group.

    Attributes:
        selector: The group.
        terms: The terms on which each member is tracked.
        members: The members by pid and start time.
        armed_at: When the first member was armed.
        gone: How many members have gone.
        short_lived: How many children ended before any look; None: unknown.
        populated: The memory of all members together, at the last count; None: not
            counted.
    """

    def __init__(
        self,
        selector: Selector,
        terms: Terms,
        budget: "Budget | None",
        first: tuple[Member, ...],
    ) -> None:
        """Begin without a tracked member; only `armed` calls this."""
        self.selector = selector
        self.terms = terms
        self.members: dict[tuple[int, int], WatchedMember] = {}
        self.armed_at = now()
        self.gone = 0
        self.populated: Populated | None = None
        self._budget = budget
        self._census = Census(selector, first)
        self._births = Births.open()
        self.short_lived = None if self._births is None else 0
        self._young: set[int] = set()
        self._family = {member.pid for member in first}
        self._most, self._why_over = _room()
        self._over = 0
        self._toll = GroupToll(terms)

    @classmethod
    @contextlib.contextmanager
    def armed(cls, selector: Selector, terms: Terms) -> Iterator[Self]:
        """Attach to all present members and arm them; at the end all are disarmed.

        Raises:
            NoSuchTargetError: There is no process in the group.
            PagescanError: None of them can be tracked; the message has a reason.
        """
        with contextlib.ExitStack() as undo:
            first = selector.require()
            terms.pace.progress = None  # the live view owns the screen
            toll, budget = cost_of(terms)
            toll.close()
            group = cls(selector, terms, budget, first)
            undo.callback(group.close)
            group._take_in(first, deadline=None)
            group._say_how_it_began()
            yield group

    def _say_how_it_began(self) -> None:
        tracked = [item for item in self.members.values() if item.tracking]
        if not tracked:
            item = next(iter(self.members.values()))
            raise PagescanError(
                f"no process in {self.selector} can be tracked: {item.why}",
                hint="pagescan arm PID gives the details for one process",
            )
        if self._births is None:
            self.terms.say(
                "children that live less than a tick are not counted: the kernel tells"
                " of them only to root, in the first PID namespace"
            )

    def ticks(
        self, limits: Limits, stop: int, *, inputs: Inputs | None = None
    ) -> Iterator[GroupTick]:
        """Look at all members at each tick, and yield the tick; the last one has `end`.

        Args:
            limits: The interval, and when to stop.
            stop: A descriptor: the loop ends when it becomes readable.
            inputs: Served while the loop waits.
        """
        timer = Timer(limits, stop, None, inputs or {})
        before, since = time.monotonic(), self.armed_at
        totals = Summary.none()
        number = 0
        end = None
        while end is None:
            number += 1
            end = timer.wait()
            if end is None and number == limits.count:
                end = "count"
            tick = self._tick(number, limits, before, since, end)
            end = end or self._over_with()
            totals = add(totals, tick.summary)
            before, since = time.monotonic(), tick.time
            share, spent = self._toll.share, self._toll.spent_ns
            yield replace(
                tick, end=end, totals=totals, total_share=share, total_ns=spent
            )

    def _over_with(self) -> str | None:
        """Return the end if no member can come any more: a tree without a process."""
        if self.members:
            return None
        return "exited" if self.selector.kind == "tree" else None

    def _tick(
        self,
        number: int,
        limits: Limits,
        before: float,
        since: datetime,
        end: str | None,
    ) -> GroupTick:
        """Look at all members, then take in new ones; the tick has no sums yet."""
        looks = {
            key: look
            for key, item in self.members.items()
            if (look := item.look(last=end is not None)) is not None
        }
        self._hear_of_births()
        gone = self._let_go(looks)
        if end is None:
            deadline = time.monotonic() + limits.interval * _ATTACHING
            self._take_in(self._census.read(), deadline)
        self._count_short_lives()
        at_tick = [
            *(item.at_tick(looks.get(key)) for key, item in self.members.items()),
            *gone,
        ]
        return GroupTick(
            number,
            tuple(at_tick),
            since,
            now(),
            time.monotonic() - before,
            _sum_of(at_tick),
            Summary.none(),
            self._untracked(looks),
            self._cost(looks),
            end,
            self.gone,
            self.short_lived,
            self.armed_at,
            estimate=_estimate_of(looks.values()),
        )

    def _let_go(self, looks: dict[tuple[int, int], Look]) -> list[MemberLook]:
        """Remove the members that have gone; return their last facts."""
        gone = []
        for item in list(self.members.values()):
            if item.ended:
                self._census.forget(item.member)
        present = {member.key for member in self._census.read()}
        for key in self.members.keys() - present:
            item = self.members.pop(key)
            item.close()
            end = "left" if not item.ended and lives(item.member) else "exited"
            if item.joined_at is None and end == "exited":
                if self.short_lived is not None:
                    self.short_lived += 1
                continue
            gone.append(item.at_tick(looks.get(key), end))
            self.gone += 1
        return gone

    def _take_in(self, present: tuple[Member, ...], deadline: float | None) -> None:
        """Attach to new processes, and try some again that were refused.

        Args:
            present: The present members.
            deadline: When to leave the rest to the next tick; None: no deadline.
        """
        self._over = 0
        for member in present:
            item = self.members.get(member.key)
            if item is None:
                if len(self.members) >= self._most:
                    self._over += 1
                    continue
                item = self.members[member.key] = WatchedMember(member, self.terms)
                item.toll.fault = self._toll.fault
            item.member = member
            if item.due and (deadline is None or time.monotonic() < deadline):
                item.attach(self._budget)
        self._family = {member.pid for member in present}

    def _hear_of_births(self) -> None:
        """Store which children the members have forked since the last tick."""
        if self._births is None:
            return
        for parent, child in self._births.read():
            if parent in self._family or parent in self._young:
                self._young.add(child)
        if not self._births.complete:
            self._births.complete = True
            self.terms.say("not all processes that began could be counted")

    def _count_short_lives(self) -> None:
        """Count the children that have ended before any reading of /proc."""
        if self.short_lived is not None:
            others = self._young - self._family
            self.short_lived += sum(
                not os.path.exists(f"/proc/{pid}") for pid in others
            )
        self._young.clear()

    def _untracked(
        self, looks: dict[tuple[int, int], Look]
    ) -> tuple[MemberUntracked, ...]:
        found = [
            part
            for key, item in self.members.items()
            for part in item.untracked(looks.get(key))
        ]
        if self._over:
            why = f"{self._over} more: {self._why_over}"
            found.append(MemberUntracked(None, "", None, why))
        return tuple(found)

    def _cost(self, looks: dict[tuple[int, int], Look]) -> Cost:
        """Return the cost of the looks and of the attaches, with the share for all."""
        cost = sum((look.cost for look in looks.values()), Cost())
        items = list(self.members.values())
        stopped = sum(item.take_stopped() for item in items)
        share = self._toll.add([item.toll for item in items])
        return replace(cost, stopped_ns=cost.stopped_ns + stopped, target_share=share)

    def count_memory(self) -> None:
        """Count the present and swapped pages of each member, and of all together."""
        whole = SharedOnce()
        for item in self.members.values():
            if item.tracking is None:
                continue
            with contextlib.suppress(PagescanError):
                batch = populated_regions(item.tracking.scanner, self.terms.selection)
                whole.add(batch)
                item.populated = _populated(batch.summary())
        self.populated = _populated(whole.summary())

    def end(self, stop: int) -> Cost:
        """Disarm all members and put huge pages back; return the cost.

        Args:
            stop: One more signal leaves the rest of the huge pages split.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(stop, 1 << 10)  # the signal that ended the looks
        ready = select.poll()
        ready.register(stop, select.POLLIN)
        cost = Cost()
        for item in self.members.values():
            if item.tracking is not None:
                item.tracking.end_early = lambda: bool(ready.poll(0))
            cost += item.close()
        return cost

    def close(self) -> None:
        """Disarm all members; a second call has no effect."""
        for item in self.members.values():
            item.close()
        self._toll.close()
        if self._births is not None:
            self._births.close()
            self._births = None


def _room() -> tuple[int, str]:
    """Raise this process's limit of descriptors; return how many members it allows.

    Returns:
        The most members, and the reason for the limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    allowed = (soft - _SPARE) // _PER_MEMBER
    if allowed >= MOST:
        return MOST, f"a group has at most {MOST:,} tracked processes"
    return max(1, allowed), (
        f"the limit of {soft} descriptors allows {max(1, allowed)} tracked processes"
        " (ulimit -n)"
    )


def _sum_of(members: Iterable[MemberLook]) -> Summary:
    """Return the writes of all members; shared memory counts once unless estimated."""
    whole = SharedOnce()
    regions = 0
    each = Summary.none()
    estimated = False
    for facts, look in members:
        if look is None:
            continue
        whole.add(look.batch)
        regions += len(look.batch)
        each = add(each, facts.summary)
        estimated |= look.estimate is not None
    return each if estimated else whole.summary()._replace(regions=regions)


def _estimate_of(looks: Iterable[Look]) -> Estimate | None:
    """Return the estimate for all together: the members were drawn independently."""
    parts = [look.estimate for look in looks if look.estimate is not None]
    if not parts:
        return None
    pages = sum(part.pages for part in parts)
    below = math.hypot(*(part.pages - part.low for part in parts))
    above = math.hypot(*(part.high - part.pages for part in parts))
    share = sum(part.share for part in parts) / len(parts)
    return Estimate(pages, round(pages - below), round(pages + above), share)


def _populated(summary: Summary) -> Populated:
    found = summary.categories
    return Populated(found.get("present", 0), found.get("swapped", 0))
