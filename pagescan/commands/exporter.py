"""`pagescan exporter`: serves the memory of groups of processes as metrics."""

import contextlib
import resource
import select
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pagescan.commands.completing import complete_target
from pagescan.commands.forms import check_effect
from pagescan.commands.group_options import groups_option
from pagescan.commands.options import (
    common,
    oldest_option,
    pace_of,
    restore_option,
    tables_option,
)
from pagescan.commands.signals import stop_on_signals
from pagescan.commands.values import PERCENT, SECONDS
from pagescan.console.context import Context
from pagescan.exporter.collector import MemoryCollector
from pagescan.exporter.groups import By
from pagescan.model.errors import UsageError
from pagescan.model.units import (
    format_seconds,
)
from pagescan.native import Pace
from pagescan.session.watched import Terms
from pagescan.target.find import find_pid
from pagescan.target.group import Selector, Tree
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.ticks import Limits, Timer

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from pagescan.exporter.counters import WrittenCounter
    from pagescan.exporter.textfile import TextFile
    from pagescan.exporter.web_config import WebConfig

DEFAULT = "127.0.0.1:9842"


@click.command(
    epilog="""\b
Examples:
  pagescan exporter --unit postgresql --match 'nginx: worker'
  pagescan exporter --by container --listen unix:/run/pagescan.sock
  pagescan exporter --unit redis-server --track --budget 2 -i 5""",
)
@groups_option
@click.option(
    "--tree",
    "trees",
    metavar="TARGET",
    multiple=True,
    shell_complete=complete_target,
    help="A process and its descendants.",
)
@oldest_option
@click.option(
    "--by",
    type=click.Choice([by.value for by in By]),
    help="What makes a group: each option that selects processes (the default), or"
    " one of their properties (without such an option: name).",
)
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="HOST:PORT, unix:PATH, or systemd: the socket that systemd passes"
    f" ({DEFAULT}).",
)
@click.option(
    "--web-config",
    metavar="FILE",
    type=click.Path(),
    help="TLS and basic authentication, in Prometheus' web config format.",
)
@click.option(
    "--textfile",
    metavar="FILE",
    type=click.Path(),
    help="Write a file for node_exporter at every tick instead of listening.",
)
@click.option(
    "--track",
    is_flag=True,
    help="Also count the bytes written, by looks at every tick.",
)
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    metavar="S",
    default="10",
    help="Seconds between ticks (10).",
)
@click.option(
    "--budget",
    type=PERCENT,
    metavar="PERCENT",
    help="With --track: the most of each process's processor time that tracking may"
    " cost; tracks a random part of its memory, and estimates the rest.",
)
@restore_option
@pace_of("100us")
@tables_option
@common
def command(
    *,
    groups: list[Selector],
    trees: tuple[str, ...],
    oldest: bool,
    by: str | None,
    listen: str | None,
    web_config: str | None,
    textfile: str | None,
    track: bool,
    interval: float,
    budget: float | None,
    restore_huge: bool,
    pace: Pace,
    max_tables: int,
    context: Context,
) -> None:
    """Serve the memory of groups of processes as metrics for Prometheus.

    Each option that selects processes may be repeated, and makes one group. Without
    one, all processes are read, and the processes of one name are a group. Ctrl-C ends
    it. Memory is read at each scrape, in slices that spare the processes.

    Without --track, no process is stopped or changed; with it, each selected process is
    tracked as by watch.
    """
    limits = Limits(interval)
    if oldest and not trees:
        raise UsageError("--oldest chooses the TARGET of --tree")
    pids = [
        find_pid(target, oldest=oldest, tree=True, options="--oldest")
        for target in trees
    ]
    selectors = [*groups, *map(Tree.of, pids)]
    _check(selectors, by, listen, web_config, textfile, track=track)
    terms = Terms(
        Selection(),
        pace,
        max_tables=max_tables,
        restore_huge=restore_huge,
        percent=budget,
        interval=limits.interval,
        say=context.say,
        detail=context.detail,
        holder="exporter",
    )
    registry = _registry()
    _raise_descriptors()
    with contextlib.ExitStack() as undo:
        stop = undo.enter_context(stop_on_signals())
        collector = undo.enter_context(
            MemoryCollector(
                selectors,
                by,
                pace=lambda: Pace(max_stall_ns=pace.max_stall_ns),
                say=context.say,
            )
        )
        counter = None
        if track:
            counter = undo.enter_context(_counter(collector, terms, stop, context))
        registry.register(collector)
        if not collector.grouping.now().groups:
            context.say("no process is selected now; new processes will be")
        loop = _Loop(limits, stop, counter)
        if textfile is not None:
            collector.fresh = 0.0  # each tick needs a reading of its own
            loop.run_textfile(_textfile(textfile, registry, undo), context)
        else:
            config = _web_config(web_config)
            loop.run_server(listen or DEFAULT, config, registry, context)


@dataclass(slots=True)
class _Loop:
    """Ticks until a signal ends it.

    Attributes:
        limits: The time between two ticks.
        stop: A descriptor that is readable after a signal.
        counter: Counts at each tick; None: nothing is tracked.
    """

    limits: Limits
    stop: int
    counter: "WrittenCounter | None"

    def run_textfile(self, file: "TextFile", context: Context) -> None:
        """Write the file at each tick."""
        context.say(f"writes at every tick, {format_seconds(self.limits.interval)}")
        self._run(lambda: file.update(context.say))

    def run_server(
        self,
        listen: str,
        config: "WebConfig | None",
        registry: "CollectorRegistry",
        context: Context,
    ) -> None:
        """Serve, and count at each tick, if anything is tracked."""
        from pagescan.exporter.listening import is_open, listening, name_of
        from pagescan.exporter.server import Server

        _add_own_use(registry)
        with listening(listen) as sock, Server(sock, registry, config, context.say):
            secret = config is not None and (config.users or config.tls)
            if is_open(sock) and not secret:
                context.say("other machines may read the metrics: see --web-config")
            context.say(f"listening on {name_of(sock)}; Ctrl-C to end")
            if self.counter is None:
                ready = select.poll()
                ready.register(self.stop, select.POLLIN)
                ready.poll()
            else:
                self._run(lambda: None)

    def _run(self, then: Callable[[], None]) -> None:
        """Tick at once, and then by the clock."""
        timer = Timer(self.limits, self.stop, None, {})
        while True:
            if self.counter is not None:
                self.counter.tick()
            then()
            if timer.wait():
                return


def _check(
    selectors: list[Selector],
    by: str | None,
    listen: str | None,
    web_config: str | None,
    textfile: str | None,
    *,
    track: bool,
) -> None:
    """Refuse options that exclude each other, or that have no effect."""
    if textfile is not None:
        for name, word in (("--listen", listen), ("--web-config", web_config)):
            if word is not None:
                raise UsageError(f"--textfile and {name} exclude each other")
    if by == By.OPTION.value and not selectors:
        raise UsageError(
            "--by option needs an option that selects processes", hint=_SELECTING
        )
    if track and not selectors:
        raise UsageError(
            "--track does not track all processes: select some", hint=_SELECTING
        )
    if track:
        check_possible()
        return
    check_effect(_OF_TRACKING, "has no effect without --track")
    if textfile is None:
        check_effect(
            {"interval": "--interval"},
            "has no effect without --track or --textfile",
            "memory is read at each scrape",
        )


_SELECTING = "by --unit, --match, --cgroup, --container or --tree"
_OF_TRACKING = {
    "budget": "--budget",
    "no_restore_huge": "--no-restore-huge",
    "max_tables": "--max-tables",
}


def _registry() -> "CollectorRegistry":
    """Return an empty registry; it needs prometheus_client."""
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        from pagescan.model.extras import lacking

        raise lacking("the exporter", "prometheus_client", "exporter") from error
    return CollectorRegistry()


def _web_config(path: str | None) -> "WebConfig | None":
    if path is None:
        return None
    from pagescan.exporter.web_config import read

    try:
        return read(path)
    except ImportError as error:
        from pagescan.model.extras import lacking

        package = error.name or "a package"
        raise lacking("the exporter", package, "exporter") from error


def _textfile(
    path: str, registry: "CollectorRegistry", undo: contextlib.ExitStack
) -> "TextFile":
    from pagescan.exporter.textfile import TextFile

    file = undo.enter_context(TextFile(path, registry))
    file.check()
    return file


def _counter(
    collector: MemoryCollector, terms: Terms, stop: int, context: Context
) -> "WrittenCounter":
    """Return a counter that serves the collector; measure the cost of a write."""
    from pagescan.exporter.counters import WrittenCounter
    from pagescan.tracking.fault_cost import measured

    terms.fault = measured()
    context.detail(str(terms.fault))
    ready = select.poll()
    ready.register(stop, select.POLLIN)
    counter = WrittenCounter(
        collector.grouping,
        terms,
        context.say,
        end_early=lambda: bool(ready.poll(0)),
    )
    collector.counter = counter
    return counter


def _add_own_use(registry: "CollectorRegistry") -> None:
    """Add the exporter's own processor time, memory and descriptors."""
    from prometheus_client import ProcessCollector

    ProcessCollector(registry=registry)


def _raise_descriptors() -> None:
    """Allow as many descriptors as possible: a process needs up to five."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
