"""Targets that fork, and that know which pages each side has written: forks.c."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import HERE

PAGES = 4000


class Target:
    """A process of forks.c."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        (self.pid,) = self._answer()

    def _answer(self) -> list[int]:
        assert self.process.stdout is not None
        return [int(word) for word in self.process.stdout.readline().split()]

    def say(self, line: str) -> list[int]:
        """Send a line; return the numbers of the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        return self._answer()


@pytest.fixture
def forks(tmp_path: Path) -> Iterator[Target]:
    program = tmp_path / "forks"
    source = str(HERE / "targets/forks.c")
    subprocess.run(["cc", "-O1", "-w", "-o", program, source], check=True)
    target = Target(str(program), str(PAGES))
    yield target
    target.process.kill()
    target.process.communicate()
