"""A group of processes that is tracked while this process runs: `watch --tree`, ….

One process holds the descriptors of all members. New members are attached at the next
tick; the writes of members that have gone stay in the totals; a member that cannot be
tracked is named with the reason, and the others are tracked all the same.
"""

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from pagescan.model.errors import PagescanError
from pagescan.model.groups import (
    GroupTick,
    MemberLook,
    MemberUntracked,
    Populated,
    estimate_of,
    sum_of,
)
from pagescan.model.looks import Look, add
from pagescan.model.results import Cost, Summary
from pagescan.model.shared_once import SharedOnce
from pagescan.model.units import now
from pagescan.scanner.counts import populated_regions
from pagescan.session.group_limit import room
from pagescan.session.group_toll import GroupToll
from pagescan.session.launched_root import LaunchedRoot
from pagescan.session.member import WatchedMember
from pagescan.session.watched import Terms, cost_of
from pagescan.target.births import Births
from pagescan.target.census import Census
from pagescan.target.group import Member, Selector, lives
from pagescan.target.launch import Launched
from pagescan.tracking.ticks import Inputs, Limits, Timer

if TYPE_CHECKING:
    from pagescan.tracking.sample import Budget
    from pagescan.tracking.tracking import Tracking

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
        root: The CMD that is the root of a tree; None: the processes ran before.
    """

    def __init__(
        self,
        selector: Selector,
        terms: Terms,
        budget: "Budget | None",
        first: tuple[Member, ...],
        root: LaunchedRoot | None,
    ) -> None:
        """Begin without a tracked member; only `armed` calls this."""
        self.root = root
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
        self._most, self._why_over = room()
        self._over = 0
        self._toll = GroupToll(terms)
        self._number, self._stop = 0, -1
        self._before, self._since = time.monotonic(), self.armed_at
        self._totals = Summary.none()
        self._estimated = False
        self._unseen: int | None = None

    @classmethod
    @contextlib.contextmanager
    def armed(
        cls, selector: Selector, terms: Terms, *, launched: Launched | None = None
    ) -> Iterator[Self]:
        """Attach to all present members and arm them; at the end all are disarmed.

        Args:
            selector: The group.
            terms: The terms on which each member is tracked.
            launched: The CMD that is the root of the tree; None: the root ran before.

        Raises:
            NoSuchTargetError: There is no process in the group.
            PagescanError: None of them can be tracked; the message has a reason.
        """
        with contextlib.ExitStack() as undo:
            root = undo.enter_context(LaunchedRoot.standing(launched, terms))
            first = selector.require()
            terms.pace.progress = None  # the live view owns the screen
            toll, budget = cost_of(terms)
            toll.close()
            group = cls(selector, terms, budget, first, root)
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
                hint=getattr(item.refusal, "hint", None)
                or "pagescan arm PID gives the details for one process",
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
        root = self.root
        tracee = root.launched.tracee if root else None
        timer = Timer(limits, stop, None, inputs or {}, tracee)
        self._before, self._stop = time.monotonic(), stop
        if root:
            root.begin()
        end = None
        while end is None:
            woken = timer.wait()
            item = self._item_of_root()
            if root and woken == "exec":
                if item:
                    root.follow_exec(item, self._budget)
                root.begin()
                continue
            end = None if woken == "exit" else woken
            if end is None and self._number + 1 == limits.count:
                end = "count"
            tick = self._tick(limits.interval * _ATTACHING, end)
            if root:
                root.check_tracer(lives=item is not None and not item.ended)
            end = tick.end
            yield tick

    def _item_of_root(self) -> WatchedMember | None:
        """Return the member that CMD is; None: there is no CMD, or it has ended."""
        if self.root is None:
            return None
        pid = self.root.launched.pid
        return next(
            (one for one in self.members.values() if one.facts.pid == pid), None
        )

    def look(self) -> GroupTick:
        """Look at all members now, then take in the processes that have come."""
        return self._tick(None, None, every=True)

    @property
    def fault_seconds(self) -> float:
        """The cost of a first write to a member: measured, or the usual figure."""
        return self._toll.fault.seconds

    def _over_with(self) -> str | None:
        """Return the end if no member can come any more: a tree without a process."""
        if self.members:
            return None
        return "exited" if self.selector.kind == "tree" else None

    def _tick(
        self, attaching: float | None, end: str | None, *, every: bool = False
    ) -> GroupTick:
        """Look at all members, then take in new ones.

        Args:
            attaching: The longest time in seconds for new members; None: no bound.
            end: Why this is the last tick; None: it is not.
            every: Whether members that have not run are looked at, too.
        """
        looks = self._looks(last=every or end is not None)
        self._let_root_end()
        self._hear_of_births()
        gone = self._let_go(looks)
        if end is None:
            deadline = None if attaching is None else time.monotonic() + attaching
            self._take_in(self._census.read(full=every), deadline)
        self._count_short_lives()
        at_tick = [
            *(item.at_tick(looks.get(key)) for key, item in self.members.items()),
            *gone,
        ]
        summary = sum_of(at_tick)
        self._totals = add(self._totals, summary)
        self._number += 1
        estimate = estimate_of(looks.values())
        self._estimated |= estimate is not None
        tick = GroupTick(
            self._number,
            tuple(at_tick),
            self._since,
            now(),
            time.monotonic() - self._before,
            summary,
            self._totals,
            self._untracked(looks),
            self._cost(looks),
            end or self._over_with(),
            self.gone,
            self.short_lived,
            self.armed_at,
            self._toll.share,
            self._toll.spent_ns,
            estimate,
            self._estimated,
            self._unseen,
        )
        self._before, self._since = time.monotonic(), tick.time
        return tick

    def _let_root_end(self) -> None:
        """Let a CMD that stands at its end go, after its last look."""
        if self.root is None or not self.root.launched.tracee.ends:
            return
        self._take_in(self._census.read(), None)  # before its children are orphans
        item = self._item_of_root()
        self.root.let_end(self._stop)
        if item:
            item.ended = True

    def _looks(self, *, last: bool) -> dict[tuple[int, int], Look]:
        """Look at the members; without a look, one has not run or is gone."""
        stands = self.root is not None and self.root.launched.tracee.ends
        ending = self._item_of_root() if stands else None
        return {
            key: look
            for key, item in self.members.items()
            if (look := item.look(last=last or item is ending)) is not None
        }

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
            self._toll.gone.append(item.toll)
            end = "left" if not item.ended and lives(item.member) else "exited"
            if item.never_tried and end == "exited":
                if self.short_lived is not None:
                    self.short_lived += 1
                continue
            gone.append(item.at_tick(looks.get(key), end))
            self.gone += 1
            if (unseen := gone[-1].facts.unseen_ns) is not None:
                self._unseen = max(self._unseen or 0, unseen)
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
                if self.root and member.pid == self.root.launched.pid:
                    item.tracee = self.root.launched.tracee
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
            found.append(MemberUntracked(None, "others", None, why))
        return tuple(found)

    def _cost(self, looks: dict[tuple[int, int], Look]) -> Cost:
        """Return the cost of the looks and of the attaches, with the share for all."""
        cost = sum((look.cost for look in looks.values()), Cost())
        items = list(self.members.values())
        stopped = sum(item.take_stopped() for item in items)
        share = self._toll.add([item.toll for item in items])
        return replace(cost, stopped_ns=cost.stopped_ns + stopped, target_share=share)

    @property
    def trackings(self) -> "dict[tuple[int, int], Tracking]":
        """The trackings of the present members, by pid and start time."""
        return {
            key: item.tracking
            for key, item in self.members.items()
            if item.tracking is not None
        }

    def count_memory(self) -> None:
        """Count the present and swapped pages of each member, and of all together."""
        whole = SharedOnce()
        for item in self.members.values():
            if item.tracking is None:
                continue
            with contextlib.suppress(PagescanError):
                batch = populated_regions(item.tracking.scanner, self.terms.selection)
                whole.add(batch)
                item.populated = Populated.of(batch.summary())
        self.populated = Populated.of(whole.summary())

    def end(self, stop: int) -> Cost:
        """Disarm all members and put huge pages back; return the cost.

        Args:
            stop: One more signal leaves the rest of the huge pages split.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(stop, 1 << 10)  # the signal that ended the looks
        if self.root:
            self.root.let_end(stop)
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
