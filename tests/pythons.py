"""Finds the versions of CPython that this machine has, and starts programs in them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import HERE

VERSIONS = ("3.11", "3.12", "3.13")
_ASK = "import sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"


@cache
def interpreters() -> dict[str, str]:
    """Return one program per version that is found, also older ones."""
    minors = range(8, 14)
    places = [sys.executable, *(shutil.which(f"python3.{n}") or "" for n in minors)]
    kept = Path("~/.pyenv/versions").expanduser()
    places += map(str, sorted(kept.glob("3.*/bin/python3")))
    found: dict[str, str] = {}
    for place in filter(None, places):
        asked = subprocess.run(
            [place, "-c", _ASK], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            version, program = asked.stdout.split()
            found.setdefault(version, program)
    return found


def interpreter(version: str) -> str:
    """Return the program of a version; without one the test is skipped."""
    if version not in interpreters():
        pytest.skip(f"CPython {version} is not found")
    return interpreters()[version]


class Scribe:
    """A program that knows which of its functions write which addresses."""

    def __init__(self, *python: str, mode: str = "all") -> None:
        """Start it, and read what it knows."""
        self.process = subprocess.Popen(
            [*python, str(HERE / "targets/scribe.py"), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.truth: dict[str, list[tuple[int, int]]] = json.loads(self.line())

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def go_on(self) -> str:
        """Let it do the next step; return what it prints at the end."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()


@contextmanager
def scribe(*python: str, mode: str = "all") -> Iterator[Scribe]:
    """Run the program to the end of the block."""
    made = Scribe(*python, mode=mode)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.communicate()
