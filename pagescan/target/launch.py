"""Starts a command of the user's as a target, held before its first instruction."""

import contextlib
import os
import select
import signal

from pagescan import native
from pagescan.model.errors import TargetError
from pagescan.target.causes import rights_lost, why_not_run


class Launched:
    """A program that waits before its first instruction, and its tracer.

    The tracer is a process that stays until the program's end: it holds the program
    after each exec, for another attach, and at its end, for the last look. If pagescan
    dies before it lets the program go on, the program is killed; if it dies later, the
    program runs on without a tracer.

    Attributes:
        pid: The pid of the program, a child of this process.
        tracee: Its tracer, and what the tracer tells.
        note: A message for the user before it runs, or None.
    """

    def __init__(self, tracee: native.Tracee, note: str | None = None) -> None:
        """Take over a standing program; only `launch` calls this."""
        self.pid = tracee.pid
        self.tracee = tracee
        self.note = note

    def go_on(self) -> None:
        """Let the program go on from where it stands."""
        self.tracee.go_on()

    def close(self) -> None:
        """End the tracer, and the program too unless it was let go on."""
        self.tracee.close()

    def exit_code(self, stop: int) -> int:
        """Wait for the program's end and return its status, as a shell does.

        Args:
            stop: A descriptor that ends the wait when it becomes readable.

        Returns:
            128 + N if signal N ended it; 0 if it runs on, or another part of this
            process has taken its status.
        """
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return 0
        try:
            if not _ended(pidfd, stop):
                return 0
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return 0
        finally:
            os.close(pidfd)
        return code if code >= 0 else 128 - code


def _ended(pidfd: int, stop: int) -> bool:
    ready = select.poll()
    ready.register(pidfd, select.POLLIN)
    ready.register(stop, select.POLLIN)
    return pidfd in dict(ready.poll())


def launch(argv: list[str], *, stdout: int, stderr: int) -> Launched:
    """Start a program, held before its first instruction, with this process's stdin.

    Raises:
        TargetError: The program does not exist, or cannot be run.
    """
    path = _which(argv[0])
    if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
        # Inherited from a careless parent: the kernel would drop the exit status.
        with contextlib.suppress(ValueError):  # only the main thread may
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        tracee = native.launch(
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
    return Launched(tracee, rights_lost(path))


def _which(program: str) -> str:
    if "/" in program:
        return program
    for folder in os.get_exec_path():
        path = os.path.join(folder, program)
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise TargetError(f"cannot run {program!r}: command not found")


def reap(pid: int) -> None:
    """Reap a child that has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
