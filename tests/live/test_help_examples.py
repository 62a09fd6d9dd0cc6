"""Each example of each -h runs under zsh, beside the programs that it names."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pagescan.cli import COMMANDS
from tests import machine, witness
from tests.conftest import HERE

pytestmark = [
    pytest.mark.needs(
        *("tracking", "root", "unshare", "zsh", "redis", "java", "jcmd", "postgres"),
        *("nginx", "gunicorn", "prometheus_client"),
    ),
    pytest.mark.timeout(600),
]

SHORTER = {
    "--duration 10m": "--duration 2",
    "--duration 30": "--duration 2",
    "sleep 10": "sleep 0.2",
    "--time 30s-2m": "--time 100ms-2m",
}
"""Nobody waits ten minutes for a test."""

ARM = "pagescan arm 4242 -q"
EPOCH = "pagescan dump-plan 4242 -q --json >/dev/null --epoch"
RECORD = "pagescan record -q -n 4 -i 0.3"
BEFORE = {
    r"^pagescan changed 4242 &&": ARM,
    r"^pagescan changed 4242 --epoch 7": f"{ARM}; for n in {{0..6}}; {EPOCH} $n",
    r"^pagescan diff (--since-wp|4242)": ARM,
    r"^pagescan diff before": f"{RECORD} 4242 -o before.pagescan;"
    f" {RECORD} 4242 -o after.pagescan",
    r"^pagescan (diff|disarm) --tree 4242": "pagescan arm --tree 4242 -q",
    r"^pagescan disarm": ARM,
    r"^pagescan dump-plan 4242 --epoch 1": f"{ARM}; {EPOCH} 0",
    r"^pagescan dump-plan 4242 --ack 2": f"{ARM}; {EPOCH} 0; {EPOCH} 1",
    r"^pagescan scan 4242 --require written": ARM,
    r"^pagescan watch --tree -- make": r"printf 'all:\n\t@true\n' >Makefile",
    r"^pagescan report looks": f"{RECORD} redis-server -o redis.pagescan --force;"
    " pagescan report redis.pagescan --parquet looks >/dev/null",
    r"^pagescan report": "redis-cli debug populate 20000 >/dev/null;"
    f" {RECORD} redis-server -o redis.pagescan --force;"
    f" {RECORD} redis-server -o redis-2.pagescan --force",
}
"""The preparation of an example, by the beginning of the example."""

ENDLESS = {
    r"^pagescan watch (4242|--tree [^-])": ("Ctrl-C to end", "Ctrl-C"),
    r"^pagescan who redis-server": ("Ctrl-C ends it", "Ctrl-C"),
    r"^pagescan record 4242 (--last|'\[heap)": ("Ctrl-C to end", "Ctrl-C"),
    r"^pagescan exporter": ("listening on .*Ctrl-C to end", "Ctrl-C"),
    r"^pagescan cow redis-server --next-fork": (
        "waiting for a fork",
        "redis-cli bgsave",
    ),
}
"""Examples that wait: the text that they print at first, and the act that ends them."""


def examples() -> list[str]:
    """Return every example that a -h prints."""
    found = []
    for name in COMMANDS:
        module = import_module(f"pagescan.commands.{name.replace('-', '_')}")
        lines = module.command.epilog.splitlines()
        found += [line.strip() for line in lines if line.startswith("  pagescan ")]
        found += [line.strip() for line in lines if line.startswith("  eval ")]
    return found


def of(table: dict[str, Any], line: str, default: Any) -> Any:
    """Return the entry of a table whose pattern is found in a line."""
    return next((table[key] for key in table if re.search(key, line)), default)


class Place:
    """The folder of the examples, and the programs beside it."""

    def __init__(self, child: "subprocess.Popen[str]", folder: Path) -> None:
        assert child.stdout is not None
        self._child, self.folder = child, folder
        self._pids = json.loads(child.stdout.readline())

    def run(self, line: str, until: str = "", then: str = "") -> dict[str, Any]:
        """Run a line, and return its code and its output."""
        line = line.replace("4242", str(self._pids["4242"]))
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps((line, until, then)) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline())
        return answer


@pytest.fixture(scope="module")
def units() -> Iterator[Path]:
    """A cgroup with one of its own for each of the units that the examples name."""
    top = Path("/tmp") / f"pagescan-units-{os.getpid()}"
    top.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(top)], check=True)
    group = top / top.name
    names = [f"{name}.service" for name in ("postgresql", "nginx", "redis-server")]
    try:
        for name in names:
            (group / name).mkdir(parents=True)
        yield group
    finally:
        for name in names:
            (group / name).rmdir()
        group.rmdir()
        subprocess.run(["umount", "-l", str(top)], check=True)
        top.rmdir()


@pytest.fixture(scope="module")
def place(units: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("examples")
    for each in (folder, *folder.parents[:2]):  # the database's user looks into it
        each.chmod(0o755)
    subprocess.run(
        ["javac", "-d", str(folder), str(HERE / "targets/Steady.java")], check=True
    )
    tools, home = folder / "bin", folder / "home"
    (home / ".config/fish/completions").mkdir(parents=True)
    tools.mkdir()
    for name, text in (
        ("pagescan", f'exec {sys.executable} -m pagescan "$@"'),
        ("make_a_snapshot", ":"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    child = subprocess.Popen(
        [
            *("unshare", "--pid", "--net", "--mount", "--mount-proc", "--fork"),
            *("--kill-child", sys.executable, str(HERE / "example_programs.py")),
            *(str(folder), str(units), str(machine.postgres())),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONPATH": str(HERE.parent),
        },
    )
    try:
        yield Place(child, folder)
    finally:
        child.kill()  # and with it the namespace
        child.communicate()
        files = [*units.glob("*/cgroup.procs")]
        witness.wait_for(lambda: not any(map(Path.read_text, files)), 30)


@pytest.mark.parametrize("example", examples())
def test_example(place: Place, example: str) -> None:
    """It ends with success, after Ctrl-C where it would not end by itself."""
    if before := of(BEFORE, example, ""):
        prepared = place.run(before)
        assert prepared["code"] == 0, prepared["output"]
    line = example
    for long, short in SHORTER.items():
        line = line.replace(long, short)
    until, then = of(ENDLESS, example, ("", ""))
    answer = place.run(line, until, then)
    place.run("pagescan disarm --all -q")
    assert answer["begun"], answer["output"]
    # changed says by its code that nothing was written: then nothing follows.
    allowed = {0, 1} if example.startswith("pagescan changed 4242 &&") else {0}
    assert answer["code"] in allowed, answer["output"]
    assert "internal error" not in answer["output"]


def test_every_command_has_an_example() -> None:
    """Otherwise the test above would run nothing for it."""
    lines = "\n".join(examples())
    for name in set(COMMANDS) - {"schema"}:
        assert f"pagescan {name}" in lines, name
