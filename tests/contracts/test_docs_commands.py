"""The commands in README, guides and -h: each parses, and the shells leave it alone.

They are not run: a command, option or value that is gone is found all the same.
"""

import re
import shlex
from importlib import import_module
from pathlib import Path

import click
import pytest

from pagescan.cli import COMMANDS
from pagescan.console.context import Context
from tests.conftest import HERE

ROOT = HERE.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_WORDS = re.compile(r"'[^']*'|\"[^\"]*\"")
_GLOB = re.compile(r"[*?\[]")


def commands_in(page: Path) -> list[str]:
    """Return the pagescan commands in the blocks and transcripts of a page."""
    text = page.read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    lines += re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    lines += re.findall(r"^<!-- (?:screen|output) [^:]*: (.*) -->$", text, re.MULTILINE)
    lines += re.findall(r"`(pagescan [a-z-]+ [^`]*)`", text)
    return [
        part.strip()
        for line in lines
        if re.search(r"\bpagescan [a-z-]", line) and not line.startswith("cc ")
        for part in _parts(line)
        if part.strip().startswith("pagescan ")
    ]


def _parts(line: str) -> list[str]:
    """Divide a line at pipes and semicolons outside of quotes; leave out a comment."""
    lexer = shlex.shlex(line, posix=False, punctuation_chars="|;&()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    parts = [""]
    for word in lexer:
        if set(word) <= set("|;&()"):
            parts.append("")
        else:
            parts[-1] += f" {word}"
    return parts


def commands_in_help(name: str) -> list[str]:
    """Return the examples of a command's -h."""
    command = import_module(f"pagescan.commands.{name.replace('-', '_')}").command
    lines = [line for line in command.epilog.splitlines() if line.startswith("  ")]
    return [
        part.strip()
        for line in lines
        for part in _parts(line)
        if part.strip().startswith("pagescan ")
    ]


def _is_pattern(line: str) -> bool:
    """Whether a word stands for others, so that the line itself cannot run."""
    words = line.split()[1:]
    return words[0] not in COMMANDS or "TARGET" in line or "PID" in words


EVERY = sorted(
    {(page.name, line) for page in PAGES for line in commands_in(page)}
    | {(f"{name} -h", line) for name in COMMANDS for line in commands_in_help(name)}
)
ALL = [(page, line) for page, line in EVERY if not _is_pattern(line)]


def test_there_are_commands() -> None:
    """Otherwise the tests below would look at nothing."""
    assert len(ALL) > 60
    assert {"README.md", "guide.md"} <= {page for page, _ in ALL}


@pytest.mark.parametrize(("page", "line"), ALL)
def test_command_parses(page: str, line: str) -> None:
    """Its command, options and their values exist."""
    words = shlex.split(re.sub(r"[<>].*", "", line))[1:]
    words = [word for word in words if word not in ("…", "...", "[OPTIONS]")]
    command: click.Command = import_module(
        f"pagescan.commands.{words[0].replace('-', '_')}"
    ).command
    try:
        command.make_context(words[0], words[1:], obj=Context())
    except click.UsageError as error:
        pytest.fail(f"{page}: {line}: {error.format_message()}")


def test_patterns_name_commands() -> None:
    """A line with PID or TARGET in it names a command that exists, too."""
    first = {line.split()[1] for _, line in EVERY if _is_pattern(line)}
    assert first <= {*COMMANDS, "help", "-h", "--version", "COMMAND", "--help"}


@pytest.mark.parametrize(("page", "line"), EVERY)
def test_patterns_are_quoted(page: str, line: str) -> None:
    """A bracket or a star without quotes is an error in zsh, and a file in bash."""
    bare = _WORDS.sub("", line)
    assert not _GLOB.search(bare), f"{page}: {line}"
