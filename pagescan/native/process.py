"""The attach to a live process."""

import errno
import os
import time
from typing import Any, NamedTuple

from pagescan.native.door import check, ffi, lib

# for a signal that the kernel delivered to another thread of this process
_WAIT_MS = 50
_SHORTEST_TURN = 0.1  # seconds


class Attached(NamedTuple):
    """The result of `attach`, or its state when it failed.

    Attributes:
        method: What would have restored the thread: frame, slack, rop; plain: nothing.
        step: The step that failed: open, gadget, seccomp, seize, stop, exec, abi,
            dispatch, facts, table, call, take, arch; or done.
        allowed: Start and length of the exempt range of calls; (0, 0): everywhere.
    """

    uffd: int
    method: str
    step: str
    stopped_ns: int
    allowed: tuple[int, int]
    error: int
    """A positive errno; 0: success."""
    killed_by: int
    """With ECANCELED: the signal that killed the surgeon; 0: unknown."""


def can_attach() -> bool:
    """Whether `attach` exists for this processor."""
    return bool(lib.ps_can_attach())


def attach(
    pid: int,
    *,
    start_time: int = 0,
    allowed: tuple[int, int] = (0, 0),
    seconds: float = 2,
    by_thread: bool = False,
    features: int = 0,
) -> Attached:
    """Take a userfaultfd out of a live process; never raises: see `error`.

    Signals are handled in the meantime as usual; an exception from a handler ends the
    attach.

    Args:
        pid: The process.
        start_time: The required start time; otherwise ESRCH: the pid was reused. 0:
            any.
        allowed: Start and length of the range from which a system call may be made; by
            default everywhere.
        seconds: Limit of the whole attach; threads that do not stop are tried in turn.
        by_thread: A thread of this process does the work; nothing can end it early, and
            a waitpid(-1) of another thread disturbs it.
        features: More features of the userfaultfd than tracking needs.
    """
    until = time.monotonic() + seconds
    call = ffi.new("struct ps_attach *")
    call.pid, call.start_time, call.by_thread = pid, start_time, by_thread
    call.allowed_start, call.allowed_length = allowed
    call.features = features
    stopped_ns = 0
    while True:
        left = until - time.monotonic()
        call.timeout_ms = int(left * 1000)
        code = _operate(call)
        stopped_ns += call.stopped_ns
        call.turn += 1
        if code != -errno.EAGAIN or until - time.monotonic() < _SHORTEST_TURN:
            break
    call.stopped_ns = stopped_ns
    return attached(call, code)


def attached(call: Any, code: int) -> Attached:
    """Return the result that C left in its struct."""
    return Attached(
        call.uffd,
        enumerator("enum ps_method", call.method),
        enumerator("enum ps_step", call.step),
        call.stopped_ns,
        (call.allowed_start, call.allowed_length),
        max(0, -code),
        call.killed_by,
    )


def _operate(call: Any) -> int:
    """Run one surgeon; kill it if a signal's handler raises an exception."""
    theatre = ffi.new("struct ps_theatre **")
    code = int(lib.ps_attach_begin(call, theatre))
    if code < 0:
        call.uffd, call.stopped_ns = -1, 0
        return code
    try:
        while not lib.ps_attach_wait(theatre[0], _WAIT_MS):
            pass
    except BaseException:
        lib.ps_attach_end(theatre[0], call)
        if call.uffd >= 0:
            os.close(call.uffd)
        raise
    return int(lib.ps_attach_end(theatre[0], call))


def enumerator(enum: str, value: int) -> str:
    """Return the last word of the name that a number has in an enum."""
    name: str = ffi.typeof(enum).elements[value]
    return name.rpartition("_")[2].lower()


class Deadline:
    """The end of this process by SIGKILL, unless it is put off again and again.

    A kernel timer sends the signal, also to a process that is stopped or frozen.
    """

    def __init__(self) -> None:
        """Make the timer; it does not run yet.

        Raises:
            OSError: The user has too many pending signals and timers.
        """
        self._timer = check(lib.ps_deadline_make())

    def put_off(self, seconds: float) -> None:
        """Set the end: `seconds` from now."""
        check(lib.ps_deadline_set(self._timer, round(seconds * 1000)))
