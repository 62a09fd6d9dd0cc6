"""The options that select a group of processes in place of one TARGET.

A command that takes both stands on `subject_argument`, above `ranges_argument` if it
has one. It gets `subject`: a pid, or a `Selector` of target/group.py. A command without
TARGET, whose options may be repeated, stands on `groups_option`.
"""

from collections.abc import Callable

import click

from pagescan.commands.completing import complete_target
from pagescan.commands.options import (
    Command,
    Words,
    oldest_option,
    shared,
)
from pagescan.model.errors import UsageError
from pagescan.target.find import find_pid
from pagescan.target.group import (
    Cgroup,
    Container,
    Match,
    Selector,
    Tree,
    Unit,
)

_KINDS: dict[str, Callable[[str], Selector]] = {
    "cgroup": Cgroup,
    "unit": Unit,
    "container": Container,
    "match": Match,
}
_HELP = {
    "cgroup": ("PATH", "The processes of a cgroup, as /proc/PID/cgroup shows it."),
    "unit": ("NAME", "The processes of a systemd unit."),
    "container": ("ID", "The processes of a container."),
    "match": ("REGEX", "The processes whose name or command line matches."),
}


def _options(*, repeated: bool) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            f"--{kind}", f"group_{kind}", metavar=what, multiple=repeated, help=text
        )
        for kind, (what, text) in _HELP.items()
    ]


def _subject(words: Words) -> int | Selector:
    """Return what TARGET and the options select; RANGE words stay with the command."""
    target = words.pop("target")
    oldest, tree = words.pop("oldest"), words.pop("tree")
    asked = {kind: words.pop(f"group_{kind}") for kind in _KINDS}
    given = [kind for kind, name in asked.items() if name is not None]
    if len(given) + tree > 1:
        first, second = (["tree"] * tree + given)[:2]
        raise UsageError(f"--{first} and --{second} exclude each other")
    if not given:
        return _one_or_its_tree(target, oldest=oldest, tree=tree)
    (kind,) = given
    if oldest:
        raise UsageError(f"--oldest and --{kind} exclude each other")
    if target is not None:
        if "ranges" not in words or (target.isascii() and target.isdigit()):
            raise UsageError(
                f"TARGET and --{kind} exclude each other: {target!r}",
                hint=f"--{kind} alone selects the processes",
            )
        words["ranges"] = (target, *words["ranges"])  # the first word is a RANGE then
    return _KINDS[kind](asked[kind])


def _one_or_its_tree(target: str | None, *, oldest: bool, tree: bool) -> int | Selector:
    if target is None:
        raise UsageError(
            "TARGET is missing",
            hint="give a pid or a name, or one of --cgroup --unit --container --match",
        )
    pid = find_pid(target, oldest=oldest)
    return Tree.of(pid) if tree else pid


subject_argument = shared(
    "subject",
    _subject,
    click.argument(
        "target", metavar="TARGET", required=False, shell_complete=complete_target
    ),
    oldest_option,
    click.option("--tree", is_flag=True, help="TARGET and its descendants."),
    *_options(repeated=False),
)
"""Adds TARGET and the options of a group; the command gets a `subject`."""


def _groups(words: Words) -> list[Selector]:
    asked = {kind: words.pop(f"group_{kind}") for kind in _KINDS}
    return [_KINDS[kind](name) for kind, names in asked.items() for name in names]


groups_option = shared("groups", _groups, *_options(repeated=True))
"""Adds the options, each of which may be repeated; the command gets a list `groups`."""
