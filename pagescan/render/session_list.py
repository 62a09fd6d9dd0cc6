"""Writes a list of sessions: a JSON document, or one row per session."""

from collections.abc import Sequence

from pagescan.model.results import Cost, Output
from pagescan.model.units import format_size, format_time
from pagescan.render.document import ListedSession


def write_sessions(
    kind: str,
    sessions: Sequence[ListedSession],
    output: Output,
    costs: Sequence[Cost] = (),
) -> None:
    """Write sessions to stdout.

    Args:
        kind: The command's word for the list.
        sessions: The sessions.
        output: The format.
        costs: In JSON, the cost of each session; empty: left out.
    """
    if output.is_json:
        from pagescan.render.document import (
            cost_keys,
            document,
            listed_session_keys,
            write_document,
        )

        rows = [listed_session_keys(session) for session in sessions]
        for row, cost in zip(rows, costs, strict=False):
            row["cost"] = cost_keys(cost)
        write_document(document(kind, sessions=rows))
        return
    from pagescan.render.few_rows import write_rows

    write_rows(
        ("session", "name", "armed", "since", "tracked", "keeper"),
        [_cells(session, output) for session in sessions],
        output,
    )


def _cells(session: ListedSession, output: Output) -> tuple[str, ...]:
    facts, tracked = session.facts, session.tracked_bytes
    return (
        facts.name,
        session.target.name,
        format_time(facts.armed_at),
        format_time(facts.since) if facts.since else "mixed",
        str(tracked) if output.exact else format_size(tracked),
        str(session.keeper_pid),
    )
