"""`pagescan diff`: lists the pages written since arm, or since the last rearm."""

import contextlib
import os
from typing import TYPE_CHECKING

import click

from pagescan import render
from pagescan.commands.completing import complete_session
from pagescan.commands.forms import check_effect
from pagescan.commands.group_options import Asked, group_option
from pagescan.commands.options import (
    common,
    oldest_option,
    output,
    pace_option,
)
from pagescan.console.context import Context
from pagescan.console.streams import arrived
from pagescan.model.batch import Batch
from pagescan.model.errors import TargetError, UsageError
from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.native import Pace
from pagescan.session.delivery import look_until_delivered
from pagescan.session.lookup import find_session
from pagescan.session.record import Session
from pagescan.target.find import find_pid
from pagescan.target.process import Target

if TYPE_CHECKING:
    from pagescan.session.group_lookup import GroupSession

_OF_TARGET = {
    "since_wp": "--since-wp",
    "rearm": "--rearm",
    "oldest": "--oldest",
    "max_stall": "--max-stall",
    "tree": "--tree",
    "group_cgroup": "--cgroup",
    "group_unit": "--unit",
    "group_container": "--container",
    "group_match": "--match",
}


@click.command(
    epilog="""\b
Examples:
  pagescan arm 4242; sleep 10; pagescan diff 4242
  pagescan diff --since-wp --json | jq '.regions[] | [.start, .pages, .mapping]'
  pagescan diff 4242 --rearm --by mapping
  pagescan diff --tree 4242 --by process
  pagescan diff before.pagescan after.pagescan"""
)
@click.argument(
    "targets", metavar="[TARGET | OLD NEW]", nargs=-1, shell_complete=complete_session
)
@click.option(
    "--since-wp", is_flag=True, help="Compare with the last write-protect (default)."
)
@click.option(
    "--rearm",
    is_flag=True,
    help="Write-protect the listed pages in the same step: the next diff starts here.",
)
@oldest_option
@group_option
@output("diff")
@pace_option
@common
def command(
    *,
    targets: tuple[str, ...],
    since_wp: bool,
    rearm: bool,
    oldest: bool,
    asked: Asked,
    output: Output,
    pace: Pace,
    context: Context,
) -> int:
    """Show the pages that TARGET has written since `arm`, or since the last --rearm.

    With OLD and NEW, two recordings: compares them.

    Without TARGET: uses the only session. Changes nothing, unless --rearm is given.
    In the session of a group, --rearm also arms the processes that have come.
    """
    del since_wp  # it is the default
    if len(targets) == 2:
        _check_files(targets)
        check_effect(_OF_TARGET, "is for TARGET, and diff OLD NEW compares files")
        from pagescan.commands.comparing import compare_recordings

        return compare_recordings(*targets, output)
    session = _session(targets, asked, oldest=oldest)
    if not isinstance(session, Session):
        from pagescan.commands.group_sessions import diff_and_print
        from pagescan.commands.signals import undo_on_signals

        with undo_on_signals():  # --rearm arms processes that have come
            diff_and_print(session, output, pace, context, rearm=rearm)
        return 0
    _print(session, output, pace, context, rearm=rearm)
    return 0


def _check_files(targets: tuple[str, ...]) -> None:
    """Raise a UsageError if two words are processes, and not recordings."""
    if any(word.isdigit() and not os.path.exists(word) for word in targets):
        raise UsageError(
            f"diff takes one TARGET, or two recordings: {' '.join(targets)}",
            hint=f"one process: pagescan diff {targets[0]}",
        )


def _print(
    session: Session, output: Output, pace: Pace, context: Context, *, rearm: bool
) -> None:
    """Print what the target of a session has written."""
    if output.by == "process":
        raise UsageError(f"--by process needs a group: {session.name} is one process")
    with look_until_delivered(session, rearm=rearm, pace=pace) as (before, look):
        if before.since is None:
            context.say(
                "the session has no common baseline: a part was protected by scan --wp,"
                " or a look was killed and what it had found is not known"
            )
        context.say_untracked(look.untracked)
        if output.labelled:
            _label(look.batch, session)
        report = Report(
            "diff",
            look.time,
            before.target,
            look.batch.summary(),
            session=before.facts,
            untracked=look.untracked,
            cost=look.cost,
        )
        render.write_result(report, look.batch, output)
        if rearm:
            arrived()


def _session(
    targets: tuple[str, ...], asked: Asked, *, oldest: bool
) -> "Session | GroupSession":
    """Return the session of TARGET or of a group; without either, the only one."""
    if len(targets) > 2:
        raise UsageError("diff takes one TARGET, or two recordings")
    if asked.given:
        from pagescan.session.group_lookup import find_group

        return find_group(*asked.of_session(targets, oldest=oldest))
    if targets:
        return find_session(
            find_pid(targets[0], oldest=oldest, options="--oldest --tree")
        )
    if oldest:
        raise UsageError("--oldest chooses among processes of a name: give TARGET")
    from pagescan.session.group_lookup import find_only

    return find_only()


def _label(batch: Batch, session: Session) -> None:
    """Label the mappings of a look; a target that has ended since keeps none."""
    from pagescan.target.labels import Labels

    facts = session.target
    with (
        contextlib.suppress(TargetError),
        Target.open(facts.pid, start_time=facts.start_time) as target,
    ):
        Labels(target).label(batch)
