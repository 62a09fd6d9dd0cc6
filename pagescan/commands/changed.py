"""`pagescan changed`: whether anything was written since the last checkpoint."""

import click

from pagescan import checkpoint
from pagescan.errors import CannotTellError, PagescanError
from pagescan.native import Pace
from pagescan.options import Common, common, pace_option, target_argument

_NOTHING = 1


@click.command(
    epilog="""\b
Examples:
  pagescan changed 4242 && make_a_snapshot
  pagescan changed 4242 --epoch 7; [ $? -eq 1 ] || make_a_snapshot"""
)
@target_argument
@click.option(
    "--epoch",
    type=click.IntRange(min=1),
    metavar="N",
    help="The image of epoch N is done: against that one.",
)
@pace_option
@common
def command(*, pid: int, epoch: int | None, pace: Pace, common: Common) -> int:
    """Exit 0 if TARGET was written since the last acknowledged epoch, 1 if not.

    Needs a session; without a checkpoint, since it was armed or rearmed. 2: it cannot
    be told, which is 1 elsewhere.
    """
    try:
        something = checkpoint.changed(pid, epoch, pace)
    except (PagescanError, OSError) as error:
        if getattr(error, "code", _NOTHING) != _NOTHING:
            raise
        raise CannotTellError(str(error), hint=getattr(error, "hint", None)) from error
    common.detail("something was written" if something else "nothing was written")
    return 0 if something else _NOTHING
