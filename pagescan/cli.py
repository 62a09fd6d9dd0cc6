"""The command group: loads commands when needed; the only place of exit codes."""

import gc
import json
import os
import re
import sys
from importlib import import_module
from typing import Any

import click

from pagescan import __version__
from pagescan.console.streams import OutputError, end_soon, finish, tell
from pagescan.model.errors import BY_ERRNO, PagescanError, UsageError

COMMANDS = {
    "watch": "Show live what a process writes, mapping by mapping.",
    "arm": "Start a tracking session and return.",
    "diff": "Show what was written since arm, or since the last --rearm.",
    "sessions": "List the tracking sessions.",
    "disarm": "End a tracking session.",
    "who": "Name the code and the threads that write a process's memory.",
    "scan": "List page regions by category, with the masks of PAGEMAP_SCAN.",
    "maps": "List the mappings with their pages by category.",
    "cow": "Count the shared pages that a process and its children have copied.",
    "dump-plan": "List the pages that a checkpoint has to store.",
    "changed": "Tell by the exit code whether anything was written.",
    "exporter": "Serve the memory of groups of processes as metrics for Prometheus.",
    "record": "Keep every look at a target in a file.",
    "report": "Show a recording: totals, phases, ages, heat map, migration.",
    "doctor": "Show what this kernel supports and this user may do.",
    "demo": "Run a workload that knows what it writes, and check the result.",
    "schema": "Print the JSON Schema of every output.",
    "completion": "Print the completion script for a shell.",
}
# Names of commands to come: they are refused, so that no process name or script comes
# to rely on another meaning.
LATER = ("snapshot", "export")


class ReaderGoneError(Exception):
    """The reader of stdout went away: a success, which click would end with 1."""


class HelpWantedError(Exception):
    """The command line is empty; click's own reaction depends on its version."""


class LazyGroup(click.Group):
    """Loads a command's file when the command is called."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's, passed on
    ) -> click.Context:
        """Parse the words; keep click away from a reader of --help that goes away."""
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; keep click away from a reader that goes away."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command and return it; None if no command has that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"pagescan.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        if not gc.isenabled():  # __main__ turned it off
            gc.freeze()
            gc.enable()
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept the options of all commands also before the command."""
        args = _behind_the_command(args)
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        if not args and not ctx.resilient_parsing:
            raise HelpWantedError(ctx.get_help())
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; suggest the nearest one if the name is unknown."""
        name = args[0]
        if name in LATER:
            raise UsageError(f"{name!r} does not exist yet: the name is reserved")
        if name not in COMMANDS and not name.startswith("-"):
            from pagescan.commands.near_misses import command_meant

            hint = command_meant(name, list(COMMANDS))
            raise UsageError(f"no such command: {name!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Offer the commands without loading them."""
        from click.shell_completion import CompletionItem

        names = [CompletionItem(name, help=words) for name, words in COMMANDS.items()]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """List the commands without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


_OF_ALL = re.compile(
    r"-[qv]+|--quiet|--verbose|--debug|--(color|max-stall|max-tables)=.*"
)
_WITH_VALUE = ("--color", "--max-stall", "--max-tables")


def _behind_the_command(words: list[str]) -> list[str]:
    """Move the options of all commands from before the command to behind it.

    Without a command they have no effect.
    """
    count = 0
    while count < len(words):
        if words[count] in _WITH_VALUE:
            count += 2
        elif _OF_ALL.fullmatch(words[count]):
            count += 1
        else:
            break
    if words[count : count + 1] == [] or words[count].startswith("-"):
        return words[count:]
    return [*words[count : count + 1], *words[:count], *words[count + 1 :]]


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  pagescan watch redis-server
  pagescan arm 4242; pagescan diff --since-wp --json | jq .summary
  pagescan doctor""",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Show which pages a live process has written, exactly and almost for free.

    Options of all commands may also stand before the command.
    """
    from pagescan.console.context import Context

    ctx.obj = Context()


def run(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; no traceback without --debug.

    When it returns, all output has arrived at stdout, or the exit code is 1 and stderr
    says so; a reader that went away is no failure.
    """
    words = sys.argv[1:] if argv is None else argv
    if "_PAGESCAN_COMPLETE" in os.environ:
        import_module("pagescan.commands.shells")
    try:
        code = _invoke(words)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderGoneError):
        # Nothing more may be flushed to that stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as error:
        return fail(words, error)
    failure = finish()
    if isinstance(failure, BrokenPipeError):
        return 0
    if failure is not None and code not in (PagescanError.code, 130):
        return fail(words, failure)
    return code


def _invoke(words: list[str]) -> int:
    try:
        result = cli.main(args=words, prog_name="pagescan", standalone_mode=False)
    except (BrokenPipeError, ReaderGoneError):
        raise
    except HelpWantedError as error:
        sys.stderr.write(f"{error}\n")
        return UsageError.code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - one line for all
        return fail(words, error)
    return result if isinstance(result, int) else 0


def _explain(error: BaseException) -> tuple[str, str | None, int]:
    """Return the failure with its reason, a remedy, and the exit code."""
    match error:
        case click.ClickException():
            from pagescan.commands.near_misses import explain

            return *explain(error), UsageError.code
        case PagescanError():
            return str(error), error.hint, error.code
        case KeyboardInterrupt() | click.Abort():
            return "interrupted", None, 130
        case MemoryError():
            return "out of memory", None, PagescanError.code
        case OSError():
            return _reason(error), None, PagescanError.code
        case _:
            pass
    return *_internal(error), PagescanError.code


def _internal(error: BaseException) -> tuple[str, str]:
    """Return the failure of pagescan itself: of its installation, or else a bug."""
    if isinstance(error, ImportError):
        from pagescan.native.loading import ShimError

        if isinstance(error, ShimError):
            return str(error), error.hint
    what = f"internal error: {type(error).__name__}: {error}"
    return what, "please report it, with the output of --debug"


def _reason(error: OSError) -> str:
    if isinstance(error, OutputError):
        return str(error)
    if error.errno in BY_ERRNO:
        return BY_ERRNO[error.errno][0]
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}".lower() + where


def fail(words: list[str], error: BaseException) -> int:
    """Report an error on stderr, or as JSON if that was asked for; return its code."""
    message, hint, code = _explain(error)
    if isinstance(error, KeyboardInterrupt):
        end_soon()
    if code == 1 and _behind_the_command(words)[:1] == ["changed"]:
        code = 2  # 1 means there: nothing was written
    details = error.details if isinstance(error, PagescanError) else ()
    if "--" in words:  # the words behind it belong to CMD
        words = words[: words.index("--")]
    if "--debug" in words:
        import traceback

        for line in traceback.format_exc().splitlines():
            tell(line, whole=True)
    message = " ".join(message.splitlines())
    if "--json" in words or "--jsonl" in words:
        from pagescan.render.document import document

        keys = document("error", code=code, error=message, hint=hint, details=details)
        tell(json.dumps(keys), whole=True)
        return code
    if code == 2 or not message.startswith("pagescan"):
        message = f"pagescan: {message[:1].lower()}{message[1:].rstrip('.')}"
    tell(f"{message}:" if details else message)
    for line in details:
        tell(line, whole=True)
    if hint:
        tell(f"hint: {hint}", whole=True)
    return code
