"""The messages about a group that several commands print."""

from collections.abc import Iterable
from typing import Protocol

from pagescan.model.groups import MemberUntracked

_NAMED = 5
"""Untracked processes that a message names."""


class Speaker(Protocol):
    """What prints messages: the options of every command, or a progress line."""

    def say(self, message: str) -> None:
        """Print a message."""


class Told:
    """Names the processes that are not tracked, once per reason."""

    def __init__(self, speaker: Speaker, what: str = "not tracked") -> None:
        """Begin with no reason told."""
        self._speaker, self._what = speaker, what
        self._reasons: set[str] = set()

    def about(self, untracked: Iterable[MemberUntracked]) -> None:
        """Print a line per reason that was not told before."""
        by_reason: dict[str, list[MemberUntracked]] = {}
        for item in untracked:
            if item.part is None:
                by_reason.setdefault(_general(item), []).append(item)
        for reason, items in by_reason.items():
            if reason in self._reasons:
                continue
            self._reasons.add(reason)
            named = ", ".join(
                f"{item.pid} {item.name}" for item in items[:_NAMED] if item.pid
            )
            more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
            which = f": {named}{more}" if named else ""
            self._speaker.say(f"{self._what}{which}: {items[0].why}")


def _general(item: MemberUntracked) -> str:
    """Return a reason without the pid and the name of the process."""
    return item.why.replace(str(item.pid), "PID").replace(item.name or " ", "NAME")
