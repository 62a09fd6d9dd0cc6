"""Finds the sessions of a group: one per member, all held by one keeper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pagescan.model.errors import SessionError, SessionLostError
from pagescan.model.units import format_time, plural
from pagescan.session.lookup import (
    clear_away,
    clear_leftovers,
    find_session,
    keeper_sessions,
    lost_sessions,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pagescan.session.record import Membership, Session
    from pagescan.target.group import Selector


@dataclass(frozen=True, slots=True)
class GroupSession:
    """The session of a group.

    Attributes:
        group: The group, and when it was armed.
        members: The sessions of its members, by pid.
    """

    group: Membership
    members: tuple[Session, ...]

    @property
    def name(self) -> str:
        """The kind of group and its name, as results name the session."""
        return f"{self.group.kind} {self.group.name}"

    def selector(self) -> Selector:
        """Return the selector of the group that was armed."""
        from pagescan.target import group

        kind, name = self.group.kind, self.group.name
        if kind == "tree":
            return group.Tree(int(name), self.group.start_time)
        kinds: dict[str, Callable[[str], Selector]] = {
            "cgroup": group.Cgroup,
            "unit": group.Unit,
            "container": group.Container,
            "match": group.Match,
        }
        return kinds[kind](name)


def group_sessions() -> list[GroupSession]:
    """Return the living sessions of groups, the oldest first."""
    found: dict[Membership, list[Session]] = {}
    for session in keeper_sessions():
        if session.group is not None:
            found.setdefault(session.group, []).append(session)
    groups = sorted(found, key=lambda group: group.armed_at)
    return [GroupSession(group, tuple(found[group])) for group in groups]


def find_group(kind: str, name: str) -> GroupSession:
    """Return the session of a group.

    Args:
        kind: tree, cgroup, unit, container or match.
        name: The value that the user gave; for a tree the pid of its root, which may
            have ended.

    Raises:
        SessionError: There is no session of that group.
        SessionLostError: Its keeper died. The files are removed: it is reported once.
    """
    for found in reversed(group_sessions()):
        if found.group.key == (kind, name):
            return found
    clear_leftovers()
    lost: dict[Membership, list[Session]] = {}
    for session in lost_sessions((kind, name)):
        if session.group is not None:
            lost.setdefault(session.group, []).append(session)
    for group, members in lost.items():
        for session in members:
            clear_away(session)
        raise lost_group(GroupSession(group, tuple(members)))
    raise SessionError(
        f"no session of {kind} {name}: it was not armed, or all its processes have"
        " ended",
        hint=f"pagescan arm --{kind} {name} starts one",
    )


def find_only() -> Session | GroupSession:
    """Return the only session that there is: of a process, or of a group.

    Raises:
        SessionError: No session.
        UsageError: There are several; its details list them.
        SessionLostError: Its keeper died.
    """
    groups = group_sessions()
    if len(groups) == 1 and all(session.group for session in keeper_sessions()):
        return groups[0]
    if not keeper_sessions():
        for session in lost_sessions():
            if session.group is not None:
                return find_group(*session.group.key)
    return find_session(None)


def lost_group(found: GroupSession) -> SessionLostError:
    """Return the error for the session of a group whose keeper died."""
    processes = plural(len(found.members), "process")
    return SessionLostError(
        f"tracking of {found.group} ({processes}) was lost: its keeper"
        f" (pid {found.members[0].keeper_pid}) died; which pages were written is"
        " unknown",
        hint=f"start over with: pagescan arm {found.group.words}",
    )


def refuse_second(kind: str, name: str) -> None:
    """Raise a SessionError if a group has a session already."""
    for found in group_sessions():
        group = found.group
        if group.key == (kind, name):
            raise SessionError(
                f"{group} is tracked already: armed {format_time(group.armed_at)}",
                hint=f"pagescan diff {group.words}, or pagescan disarm {group.words}",
            )
