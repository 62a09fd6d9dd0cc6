"""`pagescan diff`: what was written since arm, or since the last rearm."""

import click

from pagescan import render, session
from pagescan.arm import Armed
from pagescan.errors import UsageError
from pagescan.mappings import Selection
from pagescan.model import Output, Report
from pagescan.native import Pace
from pagescan.options import Common, common, output, pace_option
from pagescan.session import Client, Session
from pagescan.target import Target, find
from pagescan.tracking import Look, Tracking


@click.command(
    epilog="""\b
Examples:
  pagescan arm 4242; sleep 10; pagescan diff 4242
  pagescan diff --since-wp --json | jq '.regions[] | [.start, .pages, .mapping]'
  pagescan diff 4242 --rearm --by mapping"""
)
@click.argument("targets", metavar="[TARGET]", nargs=-1)
@click.option(
    "--since-wp", is_flag=True, help="Against the last write-protect: the default."
)
@click.option(
    "--rearm",
    is_flag=True,
    help="Write-protect what is listed in the same step: the next look starts here.",
)
@output()
@pace_option
@common
def command(
    *,
    targets: tuple[str, ...],
    since_wp: bool,
    rearm: bool,
    output: Output,
    pace: Pace,
    common: Common,
) -> None:
    """Show what TARGET has written since `arm`, or since the last --rearm.

    Without TARGET: of the only session there is. Changes nothing, unless --rearm.
    """
    del since_wp
    if len(targets) > 1:
        raise UsageError("diff OLD NEW does not exist yet: name one TARGET")
    found = session.find(find(targets[0]) if targets else None)
    before, target, look = look_at(found, rearm=rearm, pace=pace)
    common.say_untracked(look.untracked)
    report = Report(
        "diff",
        look.time,
        target.facts,
        look.batch.summary(),
        session=before.facts,
        untracked=look.untracked,
        cost=look.cost,
    )
    render.write_result(report, look.batch, output)


def look_at(found: Session, *, rearm: bool, pace: Pace) -> tuple[Session, Target, Look]:
    """Look through a session; return its facts as they were before the look."""
    with (
        Target.open(found.target.pid, start_time=found.target.start_time) as target,
        Client(found) as client,
    ):
        before = (client.begin() if rearm else client.open()).session
        if not client.alive:
            client.end()
            raise target.gone()
        armed = Armed(
            Selection.parse(before.words),
            list(before.untracked),
            before.tracked_bytes,
            before.tables_left,
            before.epoch,
        )
        tracking = Tracking(
            target,
            client.uffd,
            armed,
            armed_at=before.armed_at,
            since=before.since,
            pace=pace,
        )
        look = tracking.look(rearm=rearm)
        if rearm:
            client.session = before.after(armed, tracking.since)
            client.commit()
    return before, target, look
