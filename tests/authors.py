"""A target that knows which function and which thread has written each page."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pagescan.model.groups import GroupTick
from pagescan.native import Pace
from pagescan.session.watched import Terms
from pagescan.session.watched_group import WatchedGroup
from pagescan.target.group import Match
from pagescan.target.selection import Selection
from pagescan.tracking.ticks import Limits
from tests.conftest import HERE, PAGE, Result

Truth = dict[int, tuple[str, int]]
"""The function and the thread, by page."""


class Author:
    """A process of authors.c."""

    def __init__(self, program: Path, user: int | None = None) -> None:
        self.process = subprocess.Popen(
            [program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            user=user,
            group=user,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def say(self, line: str) -> Truth:
        """Let it write; return who has written each page, as it says."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        truth: Truth = {}
        for answer in self.process.stdout:
            if answer == "done\n":
                break
            address, pages, tid, function = answer.split()
            for page in range(int(pages)):
                truth[int(address, 16) + page * PAGE] = function, int(tid)
        return truth


def is_right(truth: tuple[str, int], found: tuple[str, int], *, user: bool) -> bool:
    """Whether a reported writer is the true one, or rightly none."""
    function, tid = truth
    if function == "(other)" or (user and function == "(kernel)"):
        return found == ("", 0)
    if function == "(kernel)":  # some function of the kernel, for this thread
        return found[0] != "" and found[1] == tid
    if function == "memset":
        return "memset" in found[0] and found[1] == tid
    return found == truth


@contextlib.contextmanager
def ended_authors() -> Iterator[Callable[..., Author]]:
    """Yield a function that starts an `Author`; end all of them after the block."""
    started: list[Author] = []

    def begin(program: Path, user: int | None = None) -> Author:
        started.append(Author(program, user=user))
        return started[-1]

    yield begin
    for author in started:
        author.process.kill()
        author.process.communicate()


@contextlib.contextmanager
def compiled_authors() -> Iterator[Path]:
    """Compile the target, where another user can run it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "authors"
        source = str(HERE / "targets/authors.c")
        subprocess.run(["cc", "-O2", "-w", "-pthread", "-o", made, source], check=True)
        made.parent.chmod(0o755)
        yield made


class TickingGroup:
    """The processes of a program: a group that this process looks at, tick by tick.

    Attributes:
        group: The group.
        stop: Readable once it is over.
    """

    def __init__(
        self, program: Path, follower: Any, holder: str, undo: contextlib.ExitStack
    ) -> None:
        terms = Terms(Selection(), Pace(), follower=follower, holder=holder)
        self.group = undo.enter_context(WatchedGroup.armed(Match(str(program)), terms))
        self.stop, end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        undo.callback(os.close, self.stop)
        undo.callback(os.close, end)
        self._ticks = self.group.ticks(Limits(0.05, None, None), self.stop)

    def tick(self) -> GroupTick:
        """Make one look at all members."""
        return next(self._ticks)

    def until(self, fact: Callable[[], object]) -> None:
        """Make looks until something is so."""
        for _ in range(400):
            if fact():
                return
            self.tick()
        raise AssertionError(self.group.members)


@contextlib.contextmanager
def sampling(*words: str, **more: Any) -> Iterator[Callable[[], Result]]:
    """Run a command; yield once it samples, with a function that ends it."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if "sampling the first writes" in line:
            break

    def end() -> Result:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return Result(process.returncode, out, "".join(said) + err)

    yield end
    if process.poll() is None:
        process.kill()
        process.communicate()
