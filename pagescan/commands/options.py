"""The options that several commands share, and the values of their words."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from pagescan.commands.completing import (
    complete_columns,
    complete_range,
    complete_target,
)
from pagescan.commands.forms import (
    check_columns,
    check_form,
    default_by,
    default_sort,
)
from pagescan.commands.values import SECONDS, SIZE
from pagescan.console.context import Context, moves_cursor
from pagescan.model.errors import UsageError
from pagescan.model.results import Output
from pagescan.native import Pace, Progress
from pagescan.target.find import find_pid
from pagescan.target.selection import Selection

_COLOR = {"auto": None, "always": True, "never": False}
Command = Callable[..., Any]
Words = dict[str, Any]
"""The values of a command's options, as click has read them."""


def shared(
    name: str, build: Callable[[Words], object], *options: Callable[[Command], Command]
) -> Callable[[Command], Command]:
    """Return a decorator that adds options or arguments to a command.

    Args:
        name: The keyword by which the command gets their one value.
        build: Removes their words from those of the command, and returns the value.
        options: The results of click's `option` and `argument`.
    """

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def wrapper(**words: Any) -> Any:
            return function(**{name: build(words)}, **words)

        command: Command = wrapper
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _context() -> Context:
    return click.get_current_context().ensure_object(Context)


def _checked_context() -> Context:
    """Return the context of a command line on which no value of an option is empty.

    An empty value comes from a variable that is not set. Taken for no value, it would
    be another command: one that runs without an end, or that takes all processes.
    """
    called = click.get_current_context()
    for parameter in called.command.params:
        value = called.params.get(parameter.name or "")
        if isinstance(parameter, click.Option) and value in ("", ("",)):
            option = max(parameter.opts, key=len)
            raise UsageError(f"{option} has an empty value")
    return _context()


def _set_quiet(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Context).quiet = value


def _set_verbose(ctx: click.Context, parameter: click.Parameter, value: int) -> None:
    ctx.ensure_object(Context).verbose = value


def _set_color(ctx: click.Context, parameter: click.Parameter, value: str) -> None:
    ctx.ensure_object(Context).color = _COLOR[value]


common = shared(
    "context",
    lambda _: _checked_context(),
    click.option(
        "-q",
        "--quiet",
        is_flag=True,
        expose_value=False,
        callback=_set_quiet,
        help="Print no messages except errors.",
    ),
    click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_set_verbose,
        help="Print more messages; twice: still more.",
    ),
    click.option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        expose_value=False,
        callback=_set_color,
        help="Whether to use colours; overrides NO_COLOR.",
    ),
    click.option(  # cli.py looks for the word itself, because usage errors need it too
        "--debug", is_flag=True, expose_value=False, help="Show tracebacks."
    ),
)
"""Adds -q, -v, --color and --debug; the command gets the run's `context`."""

_OPTIONS = {
    "by": click.option(
        "--by",
        type=click.Choice(["region", "mapping", "page"]),
        help="What one row stands for; default: region.",
    ),
    "by_process": click.option(
        "--by",
        type=click.Choice(["mapping", "process"]),
        help="What one row stands for; process is for a group.",
    ),
    "by_of_group": click.option(
        "--by",
        type=click.Choice(["region", "mapping", "page", "process"]),
        help="What one row stands for. Default: region; watch in a pipe, but not in"
        " JSON: mapping, of a group: process.",
    ),
    "json": click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document."
    ),
    "jsonl": click.option(
        "--jsonl", is_flag=True, help="Print JSON, one line per region."
    ),
    "csv": click.option("--csv", is_flag=True, help="Comma-separated values."),
    "columns": click.option(
        "-c",
        "--columns",
        metavar="A,B",
        shell_complete=complete_columns,
        help="Show these columns; +A,B adds them to the default.",
    ),
    "sort": click.option(
        "--sort",
        metavar="A,B",
        shell_complete=complete_columns,
        help="Sort the rows by these columns; -A: the largest first.",
    ),
    "header": click.option(
        "--no-header", is_flag=True, help="Leave out the line of column names."
    ),
    "exact": click.option(
        "--bytes",
        "exact",
        is_flag=True,
        help="Print sizes as exact numbers of bytes.",
    ),
}
_JSON = ("json", "jsonl")
_TABLE = (*_JSON, "csv", "columns", "header", "exact")
_OF_KIND = {
    "scan": ("by_of_group", *_TABLE, "sort"),
    "diff": ("by_of_group", *_TABLE, "sort"),
    "maps": ("by_process", *_TABLE, "sort"),
    "watch": ("by_of_group", *_TABLE, "sort"),
    "who": ("json", "csv", "header", "exact"),
    "sessions": (*_JSON, "csv", "header", "exact"),
    "doctor": (*_JSON, "csv", "header"),
    "report": ("json", "csv", "header", "exact"),
    "arm": _JSON,
    "cow": ("json", "csv", "header", "exact"),
    "disarm": _JSON,
    "demo": _JSON,
}
_LIVE = ("watch", "demo")


def output(kind: str = "", *, by: bool = True) -> Callable[[Command], Command]:
    """Add the output options that a command takes; it gets them as `output`.

    Args:
        kind: The command, if it takes other options than `by` says.
        by: Whether a row may stand for a region, a mapping or a page.
    """
    names = _OF_KIND.get(kind, ("by", *_TABLE) if by else _TABLE)
    return shared(
        "output",
        functools.partial(_output, kind),
        *(option for name, option in _OPTIONS.items() if name in names),
    )


def _output(kind: str, words: Words) -> Output:
    asked = {form: words.pop(word, False) for word, form in _FORM_WORDS.items()}
    forms = [form for form, on in asked.items() if on]
    if len(forms) > 1:
        raise UsageError(f"--{forms[0]} and --{forms[1]} exclude each other")
    context = _context()
    form = forms[0] if forms else form_for_stdout()
    by = words.pop("by", None)
    of_group = _is_of_group(words)
    if by == "process" and kind != "cow" and not of_group:
        raise UsageError(
            "--by process needs a group",
            hint="a group is given by --tree --cgroup --unit --container --match",
        )
    given = {
        "by": by,
        "columns": words.pop("columns", None),
        "sort": words.pop("sort", None),
        "header": words.pop("no_header", False),
        "exact": words.pop("exact", False),
    }
    check_form(_rules_of(kind, form), given)
    by = by or default_by(kind, form, of_group=of_group)
    made = Output(
        format=form,
        columns=given["columns"],
        header=not given["header"],
        exact=given["exact"],
        by=by,
        color=context.color,
        progress=_writing_bar(by) if context.shows_progress else None,
        sort=given["sort"] or default_sort(kind, form, by),
    )
    check_columns(made, kind)
    return made


def _is_of_group(words: Words) -> bool:
    """Whether the options of group_options.py, which are read first, name a group.

    `diff` without TARGET finds out later what the only session is of.
    """
    asked = words.get("asked")
    if asked is not None and not words.get("targets", True):
        return True
    return bool(asked and asked.given) or not isinstance(words.get("subject", 0), int)


_FORM_WORDS = {"as_json": "json", "jsonl": "jsonl", "csv": "csv"}


def _rules_of(kind: str, form: str) -> str:
    """Return the key of `OF_FORM` for a command and a format."""
    if form == "table" and kind in _LIVE:
        return "live"
    if form in ("json", "jsonl"):
        return "json"
    return "list" if kind == "doctor" and form != "csv" else form


def _writing_bar(by: str) -> Progress | None:
    """Return the progress bar of the writing; none on a terminal."""
    if sys.stdout.isatty():
        return None
    from pagescan.render.progress import WritingBar

    return WritingBar(f"{by}s")


def form_for_stdout() -> str:
    """Return the format where none is asked for: a table on a terminal only."""
    return "table" if sys.stdout.isatty() and moves_cursor() else "plain"


def oldest_option(function: Command) -> Command:
    """Add --oldest; the command gets it as `oldest`."""
    return click.option(
        "--oldest",
        is_flag=True,
        help="If several processes have the name, take the oldest.",
    )(function)


target_argument = shared(
    "pid",
    lambda words: find_pid(
        words.pop("target"), oldest=words.pop("oldest"), options="--oldest"
    ),
    click.argument("target", metavar="TARGET", shell_complete=complete_target),
    oldest_option,
)
"""Adds TARGET; the command gets a pid as `pid`, even if no such process exists."""

ranges_argument = shared(
    "selection",
    lambda words: Selection.parse(words.pop("ranges")),
    click.argument(
        "ranges", metavar="[RANGE]...", nargs=-1, shell_complete=complete_range
    ),
)
"""Adds RANGE…; the command gets a `selection`."""


_LONGEST_STALL = 3600 * 10**9
"""As good as no limit, and not beyond what a keeper accepts; nanoseconds."""


def _pace(words: Words) -> Pace:
    seconds: float = words.pop("max_stall")
    pace = Pace(max_stall_ns=max(1, min(round(seconds * 1e9), _LONGEST_STALL)))
    if _context().shows_progress:
        from pagescan.render.progress import Bar

        pace.progress = Bar()
    return pace


def pace_of(default: str) -> Callable[[Command], Command]:
    """Return a decorator that adds --max-stall; the command gets a `pace`."""
    return shared(
        "pace",
        _pace,
        click.option(
            "--max-stall",
            type=SECONDS,
            metavar="TIME",
            default=default,
            show_default=True,
            help="The longest time that one call may hold the target's mmap lock.",
        ),
    )


pace_option = pace_of("200us")

tables_option = shared(
    "max_tables",
    lambda words: words.pop("max_tables"),
    click.option(
        "--max-tables",
        type=SIZE,
        metavar="SIZE",
        default="16M",
        show_default=True,
        help="Limit of page tables for holes of shared memory.",
    ),
)
"""Adds --max-tables; the command gets `max_tables` in bytes."""

restore_option = shared(
    "restore_huge",
    lambda words: not words.pop("no_restore_huge"),
    click.option(
        "--no-restore-huge",
        is_flag=True,
        help="Do not put back the huge pages that tracking has split.",
    ),
)
"""Adds --no-restore-huge; the command gets `restore_huge`."""
