"""Explains a command line that click refuses: what is wrong, and what was meant.

It is loaded only after such an error.
"""

import contextlib
import os
from difflib import get_close_matches

import click

_PID = ("-p", "--pid", "--process")
_MEANT = {
    "-d": "--duration ends it, and -i sets the interval",
    "-t": "--duration ends it, and -i sets the interval",
    "-s": "-i sets the interval, and --sort the order",
    "--delay": "-i sets the interval",
    "--time": "--duration ends it after that time",
    "--timeout": "--duration ends it after that time",
    "--seconds": "--duration ends it after that time",
    "--from": "--time START-END shows a part",
    "--since": "--time START-END shows a part",
    "--until": "--time START-END shows a part",
    "--category": "--require lists categories",
    "--categories": "--require lists categories",
    "--filter": "a RANGE behind TARGET selects memory",
    "--port": "--listen HOST:PORT, as in --listen 127.0.0.1:9842",
    "--address": "--listen HOST:PORT, as in --listen 127.0.0.1:9842",
    "--format": "--json, --jsonl and --csv choose the format",
    "--limit": "-n ends it after that number of looks",
    "-f": "--tree takes the descendants of TARGET, too",
    "--follow": "--tree takes the descendants of TARGET, too",
    "--children": "--tree takes the descendants of TARGET, too",
    "--subprocesses": "--tree takes the descendants of TARGET, too",
    "-x": "--smaps adds private, shared and PSS",
    "-X": "--smaps adds private, shared and PSS",
    "--pss": "--smaps adds private, shared and PSS",
    "-g": "--callers shows who called the function",
    "--call-graph": "--callers shows who called the function",
    "-H": "--by thread shows the threads",
    "--threads": "--by thread shows the threads",
    "-a": "--all",
    "-V": "pagescan --version",
    "-o": "the result goes to stdout: > FILE",
    "--output": "the result goes to stdout: > FILE",
}
"""Options of other tools, and what does the same here."""
_ANSWERS = {
    ("who", "-n"): "--duration ends it after that time",
    ("cow", "-n"): "--duration ends it after that time",
    ("changed", "--json"): "the exit code is the answer: 0 written, 1 nothing; the"
    " pages: pagescan diff TARGET --json",
    ("changed", "--csv"): "the exit code is the answer: 0 written, 1 nothing; the"
    " pages: pagescan diff TARGET --csv",
}
_ELSEWHERE = {
    "--max-tables": "it belongs to arm, watch, who, record and exporter; a session"
    " keeps the limit of its arm",
    "--max-stall": "it belongs to the commands that scan a target",
}
"""Options that are known, but not to this command."""
_TAKES_CMD = ("watch", "who", "record")
_COMMANDS = {
    "start": "arm",
    "attach": "arm",
    "stop": "disarm",
    "detach": "disarm",
    "end": "disarm",
    "top": "watch",
    "leak": "watch",
    "leaks": "watch",
    "htop": "watch",
    "strace": "who",
    "perf": "who",
    "heap": "maps",
    "smem": "maps",
    "live": "watch",
    "monitor": "watch",
    "trace": "who",
    "list": "sessions",
    "ls": "sessions",
    "ps": "sessions",
    "status": "sessions",
    "stat": "maps",
    "smaps": "maps",
    "pmap": "maps",
    "fork": "cow",
    "serve": "exporter",
    "metrics": "exporter",
    "show": "report",
    "view": "report",
    "compare": "diff",
    "check": "doctor",
    "version": "--version",
}
"""What other tools call it."""


_WHICH = {"FILE": "recording"}


def command_meant(name: str, commands: list[str]) -> str:
    """Return the hint for a command that does not exist."""
    if name.isdigit() or _is_process(name):
        return f"did you mean pagescan watch {name}?"
    if known := _COMMANDS.get(name):
        return f"did you mean pagescan {known}?"
    near = get_close_matches(name, commands, 1, 0.65)
    return f"did you mean {near[0]}?" if near else "pagescan -h lists them"


def _is_process(name: str) -> bool:
    """Whether a process has this name in the kernel.

    To search as TARGET is searched would load the shim for a word that is no command.
    """
    wanted = os.fsencode(name)[:15] + b"\n"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
            if file.read() == wanted:
                return True
    return False


def explain(error: click.ClickException) -> tuple[str, str | None]:
    """Return the message, and a hint or None."""
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.BadOptionUsage):  # click gives it no context
        wrong = "takes no value" if "not take" in message else "needs a value"
        message, context = f"{error.option_name} {wrong}", None
    if context is None:
        return message[:1].lower() + message[1:], None
    path = context.command_path
    hint = f"{path} -h shows how it is called"
    match error:
        case click.NoSuchOption():
            return f"no such option {error.option_name!r}", _option_meant(error, hint)
        case click.MissingParameter() if isinstance(error.param, click.Argument):
            return _missing(error.param, path, hint)
        case click.BadParameter() if isinstance(
            getattr(error.param, "type", None), click.Choice
        ):
            return _no_choice(error, hint)
        case _:
            pass
    if message.startswith("Got unexpected extra argument"):
        return _too_many(context, message.partition("(")[2].rstrip(")"), hint)
    return message[:1].lower() + message[1:], hint


def _too_many(context: click.Context, given: str, hint: str) -> tuple[str, str]:
    """Return what is wrong with words that a command does not take."""
    from pagescan.commands.values import option_name  # a wrong command needs none

    command, names = (
        context.info_name,
        [option_name(one).strip("[].") for one in _arguments(context)],
    )
    if names:
        return f"{command} takes one {names[0]}, and nothing behind it: {given}", hint
    if command == "exporter":
        hint = f"did you mean pagescan exporter --tree {given}?"
    return f"{command} takes no argument: {given!r}", hint


def _arguments(context: click.Context) -> list[click.Parameter]:
    params = context.command.params
    return [param for param in params if isinstance(param, click.Argument)]


def _option_meant(error: click.NoSuchOption, hint: str) -> str:
    """Return a hint that names the option that was meant, if that is known."""
    name, context = error.option_name, error.ctx
    if context is None:
        return hint
    path, own = context.command_path, context.info_name or ""
    if isinstance(context.command, click.Group) and name in _PID:
        return f"TARGET needs no option: {path} watch PID"
    if isinstance(context.command, click.Group) and name not in _MEANT:
        return f"the options of a command come behind it: {path} COMMAND {name}"
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    if name in _PID and _arguments(context):
        return f"TARGET needs no option: {path} PID"
    known = [one for param in context.command.params for one in param.opts]
    meant = _ANSWERS.get((own, name)) or _MEANT.get(name)
    near = get_close_matches(name, known, 1, 0.75) if name.startswith("--") else []
    if near:
        hint = f"did you mean {near[0]}?"
    elif (meant and (own, name) in _ANSWERS) or (meant and _applies(meant, known)):
        hint = meant
    if own in _TAKES_CMD and not near:
        hint += f"; a command to start comes behind --: {path} -- CMD"
    return hint


def _applies(meant: str, known: list[str]) -> bool:
    """Whether the command has the options that a hint names."""
    words = [word.strip(",:") for word in meant.split()]
    options = [word for word in words if word.startswith("-") and word != "--version"]
    return all(option in known for option in options)


def _missing(param: click.Argument, path: str, hint: str) -> tuple[str, str]:
    if isinstance(param.type, click.Choice):
        choices = " ".join(map(str, param.type.choices))
        return "an argument is missing", f"{path} takes one of: {choices}"
    name = (param.metavar or param.name or "").rstrip(".")
    if name == "TARGET":
        return "which process? TARGET is missing", f"give a pid or a name: {path} PID"
    return f"which {_WHICH.get(name, 'one')}? {name} is missing", hint


def _no_choice(error: click.BadParameter, hint: str) -> tuple[str, str]:
    """Return what an option takes, and the nearest of it to what was given."""
    from pagescan.commands.values import option_name  # as above

    param = error.param
    choices = [str(one) for one in getattr(getattr(param, "type", 0), "choices", ())]
    given = error.message.partition("'")[2].partition("'")[0]
    message = f"{given!r} is not one of {' '.join(choices)}"
    before = ""
    if isinstance(param, click.Option):
        before = f"{option_name(param)} "
        message = f"{before[:-1]}: {message}"
    near = get_close_matches(given, choices, 1)
    return message, f"did you mean {before}{near[0]}?" if near else hint
