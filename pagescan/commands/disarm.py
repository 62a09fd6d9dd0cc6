"""`pagescan disarm`: ends tracking sessions."""

from collections import Counter
from itertools import chain

import click

from pagescan.commands.completing import complete_session
from pagescan.commands.group_options import Asked, group_option
from pagescan.commands.options import (
    common,
    oldest_option,
    output,
    pace_option,
    restore_option,
)
from pagescan.console.context import Context
from pagescan.model.errors import UsageError
from pagescan.model.results import Output
from pagescan.model.units import plural
from pagescan.native import Pace
from pagescan.render.session_list import write_sessions
from pagescan.session.lookup import (
    clear_away,
    clear_leftovers,
    find_session,
    keeper_sessions,
    losses,
    lost_sessions,
)
from pagescan.session.opened import end_each
from pagescan.session.record import Session
from pagescan.target.find import find_pid


@click.command(
    epilog="""\b
Examples:
  pagescan disarm 4242
  pagescan disarm --tree 4242
  pagescan disarm --all"""
)
@click.argument(
    "target", metavar="[TARGET]", required=False, shell_complete=complete_session
)
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="All sessions of this user; those of other shells and scripts, too.",
)
@oldest_option
@restore_option
@group_option
@output("disarm")
@pace_option
@common
def command(
    *,
    target: str | None,
    every: bool,
    oldest: bool,
    asked: Asked,
    restore_huge: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """End the session of TARGET, of a group, or the only one.

    Nothing is left in the target.
    """
    sessions = _sessions(target, asked, every=every, oldest=oldest)
    if target is None or asked.given:
        lost = _lost(sessions, every=every)
        for line in losses(lost, sessions):
            context.say(line)
    ended, costs = [], []
    caught = False
    for item, cost, restored in end_each(
        sessions, restore_huge=restore_huge, pace=pace
    ):
        ended.append(item)
        costs.append(cost)
        caught |= restored.caught
        if item.group is None or (target is not None and not asked.given):
            context.say(f"disarmed {item.target.pid} ({item.target.name})")
        if restored.note:
            context.say(restored.note)
    if target is None or asked.given:
        _say_groups(ended, context)
    if every and not ended:
        context.say("no session")
    if output.is_json:
        write_sessions("disarm", ended, output, costs)
    if caught:
        raise KeyboardInterrupt


def _sessions(
    target: str | None, asked: Asked, *, every: bool, oldest: bool
) -> list[Session]:
    """Return the sessions that are to be ended; of a group, those of its members."""
    if every and (target is not None or asked.given):
        raise UsageError(f"--all and {asked.given or 'TARGET'} exclude each other")
    words = () if target is None else (target,)
    if every:
        if oldest:
            raise UsageError("--oldest chooses among processes of a name: give TARGET")
        clear_leftovers()
        return keeper_sessions()
    if asked.given:
        from pagescan.session.group_lookup import find_group

        return list(find_group(*asked.of_session(words, oldest=oldest)).members)
    if target is not None:
        return [
            find_session(find_pid(target, oldest=oldest, options="--oldest --tree"))
        ]
    if oldest:
        raise UsageError("--oldest chooses among processes of a name: give TARGET")
    from pagescan.session.group_lookup import find_only

    found = find_only()
    return [found] if isinstance(found, Session) else list(found.members)


def _lost(sessions: list[Session], *, every: bool) -> list[Session]:
    """Return the lost sessions of the same groups, or all; forget them."""
    groups = {session.group.key for session in sessions if session.group}
    lost = lost_sessions() if every else [*chain(*map(lost_sessions, groups))]
    for session in lost:
        clear_away(session)
    return lost


def _say_groups(ended: list[Session], context: Context) -> None:
    """Say which groups were disarmed, and how many processes of each."""
    groups = Counter(session.group for session in ended if session.group)
    for group, count in groups.items():
        context.say(f"disarmed {group}: {plural(count, 'process')}")
