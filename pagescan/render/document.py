"""The head of every JSON document, and the keys of the records in it."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from pagescan import __version__
from pagescan.model.memory import Untracked
from pagescan.model.units import format_address, format_time, now

if TYPE_CHECKING:
    from pagescan.model.groups import GroupFacts, MemberUntracked, ProcessFacts
    from pagescan.model.results import (
        Cost,
        Estimate,
        SessionFacts,
        Summary,
        TargetFacts,
    )

SCHEMA = "pagescan/1"


class ListedMembership(Protocol):
    """The group of a listed session."""

    @property
    def facts(self) -> GroupFacts:
        """The facts that results also contain."""


class ListedSession(Protocol):
    """The facts of a session that `sessions` and `disarm` list."""

    target: TargetFacts
    tracked_bytes: int
    keeper_pid: int
    holder: str

    @property
    def facts(self) -> SessionFacts:
        """The facts that results also contain."""

    @property
    def group(self) -> ListedMembership | None:
        """The group that it belongs to; None: it is of one process."""


def document(
    kind: str, *, time: datetime | None = None, **keys: object
) -> dict[str, Any]:
    """Return a JSON document: its head, and the keys given; `time` None: now."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "version": __version__,
        "time": format_time(time or now()),
        **keys,
    }


def write_document(content: dict[str, Any], stream: TextIO | None = None) -> None:
    """Write a JSON document as one line; None: to stdout."""
    stream = stream or sys.stdout
    stream.write(json.dumps(content) + "\n")
    stream.flush()


def target_keys(target: TargetFacts | None) -> dict[str, Any] | None:
    """Return the JSON keys of a target; None without one."""
    if target is None:
        return None
    return {
        "pid": target.pid,
        "name": target.name,
        "exe": target.exe,
        "start_time": target.start_time,
        "page_size": target.page_size,
    }


def group_keys(group: GroupFacts | None) -> dict[str, Any] | None:
    """Return the JSON keys of a group; None for one target."""
    return None if group is None else {"kind": group.kind, "name": group.name}


def process_keys(process: ProcessFacts) -> dict[str, Any]:
    """Return the JSON keys of a process of a group."""
    joined, ended, totals = process.joined_at, process.ended_at, process.totals
    return {
        "target": target_keys(process.target),
        "label": process.label,
        "summary": summary_keys(process.summary),
        "totals": None if totals is None else summary_keys(totals),
        "joined_at": None if joined is None else format_time(joined),
        "ended_at": None if ended is None else format_time(ended),
        "end": process.end,
        "unseen_ns": process.unseen_ns,
    }


def member_untracked_keys(item: MemberUntracked) -> dict[str, Any]:
    """Return the JSON keys of a process that is not tracked, or of a part of it."""
    part = item.part
    return {
        "pid": item.pid,
        "start": None if part is None else format_address(part.start),
        "end": None if part is None else format_address(part.end),
        "mapping": None if part is None else part.mapping,
        "why": item.why,
    }


def session_keys(session: SessionFacts | None) -> dict[str, Any] | None:
    """Return the JSON keys of a result's session; None without one."""
    if session is None:
        return None
    return {"name": session.name, **_times(session), "method": session.method}


def listed_session_keys(session: ListedSession) -> dict[str, Any]:
    """Return the JSON keys of a session in a list of sessions."""
    return {
        "name": session.facts.name,
        "target": target_keys(session.target),
        **_times(session.facts),
        "tracked_bytes": session.tracked_bytes,
        "keeper_pid": session.keeper_pid,
        "group": group_keys(session.group.facts if session.group else None),
    }


def watch_keys(session: ListedSession) -> dict[str, Any]:
    """Return the JSON keys of a target that `watch` or the library tracks."""
    return {
        "name": session.facts.name,
        "target": target_keys(session.target),
        "armed_at": format_time(session.facts.armed_at),
        "tracked_bytes": session.tracked_bytes,
        "holder": session.holder,
        "holder_pid": session.keeper_pid,
    }


def _times(session: SessionFacts) -> dict[str, Any]:
    return {
        "armed_at": format_time(session.armed_at),
        "since": format_time(session.since) if session.since else None,
    }


def summary_keys(summary: Summary) -> dict[str, Any]:
    """Return the JSON keys of totals."""
    return {
        "regions": summary.regions,
        "pages": summary.pages,
        "bytes": summary.bytes,
        "categories": dict(summary.categories),
    }


def estimate_keys(estimate: Estimate | None) -> dict[str, Any] | None:
    """Return the JSON keys of an estimate; None: the listed regions are complete."""
    if estimate is None:
        return None
    return {
        "pages": estimate.pages,
        "low": estimate.low,
        "high": estimate.high,
        "confidence": 0.95,
        "share": round(estimate.share, 4),
    }


def untracked_keys(item: Untracked) -> dict[str, Any]:
    """Return the JSON keys of a part that is not tracked."""
    return {
        "start": format_address(item.start),
        "end": format_address(item.end),
        "mapping": item.mapping,
        "why": item.why,
    }


def any_untracked_keys(item: Untracked | MemberUntracked) -> dict[str, Any]:
    """Return the JSON keys of what is not tracked, of one target or of a group."""
    if isinstance(item, Untracked):
        return untracked_keys(item)
    return member_untracked_keys(item)


def cost_keys(cost: Cost) -> dict[str, Any]:
    """Return the JSON keys of a command's cost."""
    return {
        "stopped_ns": cost.stopped_ns,
        "scan_ns": cost.scan_ns,
        "max_wait_ns": cost.max_wait_ns,
        "ioctls": cost.ioctls,
        "pages_walked": cost.pages_walked,
        "mappings_added": cost.mappings_added,
        "target_share": share_key(cost.target_share),
        "target_ns": cost.target_ns,
        "huge_restored": cost.huge_restored,
        "huge_lost": cost.huge_lost,
    }


def share_key(share: float | None) -> float | None:
    """Return a share as a number with five decimals; None stays None."""
    return None if share is None else round(share, 5)
