"""The facts of a session: the target, its holder, the ranges, and the times."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pagescan.model.memory import Untracked
from pagescan.model.results import SessionFacts, TargetFacts
from pagescan.model.units import escape, format_time, parse_time

if TYPE_CHECKING:
    from pagescan.model.groups import GroupFacts
    from pagescan.tracking.arm import Armed
    from pagescan.tracking.tracking import Tracking


def session_of(tracking: Tracking, holder: str) -> Session:
    """Return the facts of a tracking for a session's lock file."""
    armed = tracking.armed
    return Session(
        tracking.target.facts,
        tracking.armed_at,
        tracking.since,
        holder,
        os.getpid(),
        armed.selection.words,
        armed.untracked,
        armed.tracked_bytes,
        armed.tables_left,
        armed.epoch,
        alike=armed.alike,
        ends=[end.to_json() for end in armed.ends],
    )


class Membership(NamedTuple):
    """The group that a session belongs to, with those of the other members.

    Attributes:
        kind: tree, cgroup, unit, container or match.
        name: The value that the user gave; for a tree the pid of its root.
        start_time: Of a tree: the start time of its root; else 0.
        armed_at: When the group was armed.
    """

    kind: str
    name: str
    start_time: int
    armed_at: datetime

    @property
    def facts(self) -> GroupFacts:
        """The facts for results."""
        from pagescan.model.groups import GroupFacts

        return GroupFacts(self.kind, self.name)

    @property
    def key(self) -> tuple[str, str]:
        """Its kind and name: a group that is armed again has the same."""
        return self.kind, self.name

    @property
    def words(self) -> str:
        """The words of the command line that select it."""
        return f"--{self.kind} {self.name}"

    def __str__(self) -> str:
        return f"{self.kind} {escape(self.name)}"


class GoneMember(NamedTuple):
    """A member of a group whose session has ended, as its keeper remembers it.

    Attributes:
        number: Its place in the order in which they went, from 1.
        since: Its last baseline; None: there was no common one.
        end: exited, exec or disarmed.
    """

    number: int
    target: TargetFacts
    armed_at: datetime
    since: datetime | None
    ended_at: datetime
    end: str

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Read the form that the keeper sends; errors as for a session."""
        since = facts["since"]
        return cls(
            facts["number"],
            TargetFacts(**facts["target"]),
            parse_time(facts["armed_at"]),
            parse_time(since) if since else None,
            datetime.fromtimestamp(facts["ended_at"], UTC),
            facts["end"],
        )


@dataclass(slots=True)
class Session:
    """The facts of a session, which its lock file contains.

    Attributes:
        holder: "keeper", "track", or the command: "watch", "record", "who", "exporter",
            "cow".
        keeper_pid: The process that holds the userfaultfd; 0: a keeper has not taken
            it over yet.
        words: The RANGE words of its selection.
        epoch: How often everything has been re-protected since arming.
        planned: The epoch of the last plan of a checkpoint; 0: no plan was made.
        acknowledged: The epoch whose image the consumer has; 0: it has no image yet;
            -1: there is no consumer, or the pages that it lacks are no longer known.
        alike: Neighbouring mappings that looked alike before arming.
        ends: The growing ends, which are compared: each as `End.to_json` of
            growing_ends.
        group: The group that it belongs to; None: it is of one process.
        late: Whether it was taken into the group after arming.
    """

    target: TargetFacts
    armed_at: datetime
    since: datetime | None
    holder: str
    keeper_pid: int
    words: list[str]
    untracked: list[Untracked]
    tracked_bytes: int = 0
    tables_left: int = 0
    epoch: int = 0
    planned: int = 0
    acknowledged: int = -1
    alike: int = 0
    ends: list[dict[str, Any]] = field(default_factory=list)
    group: Membership | None = None
    late: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether a keeper holds it, or held it: users call this a session."""
        return self.holder == "keeper" and self.keeper_pid != 0

    @property
    def name(self) -> str:
        """The pid of the target, in the form that users type."""
        return str(self.target.pid)

    @property
    def facts(self) -> SessionFacts:
        """The facts for results."""
        return SessionFacts(self.name, self.armed_at, self.since)

    def after(self, armed: Armed, since: datetime | None) -> Self:
        """Return the facts after a look that rearmed; `armed` is an `arm.Armed`."""
        return replace(
            self,
            since=since,
            untracked=list(armed.untracked),
            tracked_bytes=armed.tracked_bytes,
            tables_left=armed.tables_left,
            epoch=armed.epoch,
            ends=[end.to_json() for end in armed.ends],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the form that `from_json` reads."""
        facts = {name: getattr(self, name) for name in self.__slots__}
        facts["target"] = self.target._asdict()
        facts["untracked"] = [item._asdict() for item in self.untracked]
        facts["armed_at"] = format_time(self.armed_at)
        facts["since"] = format_time(self.since) if self.since else None
        if self.group is not None:
            armed_at = format_time(self.group.armed_at)
            facts["group"] = {**self.group._asdict(), "armed_at": armed_at}
        return facts

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Self:
        """Read that form; ValueError, KeyError or TypeError if it is malformed.

        Other versions of pagescan may have stored further facts, or fewer: their
        sessions are listed and ended all the same. See `is_of_this_version`.
        """
        facts = {name: facts[name] for name in cls.__slots__ if name in facts}
        facts["target"] = TargetFacts(**facts["target"])
        facts["armed_at"] = parse_time(facts["armed_at"])
        facts["since"] = parse_time(facts["since"]) if facts["since"] else None
        facts["untracked"] = [Untracked(**item) for item in facts["untracked"]]
        if (group := facts.get("group")) is not None:
            armed_at = parse_time(group["armed_at"])
            facts["group"] = Membership(**{**group, "armed_at": armed_at})
        return cls(**facts)

    @classmethod
    def is_of_this_version(cls, facts: dict[str, Any]) -> bool:
        """Whether facts have the names that this version stores."""
        return facts.keys() == set(cls.__slots__)
