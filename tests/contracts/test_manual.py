"""The manual page and the guide's tables describe the whole command line."""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import click
import pytest

from pagescan.cli import COMMANDS, LATER
from pagescan.model import errors
from pagescan.model.memory import CATEGORY_NAMES
from pagescan.render.columns import MAPPING_COLUMNS, REGION_COLUMNS
from tests.conftest import command

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "man/pagescan.1").read_text().replace("\\-", "-")
README = (ROOT / "README.md").read_text()
GUIDE = (ROOT / "docs/guide.md").read_text()


def of(name: str) -> click.Command:
    """Return one command."""
    found: click.Command = import_module(
        f"pagescan.commands.{name.replace('-', '_')}"
    ).command
    return found


def options(command: click.Command) -> Iterator[tuple[str, click.Option]]:
    """Yield each spelling of each option of a command."""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for word in chain(parameter.opts, parameter.secondary_opts):
                yield word, parameter


OPTIONS = sorted({(name, word) for name in COMMANDS for word, _ in options(of(name))})
CODES = sorted(
    {
        kind.code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.PagescanError)
    }
    | {0, 130}
)


def section(title: str) -> str:
    """Return one section of the manual page, or one subsection."""
    found = re.search(
        rf"^\.S[sh] {title}\n(.*?)(?=^\.Sh |\Z)", MANUAL, re.MULTILINE | re.DOTALL
    )
    assert found is not None, title
    return found[1]


def says(pattern: str, *titles: str) -> bool:
    """Whether a line in one of the given sections of the manual matches."""
    return any(re.search(pattern, section(title), re.MULTILINE) for title in titles)


def names(word: str) -> str:
    """Return the pattern of a word as an argument of Cm, anywhere in its list."""
    return rf"^\.(It |Op )?.*\bCm (.* )?{re.escape(word)}( |$)"


@pytest.mark.parametrize(("name", "word"), OPTIONS)
def test_option_is_in_the_manual(name: str, word: str) -> None:
    """Each option has an entry in the section of the options."""
    flag = word.removeprefix("-")
    entry = rf"^\.It (Fl \S+ (Ar \S+ )?, )?Fl {re.escape(flag)}( |$)"
    assert says(entry, "OPTIONS"), f"{word} of {name} is missing"


def test_manual_has_no_other_options() -> None:
    """Every option in the manual exists."""
    entries = re.findall(r"^\.It (Fl .*)", section("OPTIONS"), re.MULTILINE)
    flags = chain.from_iterable(re.findall(r"Fl (\S+)", entry) for entry in entries)
    promised = {f"-{flag}" for flag in flags}
    there = {word for _, word in OPTIONS} | {"-h", "--help", "--version"}
    assert promised - there - NOT_YET == set()


NOT_YET = {"--budget"}
"""Commands that the manual promises and that are being written."""


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_described(name: str) -> None:
    """Each command is in the synopsis, in the list, and in the README's table."""
    assert says(names(name), "SYNOPSIS")
    assert says(rf"^\.It Cm {name}$", "DESCRIPTION")
    assert re.search(rf"^\|[^|]*`{name}[ `]", README, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(name: str) -> None:
    """Each command's help has an example, and each option has an explanation."""
    assert f"pagescan {name}" in str(of(name).epilog)
    assert [word for word, option in options(of(name)) if not option.help] == []


def test_reserved_names_are_in_the_manual() -> None:
    """The manual says that names of later commands are reserved."""
    for name in LATER:
        assert says(names(name), "DESCRIPTION"), name


@pytest.mark.parametrize("code", CODES)
def test_exit_code_is_documented(code: int) -> None:
    """Each exit code is in the manual and in the guide's table."""
    assert says(rf"^\.It {code}$", "EXIT STATUS")
    assert re.search(rf"^\| {code} \|", GUIDE, re.MULTILINE)


def test_no_other_exit_code_is_documented() -> None:
    """The documents list no exit code that does not exist."""
    assert re.findall(r"^\.It (\d+)$", section("EXIT STATUS"), re.MULTILINE) == [
        str(code) for code in CODES
    ]
    assert re.findall(r"^\| (\d+) \|", GUIDE, re.MULTILINE) == [
        str(code) for code in CODES
    ]


CATEGORIES = " ".join(name for _, name in CATEGORY_NAMES)


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("pagescan/commands/scan.py", f"Categories: {CATEGORIES}."),
        ("docs/concepts.md", f"one of `{CATEGORIES}`"),
        ("man/pagescan.1", f".It Cm {CATEGORIES.replace(' ', ' , ')}\n"),
    ],
)
def test_categories_are_those_of_the_table(place: str, text: str) -> None:
    """Each list of all categories is that of model/memory.py, in its order."""
    assert text in (ROOT / place).read_text()


def test_categories_of_the_schema() -> None:
    """The schema's list is that of model/memory.py, too."""
    schema = json.loads((ROOT / "pagescan/schema.json").read_text())
    assert schema["$defs"]["category"]["enum"] == CATEGORIES.split()


NAMES = sorted(
    {name for _, name in CATEGORY_NAMES} | {*REGION_COLUMNS, *MAPPING_COLUMNS}
)


@pytest.mark.parametrize("name", NAMES)
def test_column_is_in_the_manual(name: str) -> None:
    """Each category and each column is explained."""
    assert says(rf"^\.It Cm (.* )?{name}( |$)", "DESCRIPTION", "COLUMNS"), name


def keys_of(schema: Any) -> Iterator[str]:
    """Yield the name of every key in a schema."""
    if isinstance(schema, dict):
        for name, value in schema.items():
            if name == "properties":
                yield from value
                yield from keys_of(list(value.values()))
            else:
                yield from keys_of(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from keys_of(value)


KEYS = sorted(set(keys_of(json.loads((ROOT / "pagescan/schema.json").read_text()))))


@pytest.mark.parametrize("key", KEYS)
def test_key_is_in_the_manual(key: str) -> None:
    """Each key of the JSON output is explained."""
    assert says(names(key), "JSON"), f"{key} is missing"


OF_ALL = ["-q", "-v", "--debug", "--color=never"]


@pytest.mark.parametrize("word", OF_ALL)
def test_options_of_all_stand_anywhere(word: str) -> None:
    """The options of all commands may also stand before the command."""
    before, behind = command(word, "schema"), command("schema", word)
    assert (before.code, before.stdout) == (behind.code, behind.stdout)
    assert before.code == 0


def test_options_of_all_are_heeded_before_the_command() -> None:
    """They have the same effect there; other words belong to the command."""
    assert command("-q", "sessions").stderr == ""
    assert "no session" in command("sessions").stderr
    assert "Traceback" in command("--debug", "-v", "scan", 4194303).stderr
    assert "'sometimes'" in command("--color", "sometimes", "schema").stderr
    assert command("--json", "sessions").code == 2
    assert command("-q", "--version").stdout.startswith("pagescan ")
    assert command("-q").code == 2


def test_words_of_a_command_are_its_own() -> None:
    """Words behind -- do not change the form in which pagescan reports an error."""
    result = command("watch", "--", "no-such-command", "--json", "--debug")
    assert result.stderr.splitlines()[0].startswith("pagescan: cannot run")
