"""Sessions of a group from a command's side: arm all members, look at each."""

import contextlib
import errno
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pagescan.model.errors import (
    NoSuchTargetError,
    PagescanError,
    SessionError,
    SessionLostError,
    TargetError,
)
from pagescan.model.groups import (
    GroupFacts,
    GroupLook,
    MemberLook,
    MemberUntracked,
    ProcessFacts,
    sum_of,
)
from pagescan.model.looks import Look, summary_of
from pagescan.model.memory import Untracked
from pagescan.model.results import Cost, Summary
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.session.client import Client
from pagescan.session.delivery import look_until_delivered
from pagescan.session.group_limit import room
from pagescan.session.group_lookup import (
    GroupSession,
    lost_group,
    refuse_second,
)
from pagescan.session.locks import live_sessions, tracked_already
from pagescan.session.lookup import clear_away, lost_sessions
from pagescan.session.opened import Joining, end, start
from pagescan.session.record import GoneMember, Membership, Session
from pagescan.session.watched import Terms
from pagescan.target import maps
from pagescan.target.group import Member, Selector, Tree, lives
from pagescan.target.process import Target
from pagescan.target.selection import Selection

_TICKS = os.sysconf("SC_CLK_TCK")


def arm_group(selector: Selector, terms: Terms) -> GroupLook:
    """Arm all present processes of a group; one keeper holds their sessions.

    Args:
        selector: The group.
        terms: The terms on which each process is tracked.

    Returns:
        The processes that are armed, without looks, and those that could not be.

    Raises:
        SessionError: The group has a session already.
        NoSuchTargetError: There is no process in the group.
        PagescanError: None of them could be armed; the message has a reason.
    """
    refuse_second(selector.kind, selector.name)
    present = selector.require()
    begun = selector.start_time if isinstance(selector, Tree) else 0
    group = Membership(selector.kind, selector.name, begun, now())
    result = _Result(group, terms, Joining(group))
    try:
        result.take_in(present)
    except BaseException:
        for session in result.joining.sessions:
            with contextlib.suppress(PagescanError):
                end(session, restore_huge=terms.restore_huge)
        for session in result.joining.lost:
            clear_away(session)
        raise
    if not result.members:
        why = result.untracked[0].why if result.untracked else "all have ended"
        raise PagescanError(
            f"no process in {selector} can be tracked: {why}",
            hint="pagescan arm PID gives the details for one process",
        )
    return result.made()


@contextlib.contextmanager
def look_at_group_until_delivered(
    found: GroupSession, pace: Pace | None = None, *, rearm: bool = False
) -> Iterator[GroupLook]:
    """Look at each process of a group's session; yield the look at all.

    With `rearm` processes that have come are armed, too, and the baselines of all move
    when the block ends without an exception: see `look_until_delivered`. Until then the
    keeper remembers which members have gone. A group may have several keepers: a loss
    of one is told of its members.

    Raises:
        SessionError: The session has ended, or another command is rearming it.
        SessionLostError: Its keeper died.
    """
    terms = Terms(Selection.parse(found.members[0].words), pace or Pace())
    result = _Result(found.group, terms, Joining(found.group, late=True))
    with contextlib.ExitStack() as undo:
        result.look_at(found, undo, rearm=rearm)
        result.add_lost(found)
        sessions = [*found.members, *result.lost.values()]
        known = {member.key: member for member in map(_member_of, sessions)}
        heard = _gone(result.joining.sessions)
        gone = [item for _, items in heard for item in items]
        result.add_gone(gone, known)
        present = found.selector().members(tuple(known.values()))
        result.leave_out_lost({member.key for member in present})
        new = [member for member in present if member.key not in result.looked_at]
        if rearm:
            result.take_in(new, gone)
        else:
            result.leave_out(new, gone)
        yield result.made()
    for session in result.lost.values():
        clear_away(session)
    if rearm:
        for session, items in heard:
            with contextlib.suppress(PagescanError), Client(session) as client:
                client.told(items[-1].number)


def look_at_group(
    found: GroupSession, pace: Pace | None = None, *, rearm: bool = False
) -> GroupLook:
    """Look at each process of a group's session; return the look, as delivered."""
    with look_at_group_until_delivered(found, pace, rearm=rearm) as look:
        return look


@dataclass(slots=True)
class _Result:
    """The result of a command at a group, while it is made.

    Attributes:
        joining: The sessions that live; a process that is taken in joins them.
        looked_at: The processes that have a session, by pid and start time.
        lost: The sessions of the group whose keeper has died, in the same way.
    """

    group: Membership
    terms: Terms
    joining: Joining
    members: list[MemberLook] = field(default_factory=list)
    untracked: list[MemberUntracked] = field(default_factory=list)
    cost: Cost = Cost()  # noqa: RUF009 - it is immutable
    looked_at: set[tuple[int, int]] = field(default_factory=set)
    lost: dict[tuple[int, int], Session] = field(default_factory=dict)
    baselines: list[datetime | None] = field(default_factory=list)

    def look_at(
        self, found: GroupSession, undo: contextlib.ExitStack, *, rearm: bool
    ) -> None:
        """Look at each member; `undo` gets the looks whose results must arrive."""
        room()  # a rearming look holds some descriptors per member
        for session in found.members:
            pid, name = session.target.pid, session.target.name
            self.looked_at.add((pid, session.target.start_time))
            looks = look_until_delivered(session, rearm=rearm, pace=self.terms.pace)
            try:
                before, look = undo.enter_context(looks)
            except SessionLostError as error:
                if len({other.keeper_pid for other in found.members}) == 1:
                    for other in found.members:
                        clear_away(other)
                    raise lost_group(found) from error
                key = _member_of(session).key
                self.looked_at.discard(key)
                self.lost[key] = session
            except NoSuchTargetError:
                self._add_ended(session, now())
            except TargetError as error:  # an exec: its session has ended
                self.looked_at.discard((pid, session.target.start_time))
                why = f"{error}: its writes until then are not known"
                self._leave_out(pid, name, why)
            except PagescanError as error:
                if isinstance(error, SessionError) and error.errno == errno.ETIMEDOUT:
                    raise
                self._leave_out(pid, name, str(error))
            else:
                self._add(before, look)

    def _add(self, before: Session, look: Look) -> None:
        facts = ProcessFacts(
            before.target,
            None,
            summary_of(look),
            joined_at=before.armed_at,
        )
        self.members.append(MemberLook(facts, look))
        self.baselines.append(before.since)
        self.joining.sessions.append(before)
        self.cost += look.cost
        self._add_parts(before.target.pid, before.target.name, look.untracked)

    def _add_parts(self, pid: int, name: str, parts: Collection[Untracked]) -> None:
        """Add parts that are not tracked, apart from those that are never written."""
        self.untracked += [
            MemberUntracked(pid, name, part, part.why)
            for part in parts
            if not part.never_written
        ]

    def _leave_out(self, pid: int, name: str, why: str) -> None:
        self.untracked.append(MemberUntracked(pid, name, None, why))

    def add_lost(self, found: GroupSession) -> None:
        """Add the sessions of the group whose keeper died before this command."""
        for session in lost_sessions(found.group.key):
            self.lost[_member_of(session).key] = session

    def leave_out_lost(self, present: Collection[tuple[int, int]]) -> None:
        """Add the lost ones that the group has no more; the others follow as new."""
        for key, session in self.lost.items():
            if key not in present:
                why = "its keeper died: its writes are not known"
                self._leave_out(session.target.pid, session.target.name, why)

    def add_gone(
        self, gone: list[GoneMember], known: dict[tuple[int, int], Member]
    ) -> None:
        """Add the members that have ended since the last look, as the keeper says."""
        for item in gone:
            key = item.target.pid, item.target.start_time
            if item.end == "exited" and key not in known:
                self._add_ended(item, item.ended_at)

    def _add_ended(self, item: "Session | GoneMember", ended_at: datetime) -> None:
        unseen = ended_at - (item.since or item.armed_at)
        facts = ProcessFacts(
            item.target,
            None,
            Summary.none(),
            joined_at=item.armed_at,
            ended_at=ended_at,
            end="exited",
            unseen_ns=max(0, round(unseen.total_seconds() * 1e9)),
        )
        self.members.append(MemberLook(facts, None))
        why = "it has ended: its writes since its last look are not known"
        self._leave_out(item.target.pid, item.target.name, why)

    def leave_out(self, new: list[Member], gone: list[GoneMember]) -> None:
        """Add the processes that have no session, each with the reason."""
        for member in new:
            if any(item.pid == member.pid for item in self.untracked):
                continue
            why = f"{self._why_new(member, gone)}; diff --rearm arms it"
            self._leave_out(member.pid, member.name, why)

    def _why_new(self, member: Member, gone: list[GoneMember]) -> str:
        """Return why a process that is present has no session."""
        unknown = "its writes until now are not known"
        if member.key in self.lost:
            return f"its keeper died: {unknown}"
        for item in gone:
            if (item.target.pid, item.target.start_time) == member.key:
                what = "called exec" if item.end == "exec" else "was disarmed"
                return f"it {what}: {unknown}"
        for other in live_sessions(member.pid):
            return str(tracked_already(other))
        if _started(member) > self.group.armed_at:
            return f"it began after the group was armed: {unknown}"
        return f"it was not armed with the group: {unknown}"

    def take_in(
        self, present: Collection[Member], gone: list[GoneMember] | None = None
    ) -> None:
        """Arm processes; add each that is armed, and the reason for each other one.

        Args:
            present: The processes.
            gone: The members that have gone, if the group was armed before: the writes
                of a new process until now are not known then.
        """
        most, why_over = room()
        over = 0
        for member in present:
            tracked = sum(facts.end is None for facts, _ in self.members)
            if tracked >= most:
                over += 1
                continue
            why = None if gone is None else self._why_new(member, gone)
            try:
                self._arm(member)
            except (PagescanError, OSError) as error:
                if gone is None and self._is_armed_twice(member):
                    raise
                if lives(member):
                    self._leave_out(member.pid, member.name, str(error))
                continue
            if why is not None:
                self._leave_out(member.pid, member.name, f"{why}; it is armed now")
        for session in self.joining.lost:
            self._lose(session)
        self.joining.lost.clear()
        if over:
            why = f"{over} more: {why_over}"
            self.untracked.append(MemberUntracked(None, "others", None, why))

    def _is_armed_twice(self, member: Member) -> bool:
        """Whether another command is arming the same group, and has this process."""
        return any(
            other.group is not None
            and other.group.key == self.group.key
            and other.group != self.group
            for other in live_sessions(member.pid)
        )

    def _lose(self, session: Session) -> None:
        """Add that the keeper of a member died after this command had armed it."""
        pid, name = session.target.pid, session.target.name
        looks = [one for one in self.members if one.facts.target.pid == pid]
        if all(one.look is None for one in looks):
            self.members = [one for one in self.members if one.facts.target.pid != pid]
            self.untracked = [item for item in self.untracked if item.pid != pid]
            self._leave_out(pid, name, "its keeper died: its writes are not known")
            clear_away(session)

    def _arm(self, member: Member) -> None:
        pid, start_time = member.key
        terms = self.terms
        with Target.open(pid, start_time=start_time) as target:
            maps.check_selection(terms.selection, target)
            tracking = start(
                target,
                terms.selection,
                max_tables=terms.max_tables,
                pace=terms.pace,
                joining=self.joining,
            )
            facts = ProcessFacts(
                target.facts,
                member.label,
                Summary.none(),
                joined_at=tracking.armed_at,
            )
        terms.detail(tracking.attached)
        self.untracked = [item for item in self.untracked if item.pid != pid]
        self.members.append(MemberLook(facts, None))
        self.baselines.append(tracking.since)
        self.cost += tracking.cost
        self._add_parts(pid, target.facts.name, tracking.armed.untracked)

    def made(self) -> GroupLook:
        """Return the result."""
        known = [since for since in self.baselines if since is not None]
        complete = len(known) == len(self.baselines)
        return GroupLook(
            GroupFacts(self.group.kind, self.group.name),
            tuple(self.members),
            now(),
            self.group.armed_at,
            min(known) if known and complete else None,
            sum_of(self.members),
            tuple(self.untracked),
            replace(self.cost, target_share=None, target_ns=None),
            sum(session.tracked_bytes for session in self.joining.sessions),
        )


def _member_of(session: Session) -> Member:
    target = session.target
    return Member(target.pid, target.start_time, target.name)


def _gone(sessions: Collection[Session]) -> list[tuple[Session, list[GoneMember]]]:
    """Return the members that have gone, as each keeper of the others remembers them.

    Each list comes with a session of its keeper, and is not empty.
    """
    found = []
    asked = set()
    for session in sessions:
        if session.keeper_pid not in asked:
            with contextlib.suppress(PagescanError), Client(session) as client:
                if items := client.gone():
                    found.append((session, items))
                asked.add(session.keeper_pid)
    return found


def _started(member: Member) -> datetime:
    """Return when a process began, in UTC."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - member.start_time / _TICKS
    return datetime.fromtimestamp(time.time() - age, UTC)
