"""`arm` and `diff` at a group: one session per process, and the results of all."""

import contextlib

from pagescan import render
from pagescan.commands.group_text import Told
from pagescan.console.context import Context
from pagescan.console.streams import arrived
from pagescan.model.errors import TargetError
from pagescan.model.groups import GroupLook
from pagescan.model.report import Report
from pagescan.model.results import Output, SessionFacts
from pagescan.model.units import format_seconds, format_size, plural
from pagescan.native import Pace
from pagescan.render.group_rows import GroupRows, ProcessTable
from pagescan.session.group_lookup import GroupSession
from pagescan.session.group_session import arm_group, look_at_group_until_delivered
from pagescan.session.watched import Terms
from pagescan.target.group import Selector
from pagescan.target.labels import Labels
from pagescan.target.process import Target


def arm_and_print(
    selector: Selector, terms: Terms, output: Output, context: Context
) -> None:
    """Arm all processes of a group; say what is tracked, and what is not."""
    armed = arm_group(selector, terms)
    _say_untracked(armed, context)
    stopped = format_seconds(armed.cost.stopped_ns / 1e9)
    context.say(
        f"armed {selector}: {plural(len(armed.members), 'process')},"
        f" {format_size(armed.tracked_bytes)}, stopped for {stopped} in all"
    )
    if output.is_json:
        render.write_result(_report("arm", armed), GroupRows(()), output)


def diff_and_print(
    found: GroupSession, output: Output, pace: Pace, context: Context, *, rearm: bool
) -> None:
    """Print what each process of a group's session has written, and their sum."""
    with look_at_group_until_delivered(found, pace, rearm=rearm) as look:
        if look.since is None and look.summary.regions:
            context.say(
                "one of the processes has no common baseline: a part was protected by"
                " scan --wp, or a look was killed and what it had found is not known"
            )
        _say_untracked(look, context)
        if output.labelled:
            _label(look)
        rows: GroupRows | ProcessTable = GroupRows(
            [(facts, one.batch) for facts, one in look.members if one is not None]
        )
        if output.by == "process":
            table = ProcessTable(facts for facts, _ in look.members)
            rows = GroupRows(()) if output.is_json else table
        render.write_result(_report("diff", look), rows, output)
        if rearm:
            arrived()


def _say_untracked(look: GroupLook, context: Context) -> None:
    """Say which processes, and which parts of processes, are not tracked."""
    Told(context).about(look.untracked)
    parts = (item.part for item in look.untracked)
    context.say_untracked(tuple(part for part in parts if part is not None))


def _report(kind: str, look: GroupLook) -> Report:
    name = f"{look.group.kind} {look.group.name}"
    return Report(
        kind,
        look.time,
        None,
        look.summary,
        session=SessionFacts(name, look.armed_at, look.since),
        untracked=look.untracked,
        cost=look.cost,
        group=look.group,
        processes=tuple(facts for facts, _ in look.members),
        gone=sum(facts.end is not None for facts, _ in look.members),
    )


def _label(look: GroupLook) -> None:
    """Label the mappings; a process that has ended since keeps none."""
    for facts, one in look.members:
        if one is not None:
            pid, start_time = facts.target.pid, facts.target.start_time
            with (
                contextlib.suppress(TargetError),
                Target.open(pid, start_time=start_time) as target,
            ):
                Labels(target).label(one.batch)
