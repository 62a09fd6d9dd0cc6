"""`pagescan dump-plan`: lists the pages that a checkpoint has to store."""

import contextlib
import sys

import click

from pagescan import render
from pagescan.checkpoint import api as checkpoint
from pagescan.checkpoint.plan import Plan
from pagescan.commands.forms import check_form
from pagescan.commands.options import (
    common,
    output,
    pace_option,
    target_argument,
)
from pagescan.commands.values import whole
from pagescan.console.context import Context
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.report import Report
from pagescan.model.results import Output, PlanFacts
from pagescan.model.units import now
from pagescan.native import Pace
from pagescan.target.process import Target


@click.command(
    epilog="""\b
Examples:
  pagescan dump-plan 4242 --json
  pagescan arm 4242; pagescan dump-plan 4242 --epoch 0 --json >1.json
  pagescan dump-plan 4242 --epoch 1 --json >2.json
  pagescan dump-plan 4242 --ack 2"""
)
@target_argument
@click.option(
    "--epoch",
    type=whole(0),
    metavar="N",
    help="Image N is stored: list the pages to add. 0: no image is stored yet.",
)
@click.option(
    "--ack",
    type=whole(1),
    metavar="N",
    help="Image N is stored; make no plan.",
)
@click.option(
    "--binary", is_flag=True, help="Print 16 bytes per region: see the guide."
)
@output("dump-plan", by=False)
@pace_option
@common
def command(
    *,
    pid: int,
    epoch: int | None,
    ack: int | None,
    binary: bool,
    output: Output,
    pace: Pace,
    context: Context,
) -> None:
    """List the pages of TARGET that a checkpoint has to store.

    Without --epoch the plan is complete, and the target is not touched. With --epoch a
    session is needed: the plan lists the pages to add to image N, and write-protects
    them again in the same step.
    """
    if ack is not None:
        _check_ack(output, plans=epoch is not None or binary)
        checkpoint.acknowledge(pid, ack)
        return
    if binary:
        _check_binary(output)
    if epoch is None:
        with Target.open(pid) as target:
            planned = checkpoint.plan_now(target, pace)
    else:
        planned = checkpoint.plan_epoch(pid, epoch, pace)
    plan = planned.plan
    for note in planned.notes:
        context.say(note)
    untracked = planned.look.untracked if planned.look else ()
    context.say_untracked(untracked)
    if binary:
        from pagescan.checkpoint.binary import write_binary

        write_binary(plan, sys.stdout.buffer)
        return
    _label(plan, output)
    summary = plan.batch.summary()
    report = Report(
        "dump-plan",
        planned.look.time if planned.look else now(),
        plan.target,
        summary,
        session=planned.session.facts if planned.session else None,
        untracked=untracked,
        cost=planned.cost,
        plan=PlanFacts(plan.epoch, plan.parent, plan.pages(), plan.left_out),
    )
    render.write_result(report, plan.batch, output)


def _label(plan: Plan, output: Output) -> None:
    """Tell what the memory of a plan is for, if the output shows it."""
    if output.labelled:
        from pagescan.target.labels import Labels

        started = plan.target.start_time
        with (
            contextlib.suppress(PagescanError),  # it has ended: the plan holds
            Target.open(plan.target.pid, start_time=started) as target,
        ):
            Labels(target).label(plan.batch)


def _check_ack(output: Output, *, plans: bool) -> None:
    """Refuse options of a plan, and those of its output, where no plan is made."""
    if plans:
        raise UsageError("--ack makes no plan: leave out --epoch and --binary")
    if output.is_json or any(output.options.values()):
        raise UsageError("--ack prints nothing: leave out the options of the output")


def _check_binary(output: Output) -> None:
    """Refuse options and streams that exclude the binary form."""
    if output.is_json or output.format == "csv":
        raise UsageError(f"--binary and --{output.format} exclude each other")
    check_form("binary", output.options)
    if sys.stdout.isatty():
        raise UsageError("--binary output is not for a terminal", hint="as in: > plan")
