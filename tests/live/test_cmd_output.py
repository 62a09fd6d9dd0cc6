"""CMD's output beside the live view: kept, printed when the view closes, never lost."""

import contextlib
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import checked, command

pytestmark = pytest.mark.needs("tracking")

RESTORED = b"\x1b[?1049l"  # the screen as it was before the view


class Screen:
    """A terminal of its own, in which watch runs, and all that was written to it."""

    def __init__(self, *words: str, stderr: Path | None = None) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            if stderr:
                os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT, 0o600), 2)
            line = (sys.executable, "-m", "pagescan", "watch", "-i", "0.1", *words)
            # the leader of the session lives on, as a shell does
            os.execv("/bin/sh", ["sh", "-c", '"$@"; echo CODE=$?; cat', "sh", *line])
        self.text = b""

    def read(self, seconds: float = 0.1) -> bool:
        """Read what is there; False: every writer is gone."""
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                new = os.read(self.fd, 1 << 16)
            except OSError:
                return False
            self.text += new
        return True

    def until(self, text: bytes, seconds: float = 60) -> None:
        """Read until a text was written."""
        end = time.monotonic() + seconds * witness.PATIENCE
        while text not in self.text and time.monotonic() < end and self.read():
            pass
        assert text in self.text, self.text[-2000:]

    def wait(self) -> int:
        """Read to the end of watch, and return its exit code."""
        self.until(b"CODE=")
        while not (code := re.search(rb"CODE=(\d+)\r\n", self.text)):
            assert self.read()
        return int(code[1])

    @property
    def watch(self) -> int:
        """The pid of watch."""
        return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text())

    @property
    def after(self) -> bytes:
        """The output after the view was closed."""
        return self.text.rpartition(RESTORED)[2].replace(b"\r\n", b"\n")


@contextlib.contextmanager
def screen(*words: str, stderr: Path | None = None) -> Iterator[Screen]:
    """Run watch in a terminal; kill what is left."""
    made = Screen(*words, stderr=stderr)
    try:
        yield made
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(made.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(made.pid, 0)
        os.close(made.fd)  # SIGHUP for the others
        command("sessions")  # removes the files of a killed watch


def test_printed_when_the_view_closes() -> None:
    """Both streams, in their order, after the screen is restored, before the totals."""
    script = "echo one; echo two >&2; sleep 0.3; echo three; exit 4"
    with screen("--", "sh", "-c", script) as shown:
        assert shown.wait() == 4
        assert b"CMD's output is printed at the end" in shown.text
        assert shown.after.startswith(b"one\ntwo\nthree\n")
        assert b"the target has ended" in shown.after


def test_last_mebibyte_is_kept() -> None:
    """Of much output the last 1 MiB is printed, in whole lines, and that is said."""
    with screen("--", "seq", "1", "300000") as shown:
        assert shown.wait() == 0
    said, *lines = shown.after.split(b"\n")
    total = sum(len(str(number)) + 1 for number in range(1, 300001))
    of = f"the last 1.0 MiB of {total / 2**20:.1f} MiB"
    assert said == f"pagescan: CMD's output: {of}".encode()
    numbers = [int(line) for line in lines[: lines.index(b"300000") + 1]]
    assert numbers == list(range(numbers[0], 300001))
    printed = sum(len(str(number)) + 1 for number in numbers)
    assert (1 << 20) - 8 < printed <= 1 << 20


def test_command_that_runs_on_writes_on() -> None:
    """After -n later output follows at once, and no write of CMD fails."""
    script = "echo before; read _; echo after; exec sleep 1000"
    with screen("-n", "2", "--", "sh", "-c", script) as shown:
        shown.until(b"all requested looks are done")
        shown.until(b"before\r\n")
        assert b"before" in shown.after
        os.write(shown.fd, b"\n")
        shown.until(b"after\r\n")


def test_killed_watch_loses_no_output() -> None:
    """The output is printed, and CMD does not die of a pipe that nobody reads."""
    script = "echo before; read _; echo after; echo alive"
    with screen("--", "sh", "-c", script) as shown:
        shown.until(b"[heap]")
        os.kill(shown.watch, signal.SIGKILL)
        shown.until(b"before")
        shown.until(b"CODE=")
        os.write(shown.fd, b"\n")
        shown.until(b"alive")


def test_file_instead(tmp_path: Path) -> None:
    """--cmd-output takes all of it, in every form of output."""
    path = tmp_path / "log"
    with screen("--cmd-output", str(path), "--", "seq", "1", "300000") as shown:
        assert shown.wait() == 0
        assert f"CMD's output goes to {path}".encode()[:40] in shown.text
    assert path.read_text().splitlines()[-1] == "300000"
    assert len(path.read_text().splitlines()) == 300000
    assert b"300000" not in shown.after
    result = command("watch", "--json", "--cmd-output", path, "--", "echo", "hello")
    assert checked(result.stdout.splitlines()[-1])["end"] == "exited"
    assert path.read_text() == "hello\n"
    assert "hello" not in result.stderr


def test_stderr_elsewhere(tmp_path: Path) -> None:
    """Where stderr is no terminal, nothing has to be kept."""
    path = tmp_path / "log"
    with screen("--", "seq", "1", "300000", stderr=path) as shown:
        assert shown.wait() == 0
        assert b"CMD's output goes to stderr" in shown.text
    lines = [line for line in path.read_text().splitlines() if line.isdigit()]
    assert lines == [str(number) for number in range(1, 300001)]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--cmd-output", "log", "1"), 2, "--cmd-output needs -- CMD"),
        (("--cmd-output", "/proc/none/log", "--", "true"), 1, "cannot write"),
    ],
)
def test_refused(words: tuple[str, ...], code: int, said: str) -> None:
    """No CMD, or a file that cannot be written."""
    result = command("watch", *words)
    assert result.code == code
    assert said in result.stderr


@pytest.mark.parametrize("before", [None, "dear"])
def test_a_command_that_cannot_be_run(tmp_path: Path, before: str | None) -> None:
    """It makes no file, and leaves one that exists as it is."""
    path = tmp_path / "log"
    if before:
        path.write_text(before)
    result = command("watch", "--cmd-output", path, "--", "/no/such")
    assert result.code == 3
    assert (path.read_text() if path.exists() else None) == before
