"""The options that select a group: what a command gets, and every refusal."""

import os

import click
import pytest
from click.testing import CliRunner

from pagescan.commands.group_options import groups_option, subject_argument
from pagescan.commands.options import ranges_argument
from pagescan.model.errors import UsageError
from pagescan.target.group import Cgroup, Match, Selector, Tree, Unit
from pagescan.target.selection import Selection

ID = "0123456789ab"


def parsed(*words: str) -> tuple[int | Selector, Selection]:
    """Return what a command with RANGE words gets."""
    got = []

    @click.command()
    @subject_argument
    @ranges_argument
    def command(subject: int | Selector, selection: Selection) -> None:
        got.append((subject, selection))

    CliRunner().invoke(command, words, catch_exceptions=False)
    return got[0]


def parsed_alone(*words: str) -> int | Selector:
    """Return what a command without RANGE words gets."""
    got = []

    @click.command()
    @subject_argument
    def command(subject: int | Selector) -> None:
        got.append(subject)

    CliRunner().invoke(command, words, catch_exceptions=False)
    return got[0]


def test_one_process() -> None:
    """Without an option TARGET is a pid or a name, and the others are ranges."""
    subject, selection = parsed(str(os.getpid()), "[heap]")
    assert subject == os.getpid()
    assert selection.words == ["[heap]"]


def test_a_tree() -> None:
    """--tree needs a TARGET, its root."""
    subject, selection = parsed("--tree", str(os.getpid()), "[heap]", "[stack]")
    assert subject == Tree.of(os.getpid())
    assert selection.words == ["[heap]", "[stack]"]


@pytest.mark.parametrize(
    ("words", "selector"),
    [
        (("--cgroup", "/a/"), Cgroup("/a")),
        (("--unit", "nginx"), Unit("nginx.service")),
        (("--match", "^ng"), Match("^ng")),
    ],
)
def test_a_group(words: tuple[str, ...], selector: Selector) -> None:
    """The other options stand without TARGET; all words are ranges then."""
    subject, selection = parsed(*words, "[heap]", "[stack]")
    assert subject == selector
    assert selection.words == ["[heap]", "[stack]"]
    assert parsed_alone(*words) == selector
    assert parsed(*words)[1].words == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "TARGET is missing"),
        (("--tree",), "TARGET is missing"),
        (("--tree", "--unit", "a", "1"), "--tree and --unit exclude each other"),
        (("--unit", "a", "--match", "b"), "--unit and --match exclude each other"),
        (("--match", "b", "--oldest"), "--oldest and --match exclude each other"),
        (("--match", "b", "42"), "--match and TARGET exclude each other"),
        (("--container", "web"), "malformed container id"),
    ],
)
def test_refusals(words: tuple[str, ...], said: str) -> None:
    """What excludes each other is refused, before /proc is read."""
    with pytest.raises(UsageError, match=said):
        parsed(*words)
    with pytest.raises(UsageError, match=said):
        parsed_alone(*words)


def test_a_name_beside_a_group() -> None:
    """Where there are no ranges, any word is a TARGET too many."""
    with pytest.raises(UsageError, match="--unit and TARGET exclude each other"):
        parsed_alone("--unit", "a", "redis")


def test_repeated_options() -> None:
    """A command of several groups gets one selector per option."""
    got = []

    @click.command()
    @groups_option
    def command(groups: list[Selector]) -> None:
        got.extend(groups)

    words = ["--unit", "b", "--cgroup", "/x", "--unit", "a"]
    CliRunner().invoke(command, words, catch_exceptions=False)
    assert got == [Cgroup("/x"), Unit("b"), Unit("a")]
