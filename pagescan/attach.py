"""Takes a userfaultfd out of a live process: the only thing that stops anything.

One thread of the target is made to call userfaultfd(2), once, and goes on exactly
where it was; all the surgery is one C call (native/shim_attach.c). The descriptor is
closed in the target at once. From then on the target runs, and everything is done from
here.
"""

import errno
import os
from dataclasses import dataclass

from pagescan import native, wp_async
from pagescan.errors import (
    KernelUnsupportedError,
    PagescanError,
    UnsuitableTargetError,
    from_oserror,
)
from pagescan.target import Target, denied, tracer_of


@dataclass(slots=True)
class Taken:
    """A userfaultfd of the target's address space, ours to close.

    Attributes:
        uffd: The descriptor, with the features agreed on.
        stopped_ns: How long the thread stood still; 0 where nothing was stopped.
        method: What would have put the thread back if this process had been killed
            meanwhile: frame, slack or rop (docs/harmless.md); plain: nothing would
            have. own: nothing was stopped.
    """

    uffd: int
    stopped_ns: int
    method: str

    def __str__(self) -> str:
        """Say how it was taken, for -v."""
        if self.method == "own":
            return "the userfaultfd is our own: nothing was stopped"
        how = {
            "frame": "with a signal frame on its stack to restore it",
            "slack": "with a signal frame in unused memory to restore it",
            "rop": "with six words below its stack to restore it",
            "plain": "the plain way: a kill in that time would have harmed the target",
        }
        return f"a thread was stopped {how[self.method]}"


def take(target: Target) -> Taken:
    """Take a userfaultfd out of a target; out of this very process without ptrace.

    Raises:
        UnsuitableTargetError: It is traced already, it is 32-bit, its seccomp filter
            would be triggered, or no thread could be stopped within 2 s.
        AccessDeniedError: This user may not trace it.
        KernelUnsupportedError: No userfaultfd, or no asynchronous write-protect; or the
            attach is not written for this processor. The target was not stopped then.
    """
    if target.pid == os.getpid():
        return Taken(wp_async.open_own(), 0, "own")
    wp_async.check_possible()
    taken = _of_other(target)
    try:
        wp_async.agree(taken.uffd)
    except BaseException:
        os.close(taken.uffd)
        raise
    return taken


def _of_other(target: Target) -> Taken:
    tracer = tracer_of(target.pid)
    if tracer:
        raise _traced(target, tracer)
    result = native.attach(target.pid)
    if result.uffd >= 0 and not result.error:
        return Taken(result.uffd, result.stopped_ns, result.method)
    raise _refusal(target, result)


def _traced(target: Target, tracer: tuple[int, str]) -> PagescanError:
    return UnsuitableTargetError(
        f"{target} is traced already, by {tracer[0]} ({tracer[1]})",
        hint="end the debugger, strace or profiler first; a process has one tracer",
    )


def _refusal(target: Target, result: native.Attached) -> PagescanError:
    """Say why the userfaultfd could not be taken, by the step that failed."""
    if result.uffd >= 0:
        os.close(result.uffd)
    if target.exited() or not target.has_address_space():
        return target.gone()
    tracer = tracer_of(target.pid)
    if tracer:
        return _traced(target, tracer)
    frozen = result.step == "call" and result.error == errno.ETIMEDOUT
    step = "frozen" if frozen else result.step
    why = _WHY.get((step, _is_denial(result.error)))
    if why:
        return UnsuitableTargetError(f"{target} {why[0]}", hint=why[1])
    if result.step == "call" and result.error in (errno.ENOSYS, errno.EINVAL):
        return KernelUnsupportedError(
            "this kernel has no userfaultfd(2) for user-mode faults",
            hint="pagescan doctor shows what this kernel can do",
        )
    if _is_denial(result.error):
        return denied(target.pid, f"attach to {target}")
    error = OSError(result.error, os.strerror(result.error))
    return from_oserror(error, doing=f"attach to {target}", pid=target.pid)


def _is_denial(code: int) -> bool:
    return code in (errno.EPERM, errno.EACCES)


_ONLY_LOOK = "pagescan scan and pagescan maps work with it"

# What is the matter with the target, and what would help, by the step that failed and
# whether it was a denial.
_WHY = {
    ("seccomp", True): (
        "has a seccomp filter, which could kill it for userfaultfd(2)",
        "as root with CAP_SYS_ADMIN the filter is suspended for the attach",
    ),
    ("stop", False): (
        "could not be stopped: no thread of it did in time",
        "they are in uninterruptible sleep or wait for a vfork; try again",
    ),
    ("frozen", False): (
        "does not run: its threads stop, and make no system call",
        "is its container paused, its cgroup frozen? Let it go on first",
    ),
    ("exec", False): ("changed its code while it was looked at", "try again"),
    ("abi", False): ("runs 32-bit code, and pagescan tracks 64-bit only", _ONLY_LOOK),
    ("gadget", False): ("has no system call instruction to borrow", _ONLY_LOOK),
}
