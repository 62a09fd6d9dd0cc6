"""The options that several commands share, and the values of their words."""

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pagescan.commands.streams import tell
from pagescan.model.errors import UsageError
from pagescan.model.memory import CATEGORY_NAMES, NO_CATEGORY, Category, Untracked
from pagescan.model.results import Output
from pagescan.model.units import escape, parse_seconds, parse_size
from pagescan.native import Pace, Progress
from pagescan.target.find import find_pid, processes
from pagescan.target.process import read_stat
from pagescan.target.selection import Selection

if TYPE_CHECKING:
    _Type = click.ParamType[Category]
else:
    _Type = click.ParamType  # before click 8.4 the class takes no type


_COLOR = {"auto": None, "always": True, "never": False}
Command = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Common:
    """The settings of every command: how many messages, and which colours."""

    quiet: bool
    verbose: int
    color: bool | None
    """None: decided by the terminal and the environment."""

    def say(self, message: str) -> None:
        """Print a message on stderr, unless -q was given."""
        if not self.quiet:
            tell(f"pagescan: {message}")

    def hint(self, message: str) -> None:
        """Print a hint on stderr."""
        if not self.quiet:
            tell(f"hint: {message}")

    def detail(self, message: str) -> None:
        """Print a message that only -v shows."""
        if self.verbose and not self.quiet:
            tell(f"pagescan: {message}")

    def say_untracked(self, untracked: tuple[Untracked, ...]) -> None:
        """Print which memory is not tracked: one line per reason."""
        by_reason: dict[str, list[str]] = {}
        for item in untracked:
            by_reason.setdefault(item.why, []).append(escape(item.mapping))
        for why, names in by_reason.items():
            shown = ", ".join(dict.fromkeys(names[:4]))
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            self.say(f"not tracked: {shown}{more}: {why}")


def common(function: Command) -> Command:
    """Add -q, -v, --color and --debug; the command gets them as `common`."""

    @click.option(
        "-q", "--quiet", is_flag=True, help="Print no messages except errors."
    )
    @click.option(
        "-v", "--verbose", count=True, help="Print more messages; twice: still more."
    )
    @click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Whether to use colours; overrides NO_COLOR.",
    )
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(function)
    def wrapper(
        *args: Any, quiet: bool, verbose: int, color: str, debug: bool, **kwargs: Any
    ) -> Any:
        del debug  # cli.py looks for the word itself, because usage errors need it too
        told = Common(quiet, verbose, _COLOR[color])
        return function(*args, common=told, **kwargs)

    return wrapper


def output(*, by: bool = True) -> Callable[[Command], Command]:
    """Add the output options; the command gets them as `output`."""

    def decorate(function: Command) -> Command:
        @click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON document."
        )
        @click.option("--jsonl", is_flag=True, help="Print JSON, one line per region.")
        @click.option("--csv", is_flag=True, help="Comma-separated values.")
        @click.option(
            "-c",
            "--columns",
            metavar="A,B",
            help="Show these columns; +A,B adds them to the default.",
        )
        @click.option(
            "--no-header", is_flag=True, help="Leave out the line of column names."
        )
        @click.option(
            "--bytes",
            "exact",
            is_flag=True,
            help="Print sizes as exact numbers of bytes.",
        )
        @functools.wraps(function)
        def wrapper(
            *args: Any,
            as_json: bool,
            jsonl: bool,
            csv: bool,
            columns: str | None,
            no_header: bool,
            exact: bool,
            by: str = "region",
            **kwargs: Any,
        ) -> Any:
            forms = [
                name
                for name, on in (("json", as_json), ("jsonl", jsonl), ("csv", csv))
                if on
            ]
            if len(forms) > 1:
                raise UsageError(f"--{forms[0]} and --{forms[1]} exclude each other")
            chosen = Output(
                format=forms[0] if forms else _form_for_stdout(),
                columns=columns,
                header=not no_header,
                exact=exact,
                by=by,
                color=_COLOR[kwargs["color"]],
                progress=_writing_bar(by, quiet=kwargs["quiet"]),
            )
            return function(*args, output=chosen, **kwargs)

        if by:
            wrapper = click.option(
                "--by",
                type=click.Choice(["region", "mapping", "page"]),
                default="region",
                show_default=True,
                help="What one row stands for.",
            )(wrapper)
        return wrapper

    return decorate


def _writing_bar(by: str, *, quiet: bool) -> Progress | None:
    """Return the progress bar of the writing; none on a terminal."""
    if sys.stdout.isatty() or not _shows_progress(quiet=quiet):
        return None
    from pagescan.render.progress import WritingBar

    return WritingBar(f"{by}s")


def _shows_progress(*, quiet: bool) -> bool:
    return not quiet and sys.stderr.isatty() and _moves_cursor()


def _form_for_stdout() -> str:
    return "table" if sys.stdout.isatty() and _moves_cursor() else "plain"


def _moves_cursor() -> bool:
    return os.environ.get("TERM", "dumb") != "dumb"


def _complete_target(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[Any]:
    """Offer the pids of this user's processes, with their names."""
    from click.shell_completion import CompletionItem

    items = []
    for pid in processes():
        try:
            if os.stat(f"/proc/{pid}").st_uid != os.geteuid():
                continue
            name = read_stat(pid).name
        except OSError:
            continue
        if str(pid).startswith(incomplete):
            items.append(CompletionItem(str(pid), help=escape(name)))
    return items


def oldest_option(function: Command) -> Command:
    """Add --oldest; the command gets it as `oldest`."""
    return click.option(
        "--oldest",
        is_flag=True,
        help="If several processes have the name, take the oldest.",
    )(function)


def target_argument(function: Command) -> Command:
    """Add TARGET; the command gets a pid as `pid`, even if no such process exists."""

    @click.argument("target", metavar="TARGET", shell_complete=_complete_target)
    @oldest_option
    @functools.wraps(function)
    def wrapper(*args: Any, target: str, oldest: bool, **kwargs: Any) -> Any:
        return function(*args, pid=find_pid(target, oldest=oldest), **kwargs)

    return wrapper


def ranges_argument(function: Command) -> Command:
    """Add RANGE…; the command gets a `selection`."""

    @click.argument("ranges", metavar="[RANGE]...", nargs=-1)
    @functools.wraps(function)
    def wrapper(*args: Any, ranges: tuple[str, ...], **kwargs: Any) -> Any:
        return function(*args, selection=Selection.parse(ranges), **kwargs)

    return wrapper


def pace_option(function: Command) -> Command:
    """Add --max-stall; the command gets a `pace`."""

    @click.option(
        "--max-stall",
        metavar="TIME",
        default="200us",
        show_default=True,
        help="The longest time that one call may hold the target's mmap lock.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, max_stall: str, **kwargs: Any) -> Any:
        pace = Pace(max_stall_ns=max(1, int(parse_seconds(max_stall) * 1e9)))
        if not _shows_progress(quiet=kwargs["quiet"]):
            return function(*args, pace=pace, **kwargs)
        from pagescan.render.progress import Bar

        pace.progress = Bar()
        return function(*args, pace=pace, **kwargs)

    return wrapper


def tables_option(function: Command) -> Command:
    """Add --max-tables; the command gets `max_tables` in bytes."""

    @click.option(
        "--max-tables",
        metavar="SIZE",
        default="16M",
        show_default=True,
        help="Limit of page tables for holes of shared memory.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, max_tables: str, **kwargs: Any) -> Any:
        return function(*args, max_tables=parse_size(max_tables), **kwargs)

    return wrapper


def restore_option(function: Command) -> Command:
    """Add --no-restore-huge; the command gets `restore_huge`."""

    @click.option(
        "--no-restore-huge",
        is_flag=True,
        help="Do not put back the huge pages that tracking has split.",
    )
    @functools.wraps(function)
    def wrapper(*args: Any, no_restore_huge: bool, **kwargs: Any) -> Any:
        return function(*args, restore_huge=not no_restore_huge, **kwargs)

    return wrapper


class Categories(_Type):
    """A comma-separated list of categories."""

    name = "A,B"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Category:
        """Return the bits; raise UsageError for an unknown name."""
        if isinstance(value, Category):
            return value
        bits = NO_CATEGORY
        for word in str(value).split(","):
            try:
                bits |= Category.parse(word.strip())
            except KeyError as error:
                known = " ".join(name for _, name in CATEGORY_NAMES)
                raise UsageError(
                    f"unknown category: {word.strip()!r}", hint=f"there are: {known}"
                ) from error
        return bits

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Offer the categories, behind those already typed."""
        from click.shell_completion import CompletionItem

        before, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for _, name in CATEGORY_NAMES
            if name.startswith(last)
        ]
