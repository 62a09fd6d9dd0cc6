"""Starts a command of the user's as a target, stopped before its first instruction."""

import contextlib
import os
import signal

from pagescan import native
from pagescan.model.errors import TargetError
from pagescan.target.causes import rights_lost, why_not_run


class Launched:
    """A program that waits before its first instruction.

    If pagescan dies, or never lets it go on, its guard kills the program, because
    nothing else would wake it.

    Attributes:
        pid: The pid of the program.
        note: A message for the user before it runs, or None.
    """

    def __init__(
        self, pid: int, guard: int, guard_pid: int, note: str | None = None
    ) -> None:
        """Take over the guard's descriptor; only `launch` calls this."""
        self.pid = pid
        self.note = note
        self._guard = guard
        self._guard_pid = guard_pid

    def go_on(self) -> None:
        """Let the program run; a second call has no effect."""
        if self._guard >= 0:
            os.kill(self.pid, signal.SIGCONT)
            os.write(self._guard, b"!")
            self.close()

    def close(self) -> None:
        """End the guard, and the program too unless it was let go on."""
        if self._guard >= 0:
            os.close(self._guard)
            self._guard = -1
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._guard_pid, 0)


def launch(argv: list[str], *, stdout: int, stderr: int) -> Launched:
    """Start a program, stopped before its first instruction, with this process's stdin.

    Raises:
        TargetError: The program does not exist, or cannot be run.
    """
    path = _which(argv[0])
    try:
        pid, guard, guard_pid = native.launch(
            os.fsencode(path),
            [os.fsencode(word) for word in argv],
            [
                os.fsencode(name) + b"=" + os.fsencode(value)
                for name, value in os.environ.items()
            ],
            (0, stdout, stderr),
        )
    except OSError as error:
        reason = why_not_run(path, error.errno or 0)
        raise TargetError(
            f"cannot run {argv[0]!r}: {reason}", call="execve", errno=error.errno
        ) from error
    return Launched(pid, guard, guard_pid, rights_lost(path))


def _which(program: str) -> str:
    if "/" in program:
        return program
    for folder in os.get_exec_path():
        path = os.path.join(folder, program)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise TargetError(f"cannot run {program!r}: command not found")
