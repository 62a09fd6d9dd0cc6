"""Takes a userfaultfd out of a live process: the only thing that stops anything.

One thread of the target is made to call userfaultfd(2), once, and goes on exactly
where it was; all the surgery is one C call (native/shim_attach.c). The descriptor is
closed in the target at once. From then on the target runs, and everything is done from
here.
"""

import errno
import os
from dataclasses import dataclass

from pagescan import native
from pagescan.errors import (
    KernelUnsupportedError,
    PagescanError,
    UnsuitableTargetError,
    from_errno,
)
from pagescan.target import Target, denied, tracer_of


@dataclass(slots=True)
class Taken:
    """A userfaultfd of the target's address space, ours to close.

    Attributes:
        uffd: The descriptor, with the features agreed on.
        stopped_ns: How long the thread stood still; 0 where nothing was stopped.
        method: How it was taken, for -v.
    """

    uffd: int
    stopped_ns: int
    method: str


def take(target: Target) -> Taken:
    """Take a userfaultfd out of a target; out of this very process without ptrace.

    Raises:
        UnsuitableTargetError: It is traced already, it is 32-bit, its seccomp filter
            would be triggered, or no thread could be stopped within 2 s.
        AccessDeniedError: This user may not trace it.
        KernelUnsupportedError: No userfaultfd, or no asynchronous write-protect.
    """
    own = target.pid == os.getpid()
    taken = Taken(_own(), 0, "own") if own else _of_other(target)
    try:
        native.uffd_api(taken.uffd)
    except OSError as error:
        os.close(taken.uffd)
        raise KernelUnsupportedError(
            "this kernel's userfaultfd has no asynchronous write-protect (Linux 6.7)",
            hint="pagescan doctor shows what this kernel can do",
        ) from error
    return taken


def _own() -> int:
    try:
        return native.uffd_open()
    except OSError as error:
        raise from_errno(error.errno or 0, doing="create a userfaultfd") from error


def _of_other(target: Target) -> Taken:
    tracer = tracer_of(target.pid)
    if tracer:
        raise _traced(target, tracer)
    result = native.attach(target.pid)
    if result.uffd >= 0 and not result.error:
        return Taken(result.uffd, result.stopped_ns, str(result.method))
    raise _refusal(target, result)


def _traced(target: Target, tracer: tuple[int, str]) -> PagescanError:
    return UnsuitableTargetError(
        f"{target} is traced already, by {tracer[0]} ({tracer[1]})",
        hint="end the debugger, strace or profiler first; a process has one tracer",
    )


def _refusal(target: Target, result: native.Attached) -> PagescanError:
    """Say why the userfaultfd could not be taken, by the step that failed."""
    if target.exited():
        return target.gone()
    tracer = tracer_of(target.pid)
    if tracer:
        return _traced(target, tracer)
    if result.error in (errno.EPERM, errno.EACCES):
        return denied(target.pid, f"attach to {target}")
    if result.error == errno.ETIMEDOUT:
        return UnsuitableTargetError(
            f"no thread of {target} could be stopped within 2 s",
            hint="its threads are in uninterruptible sleep; try again later",
        )
    return from_errno(result.error, doing=f"attach to {target}", pid=target.pid)
