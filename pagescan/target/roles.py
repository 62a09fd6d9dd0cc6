"""Tells the role of a process in a group, in words that do not change while it runs."""

import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pagescan.model.units import escape

_TYPE = re.compile(r"--type=([\w-]+)")
_WIDTH = 200
_CLIENT = re.compile(r"\[local\]|\S+\(\d+\)")
"""The client of a backend of Postgres; behind it stands what it does now."""
_NOW = re.compile(
    r"is|idle|recovering|waiting|archiving|last|failed|streaming"
    r"|[(]?/.*|-.*|\[\d.*"
)
"""Words of a title that begin what a process does now: a state, a path, a count."""
_SETTLED = 1.0
"""Seconds after which a fork that has not called exec is one that stays."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Told(NamedTuple):
    """The facts that a process tells about itself."""

    start_time: int
    """Clock ticks since boot."""
    parent: int
    name: str
    words: list[str]
    """Its command line."""


def roles_of(found: Mapping[int, Told]) -> dict[int, str]:
    """Return the roles of processes, by pid, as far as anything tells them.

    Args:
        found: The processes of a group, by pid.
    """
    roles = {pid: role_of(told.words) for pid, told in found.items()}
    latest = (time.clock_gettime(time.CLOCK_BOOTTIME) - _SETTLED) * _TICKS
    parents = {
        told.parent
        for told in found.values()
        if told.parent in found
        and found[told.parent].words == told.words
        and told.start_time <= latest
    }
    for pid in parents:  # as a server's master, of which the workers are forks
        told = found[pid]
        is_child = told.parent in parents and found[told.parent].words == told.words
        if roles[pid] is None and not is_child:
            roles[pid] = f"{escape(told.name)} (parent)"
    return {pid: role for pid, role in roles.items() if role is not None}


def role_of(words: list[str]) -> str | None:
    """Return the role that a command line tells; None: it does not.

    Many servers write a title over their command line; a browser has an option.
    """
    title = words[0].strip()
    if len(words) == 1 and " " in title and not title.startswith("/"):
        return escape(_lasting(title)[:_WIDTH])
    for word in words[1:]:
        if found := _TYPE.fullmatch(word):
            return found[1]
    return None


def _lasting(title: str) -> str:
    """Return the first part of a title, which stays the same from look to look.

    "postgres: bench bench [local] COMMIT" begins with whom a backend serves.
    """
    first, *rest = title.split()
    client = next((at for at, word in enumerate(rest) if _CLIENT.fullmatch(word)), None)
    if client is not None:
        return " ".join((first, *rest[: client + 1]))
    return " ".join((first, *_until_now(rest))).rstrip(":")


def _until_now(words: Iterable[str]) -> Iterable[str]:
    for word in words:
        if _NOW.fullmatch(word):
            return
        yield word
