"""`pagescan diff`: lists the pages written since arm, or since the last rearm."""

import contextlib

import click

from pagescan import render
from pagescan.commands.completing import complete_session
from pagescan.commands.options import (
    common,
    oldest_option,
    one_process,
    output,
    pace_option,
)
from pagescan.console.context import Context
from pagescan.console.streams import arrived
from pagescan.model.batch import Batch
from pagescan.model.errors import TargetError, UsageError
from pagescan.model.results import Output, Report
from pagescan.native import Pace
from pagescan.session.delivery import look_until_delivered
from pagescan.session.lookup import find_session
from pagescan.session.record import Session
from pagescan.target.find import find_pid
from pagescan.target.process import Target


@click.command(
    epilog="""\b
Examples:
  pagescan arm 4242; sleep 10; pagescan diff 4242
  pagescan diff --since-wp --json | jq '.regions[] | [.start, .pages, .mapping]'
  pagescan diff 4242 --rearm --by mapping
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
@one_process
@output("diff")
@pace_option
@common
def command(
    *,
    targets: tuple[str, ...],
    since_wp: bool,
    rearm: bool,
    oldest: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> int:
    """Show the pages that TARGET has written since `arm`, or since the last --rearm.

    With OLD and NEW, two recordings: compares them.

    Without TARGET: uses the only session. Changes nothing, unless --rearm is given.
    """
    if len(targets) == 2:
        if since_wp or rearm or oldest:
            raise UsageError(
                "diff OLD NEW compares files: these options are for TARGET"
            )
        from pagescan.commands.comparing import compare_recordings

        return compare_recordings(*targets, output)
    if len(targets) > 2:
        raise UsageError("diff takes one TARGET, or two recordings")
    if oldest and not targets:
        raise UsageError("--oldest chooses among processes of a name: give TARGET")
    session = find_session(find_pid(targets[0], oldest=oldest) if targets else None)
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
    return 0


def _label(batch: Batch, session: Session) -> None:
    """Label the mappings of a look; a target that has ended since keeps none."""
    from pagescan.target.labels import Labels

    facts = session.target
    with (
        contextlib.suppress(TargetError),
        Target.open(facts.pid, start_time=facts.start_time) as target,
    ):
        Labels(target).label(batch)
