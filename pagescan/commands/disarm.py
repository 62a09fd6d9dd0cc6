"""`pagescan disarm`: ends tracking sessions."""

import click

from pagescan.commands.completing import complete_session
from pagescan.commands.options import (
    common,
    oldest_option,
    one_process,
    output,
    pace_option,
    restore_option,
)
from pagescan.console.context import Context
from pagescan.model.errors import UsageError
from pagescan.model.results import Output
from pagescan.native import Pace
from pagescan.render.session_list import write_sessions
from pagescan.session.lookup import find_session, keeper_sessions
from pagescan.session.opened import end
from pagescan.target.find import find_pid


@click.command(
    epilog="""\b
Examples:
  pagescan disarm 4242
  pagescan disarm --all"""
)
@click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_session
)
@click.option("--all", "every", is_flag=True, help="All sessions of this user.")
@oldest_option
@restore_option
@one_process
@output("disarm")
@pace_option
@common
def command(
    *,
    target: str | None,
    every: bool,
    oldest: bool,
    restore_huge: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """End the session of TARGET, or the only one: nothing is left in the target."""
    if oldest and target is None:
        raise UsageError("--oldest chooses among processes of a name: give TARGET")
    if every and target is not None:
        raise UsageError("--all and TARGET exclude each other")
    if every:
        ended = keeper_sessions()
    else:
        pid = None if target is None else find_pid(target, oldest=oldest)
        ended = [find_session(pid)]
    costs = []
    caught = False
    for item in ended:
        cost, restored = end(item, restore_huge=restore_huge and not caught, pace=pace)
        costs.append(cost)
        caught |= restored.caught
        context.say(f"disarmed {item.target.pid} ({item.target.name})")
        if restored.note:
            context.say(restored.note)
    if every and not ended:
        context.say("no session")
    if output.is_json:
        write_sessions("disarm", ended, output, costs)
    if caught:
        raise KeyboardInterrupt
