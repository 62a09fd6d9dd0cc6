"""`pagescan sessions`: lists the tracking sessions."""

from collections.abc import Sequence

import click

from pagescan import render
from pagescan.commands.options import Common, common, output
from pagescan.model.results import Cost, Output
from pagescan.model.units import format_size, format_time
from pagescan.session.lookup import (
    clear_leftovers,
    keeper_sessions,
    lost_sessions,
)
from pagescan.session.record import Session


@click.command(
    epilog="""\b
Example:
  pagescan sessions --json | jq -r '.sessions[].name'"""
)
@output(by=False)
@common
def command(*, output: Output, common: Common) -> None:
    """List the tracking sessions of this user."""
    sessions = keeper_sessions()
    clear_leftovers()
    for session in lost_sessions():
        common.say(f"session {session.name} was lost: its keeper died")
    if not sessions:
        common.say("no session")
    write_sessions("sessions", sessions, output)


def write_sessions(
    kind: str,
    sessions: list[Session],
    output: Output,
    costs: Sequence[Cost] = (),
) -> None:
    """Print sessions as a JSON document, or one row each; JSON includes their cost."""
    if output.format in ("json", "jsonl"):
        from pagescan.render.json_document import cost_keys

        rows: list[dict[str, object]] = [
            {
                "name": session.name,
                "target": render.target_keys(session.target),
                "armed_at": format_time(session.armed_at),
                "since": format_time(session.since) if session.since else None,
                "tracked_bytes": session.tracked_bytes,
                "keeper_pid": session.keeper_pid,
            }
            for session in sessions
        ]
        for row, cost in zip(rows, costs, strict=False):
            row["cost"] = cost_keys(cost)
        render.write_document(render.document(kind, sessions=rows))
        return
    render.write_rows(
        ("session", "name", "armed", "since", "tracked", "keeper"),
        [
            (
                session.name,
                session.target.name,
                format_time(session.armed_at),
                format_time(session.since) if session.since else "mixed",
                str(session.tracked_bytes)
                if output.exact
                else format_size(session.tracked_bytes),
                str(session.keeper_pid),
            )
            for session in sessions
        ],
        output,
    )
