"""Selects the processes of a group: a tree, a cgroup, a unit, a container, a match.

    selector = Unit("postgresql")  # or Tree.of(pid), Cgroup(…), Container(…), Match(…)
    members = selector.members()   # now: (Member(pid, start_time, name, label), …)
    members = selector.members(known=members)  # later: with those that have come

A selector reads /proc at each call and stores nothing. Selectors can be compared.
A `Member` is identified by its pid and start time: `Target.open(member.pid,
start_time=member.start_time)` opens that process and no later one of the same pid.
Members are sorted by age, the oldest first. The answer may be an empty tuple: a command
that needs a process calls `require`. Callers that ask repeatedly pass the members that
they know, because a descendant stays in its tree when its parent has ended. A member
that is missing in the next answer has ended, or has left the group.

Never members: kernel threads, zombies, and the processes of pagescan itself.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

from pagescan.model.errors import NoSuchTargetError, TargetError, UsageError
from pagescan.model.units import escape
from pagescan.target.cgroups import (
    cgroup_paths,
    container_of,
    has_unit,
    some_of,
    unit_name,
    units_like,
    within,
)
from pagescan.target.find import is_pagescan, pid_of, processes
from pagescan.target.living import memory_dir, program_name
from pagescan.target.proc_files import command_words, read_proc
from pagescan.target.process import (
    PF_KTHREAD,
    Stat,
    check_proc,
    open_pidfd,
    parse_stat,
    suitable_stat,
)
from pagescan.target.roles import Told, roles_of

_CONTAINER_ID = re.compile(r"[0-9a-f]{12,64}|[0-9a-f]{32}-[0-9]+")


class Member(NamedTuple):
    """A process of a group; pid and start time identify it.

    Attributes:
        start_time: Clock ticks since boot: field 22 of /proc/PID/stat.
        name: Its name in the kernel.
        label: Its role, if its command line tells it: the title that it has given
            itself ("postgres: checkpointer"), without what it does now, or the type
            of process of a browser ("renderer"). The parent of forks with its command
            line is "NAME (parent)". None: nothing distinguishes it from its siblings.
    """

    pid: int
    start_time: int
    name: str
    label: str | None = None

    @property
    def key(self) -> tuple[int, int]:
        """The pid and the start time."""
        return self.pid, self.start_time


class Selector(ABC):
    """Selects the processes of a group.

    Attributes:
        kind: tree, cgroup, unit, container or match.
        name: The value that the user gave; for a tree the pid of its root.
    """

    kind: ClassVar[str]
    name: str

    def members(self, known: Collection[Member] = ()) -> tuple[Member, ...]:
        """Return the processes that belong to the group now, the oldest first.

        Args:
            known: The members of an earlier answer. Only a tree needs them.

        Raises:
            NoSuchTargetError: /proc is missing, or belongs to another PID namespace.
            PagescanError: This process has no descriptor left, or no memory.
        """
        check_proc()
        return self.among(processes(), known)

    @abstractmethod
    def among(
        self, pids: Iterable[int], known: Collection[Member] = ()
    ) -> tuple[Member, ...]:
        """Return the members among some processes.

        Args:
            pids: The processes.
            known: Members of an earlier answer, which may not be among `pids`; each
                must still live.
        """

    def require(self) -> tuple[Member, ...]:
        """Return the members; raise NoSuchTargetError if there is no member now."""
        members = self.members()
        if not members:
            raise NoSuchTargetError(f"no process in {self}", hint=self._where())
        return members

    def _where(self) -> str:
        return "cat /proc/PID/cgroup shows the cgroups of a process"

    def __str__(self) -> str:
        return f"{self.kind} {escape(self.name)}"


@dataclass(frozen=True)
class Tree(Selector):
    """A process and its descendants.

    Attributes:
        pid: The root. It may end before its descendants.
        start_time: Its start time, so that no later process with its pid is taken.
    """

    kind: ClassVar[str] = "tree"
    pid: int
    start_time: int

    @classmethod
    def of(cls, target: int | str) -> Self:
        """Return the tree of a process that lives now.

        Args:
            target: Its root, by its pid or its name.

        Raises:
            NoSuchTargetError: No process has this pid or this name.
            UnsuitableTargetError: A thread id, a kernel thread, a zombie.
            AccessDeniedError: /proc hides it from this user.
        """
        check_proc()
        pid = pid_of(target)
        os.close(open_pidfd(pid))
        return cls(pid, suitable_stat(pid).start_time)

    @property
    def name(self) -> str:  # type: ignore[override] # a field elsewhere
        """The pid of the root."""
        return str(self.pid)

    def among(
        self, pids: Iterable[int], known: Collection[Member] = ()
    ) -> tuple[Member, ...]:
        """Return the root, its descendants, and the descendants of known members."""
        stats = dict(_stats(pids))
        children: dict[int, list[int]] = {}
        for pid, stat in stats.items():
            children.setdefault(stat.parent, []).append(pid)
        roots = {(self.pid, self.start_time), *(member.key for member in known)}
        waiting = [
            pid
            for pid, start in roots
            if pid not in stats or stats[pid].start_time == start
        ]
        tree: set[int] = set()
        while waiting:
            if (pid := waiting.pop()) not in tree:
                tree.add(pid)
                waiting += children.get(pid, ())
        return _members((pid, stats[pid]) for pid in tree if pid in stats)

    def _where(self) -> str:
        return "its root has ended; pagescan itself is never a member"


class _EachByItself(Selector):
    """A group that takes each process by what /proc tells of it."""

    @abstractmethod
    def takes(self, pid: int) -> bool:
        """Whether a process belongs to the group."""

    def among(
        self,
        pids: Iterable[int],
        known: Collection[Member] = (),  # noqa: ARG002 - only a tree needs them
    ) -> tuple[Member, ...]:
        """Return the processes that belong to the group now."""
        return _members((pid, stat) for pid, stat in _stats(pids) if self.takes(pid))


@dataclass(frozen=True)
class Cgroup(_EachByItself):
    """The processes of a cgroup and of the cgroups below it, in any hierarchy.

    Attributes:
        name: The path, as /proc/PID/cgroup shows it.
    """

    kind: ClassVar[str] = "cgroup"
    name: str

    def __post_init__(self) -> None:
        """Refuse a path that /proc/PID/cgroup never shows."""
        if not self.name.startswith("/"):
            raise UsageError(
                f"malformed cgroup: {self.name!r} does not begin with /",
                hint="give the path as /proc/PID/cgroup shows it",
            )
        if self.name.startswith("/sys/fs/cgroup"):
            raise UsageError(
                f"malformed cgroup: {self.name!r} is where it is mounted",
                hint="give what /proc/PID/cgroup shows, without /sys/fs/cgroup",
            )
        object.__setattr__(self, "name", self.name.rstrip("/") or "/")

    def takes(self, pid: int) -> bool:
        """Whether its cgroup is this one, or lies below it."""
        return any(within(path, self.name) for path in cgroup_paths(pid))


@dataclass(frozen=True)
class Unit(_EachByItself):
    """The processes of a systemd unit: its name is in their cgroup's path.

    Attributes:
        name: The unit; without a suffix a service.
    """

    kind: ClassVar[str] = "unit"
    name: str

    def __post_init__(self) -> None:
        """Complete the name; refuse a path."""
        if not self.name or "/" in self.name:
            raise UsageError(
                f"malformed unit: {self.name!r}",
                hint="give a name, as in postgresql.service; a path is for --cgroup",
            )
        object.__setattr__(self, "name", unit_name(self.name))

    def takes(self, pid: int) -> bool:
        """Whether its cgroup's path contains the unit."""
        return has_unit(cgroup_paths(pid), self.name)

    def _where(self) -> str:
        others = units_like(self.name, map(cgroup_paths, processes()))
        if not others:
            return super()._where()
        return f"running units with a similar name: {some_of(others)}"


@dataclass(frozen=True)
class Container(_EachByItself):
    """The processes of a container: its id is in their cgroup's path.

    Attributes:
        name: The id, or its first 12 digits or more.
    """

    kind: ClassVar[str] = "container"
    name: str

    def __post_init__(self) -> None:
        """Refuse anything but an id: only the container runtime knows names."""
        if not _CONTAINER_ID.fullmatch(self.name):
            raise UsageError(
                f"malformed container id: {self.name!r}",
                hint="give the id, or at least its first 12 hex digits;"
                " docker inspect -f '{{.Id}}' NAME prints it",
            )

    def takes(self, pid: int) -> bool:
        """Whether its cgroup is that of the container."""
        container = container_of(cgroup_paths(pid))
        return container is not None and container.startswith(self.name)

    def require(self) -> tuple[Member, ...]:
        """Return the members; raise TargetError if the id is that of two containers."""
        members = super().require()
        found = {container_of(cgroup_paths(member.pid)) for member in members}
        ids = sorted(filter(None, found))
        if len(ids) > 1:
            raise TargetError(
                f"{self} is the beginning of {len(ids)} ids: {some_of(ids)}",
                hint="give more digits",
            )
        return members


@dataclass(frozen=True)
class Match(_EachByItself):
    """The processes whose name or command line contains a match.

    Of this process's ancestors only the name is searched: the command line of a shell
    or of sudo that runs pagescan contains the expression itself.

    Attributes:
        name: The regular expression, in Python's syntax.
    """

    kind: ClassVar[str] = "match"
    name: str
    pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the expression."""
        try:
            pattern = re.compile(self.name)
        except re.error as error:
            raise UsageError(
                f"malformed regular expression: {self.name!r}: {error}"
            ) from error
        object.__setattr__(self, "pattern", pattern)

    def takes(self, pid: int) -> bool:
        """Whether the name or the command line contains a match."""
        if self.pattern.search(os.fsdecode(read_proc(pid, "comm") or b"").strip("\n")):
            return True
        line = " ".join(command_words(pid))
        return bool(self.pattern.search(line)) and pid not in _ancestors()

    def _where(self) -> str:
        return "the kernel's name and the command line are searched: ps -e -o comm,args"


def lives(member: Member) -> bool:
    """Whether a member has not ended; it may have left its group."""
    stat = _stat(member.pid)
    if stat is None or stat.start_time != member.start_time:
        return False
    return not _ended(member.pid, stat)


def _ended(pid: int, stat: Stat) -> bool:
    """Whether a process is a zombie, and no thread of it lives."""
    return stat.state in "ZXx" and memory_dir(pid) == f"/proc/{pid}"


def _stats(pids: Iterable[int]) -> Iterator[tuple[int, Stat]]:
    """Yield the processes that exist, without kernel threads."""
    for pid in pids:
        stat = _stat(pid)
        if stat is not None and not stat.flags & PF_KTHREAD:
            yield pid, stat


def _stat(pid: int) -> Stat | None:
    text = read_proc(pid, "stat")
    return parse_stat(text) if text else None


def _members(found: Iterable[tuple[int, Stat]]) -> tuple[Member, ...]:
    """Return processes as members, without zombies and those of pagescan."""
    told: dict[int, Told] = {}
    for pid, stat in found:
        if _ended(pid, stat):
            continue
        words = command_words(pid)
        if pid == os.getpid() or _is_ours(pid, words):
            continue
        told[pid] = Told(stat.start_time, stat.parent, stat.name, words)
    roles = roles_of(told)
    members = (
        Member(pid, one.start_time, one.name, roles.get(pid))
        for pid, one in told.items()
    )
    return tuple(sorted(members, key=lambda member: (member.start_time, member.pid)))


def _is_ours(pid: int, words: list[str]) -> bool:
    if not any("pagescan" in word for word in words):
        return False
    program = program_name(pid)
    return is_pagescan(words, program)


def _ancestors() -> set[int]:
    """Return the pids of this process's parent, of its parent, and so on."""
    found: set[int] = set()
    pid = os.getppid()
    while pid and pid not in found:
        found.add(pid)
        stat = _stat(pid)
        pid = stat.parent if stat else 0
    return found
