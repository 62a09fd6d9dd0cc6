"""`pagescan sessions`: lists the tracking sessions."""

import click

from pagescan.commands.options import common, output
from pagescan.console.context import Context
from pagescan.model.results import Output
from pagescan.render.session_list import write_sessions
from pagescan.session.lookup import (
    clear_leftovers,
    keeper_sessions,
    losses,
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

    who, record, exporter --track and cow --exact are listed, too. They end with their
    command: `disarm` ends sessions only.
    """
    sessions, watches = keeper_sessions(), other_holders()
    clear_leftovers()
    for line in losses(lost_sessions(), sessions):
        context.say(line)
    if not sessions:
        context.say("no session")
    write_sessions("sessions", sessions, output, watches=watches)
