"""`pagescan changed`: tells whether anything was written since the last checkpoint."""

import click

from pagescan.checkpoint import api as checkpoint
from pagescan.commands.options import common, pace_option, target_argument
from pagescan.commands.values import whole
from pagescan.console.context import Context
from pagescan.native import Pace


@click.command(
    epilog="""\b
Examples:
  pagescan changed 4242 && make_a_snapshot
  pagescan changed 4242 --epoch 7; [ $? -eq 1 ] || make_a_snapshot"""
)
@target_argument
@click.option(
    "--epoch",
    type=whole(1),
    metavar="N",
    help="Image N is stored: compare with that one.",
)
@pace_option
@common
def command(*, pid: int, epoch: int | None, pace: Pace, context: Context) -> int:
    """Exit 0 if TARGET was written since the last acknowledged epoch, 1 if not.

    Needs a session. Without a checkpoint it compares with arming or the last rearm.
    Exit code 2: it cannot tell (other commands then exit with 1).
    """
    something = checkpoint.changed(pid, epoch, pace)
    context.detail("something was written" if something else "nothing was written")
    return 0 if something else 1
