"""`pagescan cow`: tells what the copy-on-write of forked children costs, and why."""

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from pagescan.attribution.copies import CopyWatch
from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.copy_loop import copy_reports
from pagescan.attribution.exact_copies import ExactCopies
from pagescan.commands.group_options import subject_argument
from pagescan.commands.group_text import Told
from pagescan.commands.options import common, output
from pagescan.commands.signals import stop_on_signals, undo_on_signals
from pagescan.commands.values import SECONDS
from pagescan.console.context import Context
from pagescan.console.streams import nothing_is_held
from pagescan.model.copies import CopyReport, ForkCopies
from pagescan.model.errors import UsageError
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import Output
from pagescan.model.units import format_seconds, format_size, plural
from pagescan.render.copies import sum_line, write_copies

if TYPE_CHECKING:
    from pagescan.target.group import Selector

_RISK = (
    "--exact: each fork of the target waits until pagescan has read it: for about a"
    " millisecond, and for half a second if pagescan is stopped; but where a frozen"
    " cgroup or machine keeps even SIGKILL from pagescan, as long as that lasts"
)


@click.command(
    epilog="""\b
Examples:
  pagescan cow redis-server --next-fork
  pagescan cow gunicorn --oldest --by function --duration 30
  pagescan cow --tree postgres --duration 30
  pagescan cow 4242 --duration 30 --json | jq '.forks[] | {child, copied}'"""
)
@subject_argument
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
    "-i",
    "--interval",
    type=SECONDS,
    metavar="S",
    default="1",
    help="Seconds between reports (1).",
)
@click.option("--duration", type=SECONDS, metavar="S", help="End after S seconds.")
@click.option(
    "--exact",
    "by_bits",
    is_flag=True,
    help="Count copies by the write bits of both sides, too, for writers without a page"
    " fault. Root only. Each fork of TARGET then waits until pagescan has read it.",
)
@output("cow")
@common
def command(
    *,
    subject: "int | Selector",
    next_fork: bool,
    interval: float,
    duration: float | None,
    by_bits: bool,
    output: Output,
    context: Context,
) -> int:
    """Count the shared pages that TARGET and its forked children have copied.

    Nothing is armed and nothing is stopped, unless --exact is given: each copy is a
    page fault, and perf gives a sample of it. Ctrl-C ends it.

    shared, copied and new are numbers of pages; rate is copied pages per second.
    """
    with contextlib.ExitStack() as undo:
        undo.enter_context(undo_on_signals())
        watch = undo.enter_context(
            _exact(subject, existing=not next_fork)
            if by_bits
            else _watch(subject, existing=not next_fork)
        )
        stop = undo.enter_context(stop_on_signals())
        if by_bits:
            context.say(_RISK)
        if watch.user_only:
            context.say(
                "this user may not sample the kernel: copies made by read(2)"
                " and the like are not seen"
            )
        what = "waiting for a fork of" if next_fork else "following"
        context.say(f"{what} {_named(watch, subject)}; Ctrl-C to end")
        told = _Teller(output, context, alone=not next_fork)
        for report in copy_reports(
            watch,
            interval=interval,
            duration=duration,
            next_fork=next_fork,
            by=output.by,
            stop=stop,
        ):
            if report.end:
                watch.close()
                nothing_is_held()
            told.tell(report)
        for note in watch.notes:
            context.say(note)
        return _said_of_forks(watch.exact, context)


def _watch(subject: "int | Selector", *, existing: bool) -> CopyCounter:
    """Follow a process or a group; its modules are loaded here."""
    if isinstance(subject, int):
        return CopyWatch(subject, existing=existing)
    from pagescan.attribution.group_copies import GroupCopyWatch

    return GroupCopyWatch(subject, existing=existing)


def _exact(subject: "int | Selector", *, existing: bool) -> CopyCounter:
    """Follow a process by the write bits, too."""
    if not isinstance(subject, int):
        raise UsageError(
            f"--exact and --{subject.kind} exclude each other",
            hint="pagescan cow PID --exact follows PID and the children that it forks",
        )
    return CopyWatch(subject, existing=existing, exact=True)


def _named(watch: CopyCounter, subject: "int | Selector") -> str:
    """Return what is followed, in words."""
    if isinstance(watch, CopyWatch):
        return str(watch.target)
    count = sum(process.lives for process in watch.processes.values())
    return f"{subject}, {plural(count, 'process')}"


def _said_of_forks(exact: ExactCopies | None, context: Context) -> int:
    """Say how long forks have waited; return the exit code, 1 if they were lost."""
    if exact is None:
        return 0
    if exact.lost is not None:
        context.say(
            f"the reader of forks is gone: {exact.lost}; later copies were counted by"
            " samples alone"
        )
        return 1
    longest = exact.events.longest_ns
    if longest:
        context.say(f"a fork waited for at most {format_seconds(longest / 1e9)}")
    return 0


class _Teller:
    """Writes reports; on a terminal each report replaces the previous one."""

    def __init__(self, output: Output, context: Context, *, alone: bool) -> None:
        """Begin; `alone`: say at the first report that there is no child yet."""
        self._output, self._context = output, context
        self._alone = alone
        self._lines = 0
        self._told: set[int] = set()
        self._of_group = Told(context, "not counted")

    def tell(self, report: CopyReport) -> None:
        """Write one report, and a sentence about each fork that has ended."""
        ended = [f for f in report.forks if f.end and f.number not in self._told]
        self._told.update(fork.number for fork in ended)
        self._of_group.about(report.untracked)
        if self._alone and not report.end and not report.forks:
            self._context.hint(_NO_CHILD)
        self._alone = False
        if self._output.format == "table" and self._lines:
            sys.stdout.write(f"\x1b[{self._lines}F\x1b[J")
        self._lines = write_copies(report, self._output)
        open_forks = [f for f in report.forks if report.end and f.end is None]
        for line in fork_lines([*ended, *open_forks]):
            self._context.say(line)
            self._lines = 0  # what was said stands below the table
        if report.end:
            for line in end_lines(report, self._output):
                self._context.say(line)
            if report.lost:
                self._context.say(
                    f"{plural(report.lost, 'sample')} lost: up to that many copies are"
                    " missing"
                )
            for hint in report.hints:
                self._context.hint(hint, whole=False)


def end_lines(report: CopyReport, output: Output) -> list[str]:
    """Return the sentences about all processes together, at the end."""
    lines = []
    if report.group is not None and output.format != "table":
        lines.append(sum_line(report))
    earlier = any(fork.copied > sum(_counted(fork)) for fork in report.forks)
    if earlier and output.by != "process":
        lines.append(
            f"no row has the copies made before pagescan began: their {output.by} is"
            " not known"
        )
    if report.vforks:
        many = "child" if report.vforks == 1 else "children"
        lines.append(
            f"{report.vforks} {many} made by vfork or posix_spawn, which copy nothing"
        )
    return lines


_NO_CHILD = "no child shares its memory: --next-fork waits for a fork"
_MOST_FORKS = 4


def fork_lines(forks: list[ForkCopies]) -> list[str]:
    """Return the sentences about some forks: one each, and one for the smaller ones."""
    if len(forks) <= _MOST_FORKS:
        return [fork_line(fork) for fork in forks]
    largest = sorted(forks, key=lambda fork: -fork.copied)
    shown, others = largest[: _MOST_FORKS - 1], largest[_MOST_FORKS - 1 :]
    copied = sum(fork.copied for fork in others)
    return [
        *(fork_line(fork) for fork in sorted(shown, key=lambda fork: fork.number)),
        f"{len(others)} more forks: {plural(copied, 'page')}"
        f" ({format_size(copied * PAGE_SIZE)}) copied, {len(forks)} forks in all",
    ]


def _counted(fork: ForkCopies) -> list[int]:
    """Return what each side has copied since pagescan began."""
    return [side.copied for side in fork.sides]


def fork_line(fork: ForkCopies) -> str:
    """Return the sentence about a fork: copies, their rate, memory to reserve."""
    counted = sum(_counted(fork))
    parent = next(side.copied for side in fork.sides if side.role == "parent")
    share = f", {parent / counted:.1%} by the parent" if counted else ""
    text = (
        f"fork #{fork.number} of {fork.parent}, child {fork.child}:"
        f" {plural(fork.copied, 'page')} ({format_size(fork.copied * PAGE_SIZE)})"
        f" copied in {format_seconds(fork.seconds)}{share};"
    )
    if fork.kept:
        size = format_size(fork.kept * PAGE_SIZE)
        text += f" {size} given back by the parent, and kept by the child;"
    if fork.peak_rate:
        text += f" at most {fork.peak_rate:,.0f} pages/s;"
    text += f" reserve {format_size(fork.reserve)} for such a fork"
    if fork.predicted is not None and fork.predicted > fork.copied:
        size = format_size(fork.predicted * PAGE_SIZE)
        text += f"; {size} if the child lives as long again"
    return text
