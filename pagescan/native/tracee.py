"""A program that this process has started, and the tracer that it has for life."""

import contextlib
import errno
import os
import time
from collections.abc import Sequence

from pagescan.native.door import check, ffi, lib
from pagescan.native.process import Attached, attached, enumerator

_WAIT_MS = 50
_GRACE = 1.0  # seconds: the tracer ends an attach itself, or the kernel ends the tracer


class Tracee:
    """A program, from before its first instruction to its end.

    Attributes:
        pid: The program: a child of this process.
        tracer: The pid of its tracer, also a child.
        lost: Whether the tracer has ended: the program continues without it.
        stands: Whether the tracer holds the program, until `go_on`.
        ends: Whether its last thread is, or was, held at its end.
    """

    def __init__(self, pid: int, tracer: int, socket: int) -> None:
        """Take over a standing program; only `launch` calls this."""
        self.pid = pid
        self.tracer = tracer
        self.lost = False
        self.stands = True
        self.ends = False
        self._socket = socket
        self._began = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is an event."""
        return self._socket

    def event(self, ms: int = 0) -> str:
        """Return the next event: exec, exit, lost, or none after that time.

        After exec it stands before the first instruction of another program, after exit
        at its end, with its memory; until `go_on`, for a minute at most.
        """
        event = self._receive(ms)[0]
        self.ends = self.ends or event == "exit"
        self.stands = self.stands or event in ("exec", "exit")
        if self.stands and not self.lost:
            lib.ps_tracee_stay(self._socket)
        return event

    def attach(
        self, *, start_time: int, allowed: tuple[int, int] = (0, 0), seconds: float = 2
    ) -> Attached:
        """Take a userfaultfd out of the standing program, as `attach` does."""
        until = time.monotonic() + seconds + _GRACE
        while not (self.stands or self.lost) and time.monotonic() < until:
            self.event(_WAIT_MS)
        call = ffi.new("struct ps_attach *")
        call.pid, call.start_time = self.pid, start_time
        call.allowed_start, call.allowed_length = allowed
        call.timeout_ms = int(seconds * 1000)
        lib.ps_tracee_attach(self._socket, call)
        call.uffd = call.left_fd = -1
        event = "none"
        while event == "none" and time.monotonic() < until:
            event, code, result = self._receive(_WAIT_MS)
            if event == "attached":
                return attached(result, code)
        self.abandon()
        return attached(call, -errno.ETIMEDOUT)

    def go_on(self) -> None:
        """Let the standing program continue."""
        if self.stands and not self.lost:
            lib.ps_tracee_go(self._socket)
        self.stands, self._began = False, True

    def abandon(self) -> None:
        """End the tracer: the program continues, or is killed if it never began."""
        if not self.lost:
            self.lost, self.stands = True, False
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.tracer, 9)
            _reap(self.tracer)
            if not self._began:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, 9)
                _reap(self.pid)

    def close(self) -> None:
        """Abandon it, and close the descriptor; a second call has no effect."""
        self.abandon()
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1

    def _receive(self, ms: int) -> "tuple[str, int, object]":
        call, error = ffi.new("struct ps_attach *"), ffi.new("int32_t *")
        call.uffd = call.left_fd = -1
        number = lib.ps_tracee_event(self._socket, ms, call, error)
        event = enumerator("enum ps_event", number)
        if event == "lost":
            self.abandon()
        return event, error[0], call


def launch(
    path: bytes,
    argv: Sequence[bytes],
    environment: Sequence[bytes],
    stdio: tuple[int, int, int],
) -> Tracee:
    """Start a program, and hold it before its first instruction."""
    words = [ffi.new("char[]", word) for word in argv]
    variables = [ffi.new("char[]", word) for word in environment]
    tracee = ffi.new("struct ps_tracee *")
    check(
        lib.ps_launch(
            path,
            ffi.new("char *[]", [*words, ffi.NULL]),
            ffi.new("char *[]", [*variables, ffi.NULL]),
            *stdio,
            tracee,
        )
    )
    return Tracee(tracee.pid, tracee.tracer, tracee.socket)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
