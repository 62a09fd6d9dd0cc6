"""Lists the members of a group again and again, at little cost.

A full reading of /proc costs about 50 us per process of the machine. So most readings
look only at the pids that are new since the previous one. A full reading every ten
seconds finds the processes that have changed their cgroup or command line.
"""

import time

from pagescan.target.find import processes
from pagescan.target.group import Member, Selector

_FULL_EVERY = 10.0
_YOUNG = 3
"""Readings for which a pid counts as new: a service gets its cgroup after its fork."""


class Census:
    """The members of a group, kept up to date.

    Attributes:
        selector: The group.
    """

    def __init__(self, selector: Selector, first: tuple[Member, ...]) -> None:
        """Begin with a full answer of the selector."""
        self.selector = selector
        self._members = {member.pid: member for member in first}
        self._readings: dict[int, int] = {}
        self._due = 0.0

    def read(self, *, full: bool = False) -> tuple[Member, ...]:
        """Return the present members; a few may have just ended.

        Args:
            full: Whether to read every process of the machine.

        Raises:
            PagescanError: As for `Selector.members`.
        """
        now = time.monotonic()
        pids = {*processes()}
        if full or now >= self._due:
            self._due = now + _FULL_EVERY
            known = tuple(self._members.values())
            found = self.selector.members(known)
            self._members = {member.pid: member for member in found}
            self._readings = {pid: self._readings.get(pid, 0) + 1 for pid in pids}
            return found
        gone = self._members.keys() - pids
        for pid in gone:
            del self._members[pid]
        readings = self._readings
        young = [pid for pid in pids if readings.get(pid, 0) < _YOUNG]
        self._readings = {pid: readings.get(pid, 0) for pid in pids}
        for pid in young:
            self._readings[pid] += 1
        if young:
            known = tuple(self._members.values())
            for member in self.selector.among(young, known):
                self._members[member.pid] = member
        return tuple(self._members.values())

    def forget(self, member: Member) -> None:
        """Leave out a member that has ended."""
        self._members.pop(member.pid, None)
