"""`pagescan demo`: watches a workload that knows its writes, and judges the result."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import click

from pagescan.commands.early_view import EarlyView
from pagescan.commands.live import show
from pagescan.commands.options import common, output, pace_option
from pagescan.commands.signals import stop_on_signals
from pagescan.commands.values import SECONDS, SIZE
from pagescan.commands.workload import PAGE, Workload
from pagescan.console.context import Context
from pagescan.console.streams import put
from pagescan.model.batch import Batch
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.looks import Tick
from pagescan.model.results import Output, TargetFacts
from pagescan.model.units import format_size, plural
from pagescan.native import Pace
from pagescan.render.document import document, target_keys, write_document
from pagescan.session.watched import Terms, Watched
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Inputs, Limits

_ROUND = 0.5


@dataclass(slots=True)
class Check:
    """The workload's own count against pagescan's: pages, over all rounds."""

    rounds: int = 0
    expected: int = 0
    found: int = 0
    missed: int = 0
    extra: int = 0

    def judge(self, wrote: set[int], found: set[int]) -> None:
        """Add the pages of one round."""
        self.rounds += 1
        self.expected += len(wrote)
        self.found += len(wrote & found)
        self.missed += len(wrote - found)
        self.extra += len(found - wrote)


@click.command(
    epilog="""\b
Examples:
  pagescan demo
  pagescan demo --seconds 2 --json | jq .check"""
)
@click.option(
    "--size",
    type=SIZE,
    metavar="SIZE",
    default="256M",
    help="Size of its heap (256M).",
)
@click.option(
    "--seconds", type=SECONDS, metavar="S", default="6", help="How long it runs (6)."
)
@output("demo")
@pace_option
@common
def command(
    *, size: int, seconds: float, output: Output, pace: Pace, context: Context
) -> int:
    """Run a workload that knows what it writes, and check what pagescan finds.

    Needs neither root nor another program. Exit code 1: a page was missed.
    """
    if size < 16 << 20:
        raise UsageError("--size: the heap has at least 16M")
    check = Check()
    check_possible()
    with contextlib.ExitStack() as undo:
        stop = undo.enter_context(stop_on_signals())
        workload = undo.enter_context(Workload(size, _ROUND))
        terms = Terms(Selection(), pace, say=context.say, detail=context.detail)
        watched = undo.enter_context(Watched.armed(workload.pid, terms))
        count = max(1, round(seconds / _ROUND))
        limits = Limits(_ROUND, count)

        def rounds(inputs: Inputs) -> Iterator[Tick]:
            return _rounds(watched, workload, check, limits, stop, inputs)

        if output.format == "table":
            note = "a workload that knows its writes"
            early = EarlyView(terms, limits.interval, context, note=note)
            show(watched, rounds, limits, early)
        else:
            _follow(rounds({}), check, output, context)
        target = watched.target.facts
    if not check.rounds:
        raise PagescanError("interrupted before the first round was over")
    if output.is_json:
        _write_json(check, target)
    else:
        for line in _verdict(check, size):
            put(line)
    return 1 if check.missed else 0


def _write_json(check: Check, target: TargetFacts) -> None:
    names = ("expected", "found", "missed", "extra")
    keys = document(
        "demo",
        target=target_keys(target),
        check={name: getattr(check, name) for name in names},
        rounds=check.rounds,
        seconds=check.rounds * _ROUND,
    )
    write_document(keys)


def _rounds(
    watched: Watched,
    workload: Workload,
    check: Check,
    limits: Limits,
    stop: int,
    inputs: Inputs,
) -> Iterator[Tick]:
    """Run each round, look while the workload waits, and compare; yield each look."""
    watched.tracking.look(rearm=True)
    for tick in watched.ticks(limits, stop, worker=workload, inputs=inputs):
        if tick.end == "interrupted":
            return
        wrote = workload.wrote()
        if tick.look is not None:
            check.judge(wrote, _pages_of(tick.look.batch, workload))
        yield tick


def _pages_of(batch: Batch, workload: Workload) -> set[int]:
    """Return the page numbers of the workload's heap that a look found."""
    end = workload.start + workload.pages * PAGE
    return {
        (address - workload.start) // PAGE
        for low, high in zip(batch.starts, batch.ends, strict=True)
        for address in range(max(low, workload.start), min(high, end), PAGE)
    }


def _follow(
    rounds: Iterator[Tick], check: Check, output: Output, context: Context
) -> None:
    say: Callable[[str], None] = context.say if output.is_json else put
    for tick in rounds:
        say(
            f"round {tick.number}: so far {plural(check.expected, 'page')} written,"
            f" {check.found} found, {check.missed} missed, {check.extra} extra"
        )


def _verdict(check: Check, length: int) -> list[str]:
    """Print the result for a first-time user."""
    lines = [
        f"{plural(check.rounds, 'round')} over a heap of {format_size(length)}:"
        f" {plural(check.expected, 'page')} written, {check.found} found,"
        f" {check.missed} missed, {check.extra} extra",
    ]
    if check.missed or check.extra:
        lines.append("not exact: please report it, with the output of pagescan doctor")
    else:
        lines.append(
            "exact: every page the workload stored to was reported, and no other one"
        )
    lines.append("now try one of your own processes: pagescan watch PID")
    return lines
