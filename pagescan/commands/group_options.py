"""The options that select a group of processes in place of one TARGET.

A command that takes both stands on `subject_argument`, above `ranges_argument` if it
has one. It gets `subject`: a pid, or a `Selector` of target/group.py. A command that
reads TARGET itself stands on `group_option`, and asks `Asked.subject`. A command
without TARGET, whose options may be repeated, stands on `groups_option`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

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

if TYPE_CHECKING:
    from pagescan.target.group import Selector

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


def _selector(kind: str, name: str) -> "Selector":
    """Return a group; only commands for a group load `target.group`."""
    from pagescan.target import group

    kinds: dict[str, Callable[[str], Selector]] = {
        "cgroup": group.Cgroup,
        "unit": group.Unit,
        "container": group.Container,
        "match": group.Match,
    }
    return kinds[kind](name)


def _tree(pid: int) -> "Selector":
    from pagescan.target.group import Tree

    return Tree.of(pid)


class Asked(NamedTuple):
    """The options that select a group, as they were given.

    Attributes:
        tree: Whether TARGET is the root of a tree.
        kind: cgroup, unit, container or match; "": none of them.
        name: Its value.
    """

    tree: bool
    kind: str
    name: str

    @property
    def given(self) -> str:
        """The option; "" if no group is selected."""
        return f"--{self.kind}" if self.kind else "--tree" if self.tree else ""

    def subject(
        self, words: tuple[str, ...], *, oldest: bool
    ) -> "tuple[int | Selector, tuple[str, ...]]":
        """Return the selected process or group, and the RANGE words.

        Args:
            words: TARGET and RANGE words; with a group other than a tree, all are
                RANGE words.
            oldest: Whether --oldest was given.

        Raises:
            UsageError: TARGET is missing, or there is one too many.
        """
        if not self.kind:
            if not words:
                raise UsageError(
                    "which process? TARGET is missing",
                    hint="give a pid or a name, or --cgroup --unit --container --match",
                )
            pid = self._pid(words[0], oldest=oldest)
            return _tree(pid) if self.tree else pid, words[1:]
        if oldest:
            raise UsageError(f"--oldest and {self.given} exclude each other")
        if words and words[0].isascii() and words[0].isdigit():
            raise self.too_many(words[0])
        return _selector(self.kind, self.name), words

    def of_session(self, words: tuple[str, ...], *, oldest: bool) -> tuple[str, str]:
        """Return the kind and the name of the group that a session is of.

        Args:
            words: TARGET: the root of a tree, which may have ended.
            oldest: Whether --oldest was given.

        Raises:
            UsageError: TARGET is missing, or there is one too many.
        """
        if self.kind:
            if oldest:
                raise UsageError(f"--oldest and {self.given} exclude each other")
            if words:
                raise self.too_many(words[0])
            return self.kind, _selector(self.kind, self.name).name
        if not words:
            raise UsageError(
                "which tree? TARGET is missing", hint="give the pid of its root"
            )
        return "tree", str(self._pid(words[0], oldest=oldest))

    def _pid(self, target: str, *, oldest: bool) -> int:
        """Return the process; with --tree, the root of those that have the name."""
        options = "--oldest" if self.tree else "--oldest --tree"
        return find_pid(target, oldest=oldest, tree=self.tree, options=options)

    def too_many(self, target: str) -> UsageError:
        """Return the error for a TARGET beside a group."""
        return UsageError(
            f"{self.given} and TARGET exclude each other: {target!r}",
            hint=f"{self.given} alone selects the processes",
        )


def _asked(words: Words) -> Asked:
    tree = words.pop("tree")
    names = {kind: words.pop(f"group_{kind}") for kind in _HELP}
    given = [kind for kind, name in names.items() if name is not None]
    if len(given) + tree > 1:
        first, second = (["tree"] * tree + given)[:2]
        raise UsageError(f"--{first} and --{second} exclude each other")
    kind = given[0] if given else ""
    return Asked(tree, kind, names[kind] if kind else "")


_GROUP: list[Callable[[Command], Command]] = [
    click.option("--tree", is_flag=True, help="TARGET and its descendants."),
    *_options(repeated=False),
]
group_option = shared("asked", _asked, *_GROUP)
"""Adds the options of a group alone; the command gets them as `asked`."""


def _subject(words: Words) -> "int | Selector":
    """Return what TARGET and the options select; RANGE words stay with the command."""
    asked, target = _asked(words), words.pop("target")
    given = () if target is None else (target, *words.get("ranges", ()))
    subject, ranges = asked.subject(given, oldest=words.pop("oldest"))
    if "ranges" in words:
        words["ranges"] = ranges
    elif ranges:
        raise asked.too_many(ranges[0])
    return subject


subject_argument = shared(
    "subject",
    _subject,
    click.argument(
        "target", metavar="TARGET", required=False, shell_complete=complete_target
    ),
    oldest_option,
    *_GROUP,
)
"""Adds TARGET and the options of a group; the command gets a `subject`."""


def _groups(words: Words) -> "list[Selector]":
    asked = {kind: words.pop(f"group_{kind}") for kind in _HELP}
    return [_selector(kind, name) for kind, names in asked.items() for name in names]


groups_option = shared("groups", _groups, *_options(repeated=True))
"""Adds the options, each of which may be repeated; the command gets a list `groups`."""
