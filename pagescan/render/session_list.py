"""Writes a list of sessions: a JSON document, or one row per session."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pagescan.model.results import Cost, Output
from pagescan.model.units import format_age, format_size, format_time, now
from pagescan.render.document import ListedSession


def write_sessions(
    kind: str,
    sessions: Sequence[ListedSession],
    output: Output,
    costs: Sequence[Cost] = (),
    *,
    watches: Sequence[ListedSession] | None = None,
) -> None:
    """Write sessions to stdout.

    Args:
        kind: The command's word for the list.
        sessions: The sessions, which a keeper holds.
        output: The format.
        costs: In JSON, the cost of each session; empty: left out.
        watches: What `watch` and the library track; None: not of interest.
    """
    if output.is_json:
        from pagescan.render.document import (
            cost_keys,
            document,
            listed_session_keys,
            watch_keys,
            write_document,
        )

        rows = [listed_session_keys(session) for session in sessions]
        for row, cost in zip(rows, costs, strict=False):
            row["cost"] = cost_keys(cost)
        more: dict[str, Any] = {}
        if watches is not None:
            more["watches"] = [watch_keys(watch) for watch in watches]
        write_document(document(kind, sessions=rows, **more))
        return
    from pagescan.render.few_rows import write_rows

    write_rows(
        ("session", "name", "armed", "since", "tracked", "keeper", "holder", "group"),
        [_cells(session, output) for session in (*sessions, *(watches or ()))],
        output,
    )


def _cells(session: ListedSession, output: Output) -> tuple[str, ...]:
    """Return the cells of a row; on a terminal, times are as old as they are."""
    facts, tracked = session.facts, session.tracked_bytes
    shown = format_time if output.format != "table" else _ago
    return (
        facts.name,
        session.target.name,
        shown(facts.armed_at),
        shown(facts.since) if facts.since else "mixed",
        str(tracked) if output.exact else format_size(tracked),
        str(session.keeper_pid),
        session.holder,
        "-" if session.group is None else str(session.group.facts),
    )


def _ago(moment: datetime) -> str:
    return f"{format_age((now() - moment).total_seconds())} ago"
