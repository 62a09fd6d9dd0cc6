"""`pagescan sessions`: lists the tracking sessions."""

import click

from pagescan.commands.options import common, output
from pagescan.console.context import Context
from pagescan.model.results import Output
from pagescan.render.session_list import write_sessions
from pagescan.session.lookup import (
    clear_leftovers,
    keeper_sessions,
    lost_sessions,
    other_holders,
)


@click.command(
    epilog="""\b
Example:
  pagescan sessions --json | jq -r '.sessions[].name'"""
)
@output("sessions")
@common
def command(*, output: Output, context: Context) -> None:
    """List the tracking sessions of this user, and what `watch` tracks just now.

    A watch ends with its command: `disarm` ends sessions only.
    """
    sessions, watches = keeper_sessions(), other_holders()
    clear_leftovers()
    for session in lost_sessions():
        context.say(f"session {session.name} was lost: its keeper died")
    if not sessions:
        context.say("no session")
    write_sessions("sessions", sessions, output, watches=watches)
