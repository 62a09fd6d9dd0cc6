"""Sorts processes into groups: by option, by name, unit, cgroup or container.

At most MOST_GROUPS groups have a name of their own; a group keeps it as long as it has
processes. Every process is in one group only, so that a sum over groups counts it once.
"""

import enum
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pagescan.exporter.metrics import MOST_GROUPS, OTHER
from pagescan.model.units import exactly
from pagescan.target.cgroups import cgroup_paths, container_of, pod_of, unit_of
from pagescan.target.group import Match, Member, Selector, Tree

_SHORT = 12
"""The name of a container's group: this many digits of the id, as in docker ps."""


class By(enum.Enum):
    """How processes are grouped."""

    OPTION = "option"
    NAME = "name"
    UNIT = "unit"
    CGROUP = "cgroup"
    CONTAINER = "container"


class Group(NamedTuple):
    """A group of processes; the fields are labels.

    Attributes:
        name: The label `group`.
        container_id: The whole id of a container, or an empty text.
        pod_uid: The uid of its Kubernetes pod, or an empty text.
    """

    name: str
    container_id: str = ""
    pod_uid: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that have a value."""
        named = {
            "group": self.name,
            "container_id": self.container_id,
            "pod_uid": self.pod_uid,
        }
        return {label: value for label, value in named.items() if value}


THE_REST = Group(OTHER)


class Grouped(NamedTuple):
    """The groups of one moment.

    Attributes:
        groups: The members of each group; the group `other` is last.
        folded: The number of groups whose processes are in `other`, beyond the limit.
    """

    groups: dict[Group, list[Member]]
    folded: int

    @property
    def members(self) -> dict[tuple[int, int], Member]:
        """All members, by pid and start time."""
        return {one.key: one for many in self.groups.values() for one in many}


@dataclass(slots=True)
class Grouping:
    """Selects processes and sorts them into groups; any thread may call it repeatedly.

    Attributes:
        selectors: The selectors of the processes; empty: all processes.
        by: How processes are grouped.
        most: The largest number of groups with a name of their own.
    """

    selectors: Sequence[Selector]
    by: By
    most: int = MOST_GROUPS
    _known: dict[Selector, tuple[Member, ...]] = field(default_factory=dict)
    _named: set[Group] = field(default_factory=set)
    _trees: dict[Selector, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> Grouped:
        """Return the groups that have processes now."""
        with self._lock:
            return self._now()

    def _now(self) -> Grouped:
        groups: dict[Group, list[Member]] = {}
        seen: set[tuple[int, int]] = set()
        for selector in self.selectors or (Match(""),):
            members = selector.members(self._known.get(selector, ()))
            self._known[selector] = members
            if isinstance(selector, Tree) and selector not in self._trees:
                self._trees[selector] = self._name_of(selector, members)
            for member in members:
                if member.key not in seen:
                    seen.add(member.key)
                    group = self._group_of(member, selector)
                    groups.setdefault(group, []).append(member)
        return self._folded(groups)

    def _name_of(self, tree: Tree, members: Sequence[Member]) -> str:
        """Return the name of a tree: that of its root, with a number if it is taken."""
        roots = (one.name for one in members if one.pid == tree.pid)
        name = next(roots, tree.name)
        taken = {*self._trees.values()}
        numbers = itertools.count(2)
        free = name
        while free in taken:
            free = f"{name}-{next(numbers)}"
        return free

    def _group_of(self, member: Member, selector: Selector) -> Group:
        """Return the group of a process; `other` if it has no unit, or no container."""
        if self.by is By.NAME:
            return _named(member.name)
        if self.by is By.OPTION and selector.kind != "container":
            return _named(self._trees.get(selector, selector.name))
        paths = cgroup_paths(member.pid)
        if self.by is By.UNIT:
            return _named(unit_of(paths) or OTHER)
        if self.by is By.CGROUP:
            return _named(_path_of(paths))
        found = container_of(paths)
        if found is None:
            return THE_REST
        return Group(found[:_SHORT], found, pod_of(paths) or "")

    def _folded(self, groups: dict[Group, list[Member]]) -> Grouped:
        """Put the groups beyond the limit into `other`: the smallest new ones."""
        rest = groups.pop(THE_REST, [])
        self._named &= groups.keys()
        waiting = sorted(
            groups.keys() - self._named, key=lambda group: (-len(groups[group]), group)
        )
        self._named.update(waiting[: self.most - len(self._named)])
        kept = {group: groups[group] for group in sorted(self._named)}
        for group in waiting:
            if group not in kept:
                rest += groups[group]
        if rest:
            kept[THE_REST] = rest
        return Grouped(kept, len(groups) - len(self._named))


def _named(name: str) -> Group:
    """Return a group with that name; bytes that are no text are escaped."""
    return Group(exactly(name, "utf-8") or OTHER)


def _path_of(paths: Sequence[str]) -> str:
    """Return the path in the unified hierarchy; if it is the root, the longest path."""
    if paths and paths[-1] != "/":
        return paths[-1]
    return max(paths, key=len, default=OTHER)
