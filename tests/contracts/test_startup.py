"""Checks which modules a command loads before it works, since start-up is promised.

Modules are counted, not timed: the count is the same on every machine.
"""

import os
import subprocess
import sys
import sysconfig
from functools import cache

import pytest

from tests.conftest import HERE

HEAVY = {"asyncio", "email", "http", "logging", "multiprocessing", "rich", "pygments"}
"""Packages that a plain answer never needs."""


@cache
def loaded(*words: str) -> frozenset[str]:
    """Return the modules that a Python loads; source: -X importtime."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        check=False,
    )
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("import time:")
    ]
    return frozenset(line.rpartition("|")[2].strip() for line in lines[1:])


def of_command(*words: str) -> frozenset[str]:
    """Return the modules that `pagescan WORDS…` loads."""
    return loaded("-m", "pagescan", *words)


def packages(modules: frozenset[str]) -> set[str]:
    """Return the first part of each name."""
    return {name.partition(".")[0] for name in modules}


def test_version_loads_nothing() -> None:
    """--version loads Python, runpy, and two files of pagescan's.

    Whether Python itself loads `__future__` depends on the kind of editable install.
    """
    more = of_command("--version") - loaded("-m", "this") - {"__future__"}
    assert more == {"pagescan"}


def test_import_loads_nothing() -> None:
    """`import pagescan` loads one file, which loads the others at their first use."""
    more = loaded("-c", "import pagescan") - loaded("-c", "")
    assert {name for name in more if name.startswith("pagescan")} == {"pagescan"}
    assert len(more) <= 2


ME = str(os.getpid())
COMMANDS = [
    (("diff", "--json"), 101),
    (("diff", "4194303"), 98),
    (("scan", ME, "--json", "--max-pages", "1"), 100),
    (("scan", ME, "--max-pages", "1"), 100),
    (("maps", ME, "--json", "[heap]"), 100),
    (("sessions", "--json"), 69),
    (("disarm", "4194303"), 98),
    (("arm", "4194303"), 100),
    (("dump-plan", ME, "--json"), 107),
    (("dump-plan", "4194303", "--epoch", "1"), 99),
    (("changed", "4194303"), 98),
    (("exporter", "--track"), 120),
    (("completion", "bash"), 85),
    (("who", "4194303"), 144),
    (("cow", "4194303"), 124),
    (("record", "4194303"), 130),
    (("report", "nowhere"), 110),
    (("schema",), 95),
]


@pytest.mark.parametrize(("words", "most"), COMMANDS)
def test_command_loads_what_it_uses(words: tuple[str, ...], most: int) -> None:
    """In a pipe no command loads rich, nor much besides click and its own file."""
    modules = of_command(*words)
    assert packages(modules) & HEAVY == set()
    more = modules - loaded("-c", "import click")
    assert len(more) <= most, sorted(more)
    others = {f"pagescan.commands.{name}" for name in ("watch", "demo", "doctor")}
    assert modules & (others - {f"pagescan.commands.{words[0]}"}) == set()


SLOW = {"_strptime", "difflib", "pathlib", "platform", "traceback", "urllib.parse"}
"""Standard modules that take a millisecond or more, and that have cheap substitutes."""


@pytest.mark.parametrize(
    "words", [("diff", "--json"), ("scan", ME, "--json", "[heap]")]
)
def test_a_look_loads_nothing_slow(words: tuple[str, ...]) -> None:
    """Runs as in a regular installation: an editable install itself loads pathlib."""
    paths = [str(HERE.parent), sysconfig.get_path("purelib")]
    code = f"import sys; sys.path[:0] = {paths}; import "
    given = loaded("-S", "-c", f"{code}click")
    more = loaded(
        "-S",
        "-c",
        f"{code}pagescan.__main__; sys.argv = {['pagescan', *words]}; "
        "pagescan.__main__.main()",
    )
    assert "pagescan.scanner.scanner" in more
    assert (more - given) & {*SLOW, "pagescan.tracking.attach"} == set()


@pytest.mark.parametrize("words", [("--help",), ("no-such-command",)])
def test_help_loads_no_command(words: tuple[str, ...]) -> None:
    """The list of the commands is printed without loading them."""
    modules = of_command(*words)
    of_errors = {"pagescan.commands", "pagescan.commands.near_misses"}
    others = modules - of_errors
    assert not [name for name in others if name.startswith("pagescan.commands")]
    assert "pagescan.native" not in modules


def test_library_loads_neither_click_nor_rich() -> None:
    """`pagescan.scan`, `pagescan.track` and WriteWatch load neither click nor rich."""
    code = "import pagescan.session.api, pagescan.writewatch"
    assert packages(loaded("-c", code)) & {"click", *HEAVY} == set()


def test_keeper_stays_small() -> None:
    """The keeper lives as long as the session: it loads itself and a part of native.

    All of it is loaded at its start, so that another version may be installed later.
    """
    modules = loaded("-c", "import pagescan.session.keeper") - loaded("-c", "")
    ours = {name for name in modules if name.startswith("pagescan")}
    assert ours == {
        "pagescan",
        "pagescan.native",
        "pagescan.native._shim",
        "pagescan.native.door",
        "pagescan.native.loading",
        "pagescan.native.maps",
        "pagescan.native.pace",
        "pagescan.native.uffd",
        "pagescan.session",
        "pagescan.session.files",
        "pagescan.session.held_session",
        "pagescan.session.household",
        "pagescan.session.keeper",
        "pagescan.session.peer",
        "pagescan.target",
        "pagescan.target.living",
        "pagescan.tracking",
        "pagescan.tracking.unregistering",
    }
    heavy = {"click", "subprocess", "dataclasses", "inspect", *HEAVY}
    assert packages(modules) & heavy == set()
