"""`pagescan cow`: tells what the copy-on-write of forked children costs, and why."""

import sys

import click

from pagescan.attribution.copies import CopyWatch
from pagescan.attribution.copy_loop import copy_reports
from pagescan.commands.options import common, output, target_argument
from pagescan.commands.signals import stop_on_signals
from pagescan.console.context import Context
from pagescan.model.copies import CopyReport, ForkCopies
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import Output
from pagescan.model.units import format_seconds, format_size, parse_seconds, plural
from pagescan.render.copies import write_copies


@click.command(
    epilog="""\b
Examples:
  pagescan cow redis-server --next-fork
  pagescan cow gunicorn --oldest --by function --duration 30
  pagescan cow 4242 --json | jq '.forks[] | {child, copied, reserve_bytes}'"""
)
@target_argument
@click.option(
    "--next-fork",
    is_flag=True,
    help="Wait for a fork, as for a BGSAVE, and follow it until the child ends.",
)
@click.option(
    "--by",
    type=click.Choice(["process", "function", "mapping", "time"]),
    default="process",
    show_default=True,
    help="What one row stands for.",
)
@click.option(
    "-i", "--interval", metavar="S", default="1", help="Seconds between reports (1)."
)
@click.option("--duration", metavar="S", help="End after S seconds.")
@output("cow")
@common
def command(
    *,
    pid: int,
    next_fork: bool,
    interval: str,
    duration: str | None,
    output: Output,
    context: Context,
) -> None:
    """Count the shared pages that TARGET and its forked children have copied.

    Nothing is armed and nothing is stopped: each copy is a page fault, and perf gives a
    sample of it. Ctrl-C ends it.

    shared, copied and new are numbers of pages; rate is copied pages per second.
    """
    seconds = parse_seconds(interval)
    most = parse_seconds(duration) if duration else None
    with CopyWatch(pid, existing=not next_fork) as watch, stop_on_signals() as stop:
        if watch.user_only:
            context.say(
                "this user may not sample the kernel: copies made by read(2)"
                " and the like are not seen"
            )
        what = "waiting for a fork of" if next_fork else "following"
        context.say(f"{what} {watch.target}; Ctrl-C to end")
        told = _Teller(output, context)
        for report in copy_reports(
            watch,
            interval=seconds,
            duration=most,
            next_fork=next_fork,
            by=output.by,
            stop=stop,
        ):
            told.tell(report)
        for note in watch.symbols.notes:
            context.say(note)


class _Teller:
    """Writes reports; on a terminal each report replaces the previous one."""

    def __init__(self, output: Output, context: Context) -> None:
        self._output, self._context = output, context
        self._lines = 0
        self._told: set[int] = set()

    def tell(self, report: CopyReport) -> None:
        """Write one report, and a sentence about each fork that has ended."""
        ended = [f for f in report.forks if f.end and f.number not in self._told]
        self._told.update(fork.number for fork in ended)
        if self._output.format == "table" and self._lines:
            sys.stdout.write(f"\x1b[{self._lines}F\x1b[J")
        self._lines = write_copies(report, self._output)
        open_forks = [f for f in report.forks if report.end and f.end is None]
        for fork in [*ended, *open_forks]:
            self._context.say(fork_line(fork))
            self._lines = 0  # what was said stands below the table
        if report.end:
            if report.lost:
                self._context.say(
                    f"{plural(report.lost, 'sample')} lost: up to that many copies are"
                    " missing"
                )
            for hint in report.hints:
                self._context.hint(hint)


def fork_line(fork: ForkCopies) -> str:
    """Return the sentence about a fork: copies, their rate, memory to reserve."""
    counted = sum(side.copied for side in fork.sides)
    parent = next(side.copied for side in fork.sides if side.role == "parent")
    share = f", {parent / counted:.1%} by the parent" if counted else ""
    text = (
        f"fork #{fork.number} of {fork.parent}, child {fork.child}:"
        f" {plural(fork.copied, 'page')} ({format_size(fork.copied * PAGE_SIZE)})"
        f" copied in {format_seconds(fork.seconds)}{share};"
    )
    if fork.peak_rate:
        text += f" at most {fork.peak_rate:,.0f} pages/s;"
    text += f" reserve {format_size(fork.reserve)}"
    if fork.predicted is not None and fork.predicted > fork.copied:
        size = format_size(fork.predicted * PAGE_SIZE)
        text += f"; {size} if the child lives as long again"
    return text
