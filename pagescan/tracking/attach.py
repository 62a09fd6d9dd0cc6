"""Takes a userfaultfd out of a live process: the only step that stops a thread.

One thread of the target is made to call userfaultfd(2), once, and continues exactly
where it was; one C call does all of this (native/shim_attach.c). The descriptor is
closed in the target at once. After that the target runs, and all work is done from
here.
"""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pagescan import native
from pagescan.model.errors import (
    IN_THE_TARGET,
    KernelUnsupportedError,
    PagescanError,
    TargetError,
    UnsuitableTargetError,
    from_oserror,
)
from pagescan.target import wp_async
from pagescan.target.causes import check_descriptors, signal_name, why_it_stands
from pagescan.target.living import memory_dir
from pagescan.target.process import Target, above_stdio, denied, tracer_of, yama_scope

_DESCRIPTORS = 12
"""The most descriptors that an attach needs at once.

8 by a thread of this process, 6 by a surgeon, and 3 more to leave 0 to 2 free.
"""


@dataclass(slots=True)
class TakenUffd:
    """A userfaultfd of the target's address space, to be closed by the caller.

    Attributes:
        uffd: The descriptor, with its features enabled.
        stopped_ns: How long the thread stood still; 0 if nothing was stopped.
        method: How the thread would have recovered if the attach had been killed: by a
            frame, slack or rop (docs/harmless.md); plain: it would not have. own: no
            thread was stopped.
    """

    uffd: int
    stopped_ns: int
    method: str

    def __str__(self) -> str:
        """Return how it was taken, in words for -v."""
        if self.method == "own":
            return "the userfaultfd is pagescan's own: nothing was stopped"
        how = {
            "frame": "with a signal frame in empty pages of its stack to restore it",
            "slack": "with a signal frame in unused memory to restore it",
            "rop": "with six words in empty pages of its stack to restore it",
            "plain": "by the plain method: a kill would have harmed the target",
        }
        return f"a thread was stopped {how[self.method]}"


def take(target: Target, *, features: int = 0) -> TakenUffd:
    """Take a userfaultfd out of a target; for this process itself, without ptrace.

    Args:
        target: The process.
        features: More features than tracking needs; not for this process itself.

    Raises:
        UnsuitableTargetError: The target is traced already, is 32-bit, has a seccomp
            filter that would act on the call, or no thread stopped within 2 s.
        AccessDeniedError: This user may not trace it.
        KernelUnsupportedError: The kernel has no userfaultfd or no asynchronous
            write-protect, or this processor has no attach; no thread was stopped.
    """
    if target.pid == os.getpid():
        return TakenUffd(above_stdio(wp_async.open_own()), 0, "own")
    wp_async.check_possible()
    taken = _of_other(target, features)
    try:
        with native.keeping_the_processor(native.Pace()):
            _check_it_is_of(target, taken.uffd)
    except BaseException:
        os.close(taken.uffd)
        raise
    return taken


def _of_other(target: Target, features: int) -> TakenUffd:
    tracer = _other_tracer(target)
    if tracer:
        raise _traced(target, tracer)
    try:
        check_descriptors(_DESCRIPTORS)
    except OSError as error:
        raise from_oserror(error, doing=f"attach to {target}", call="open") from error
    result = _attached(target, features=features)
    if result.step == "dispatch" and result.allowed[1]:
        # Calls from this range are exempt: it may contain suitable instructions.
        result = _attached(target, result.allowed, features=features)
        if result.step == "gadget":
            result = result._replace(step="dispatch", error=errno.EPERM)
    if result.uffd >= 0 and not result.error:
        uffd = above_stdio(result.uffd)
        return TakenUffd(uffd, result.stopped_ns, result.method)
    raise _refusal(target, result)


def _other_tracer(target: Target) -> tuple[int, str] | None:
    """Return the tracer of a target, unless it is the one of this process."""
    tracer = tracer_of(target.pid)
    own = target.tracee.tracer if target.tracee is not None else None
    return None if tracer and tracer[0] == own else tracer


def _attached(
    target: Target, allowed: tuple[int, int] = (0, 0), *, features: int
) -> native.Attached:
    """Attach by a surgeon process, or by a thread here if Yama forbids that.

    A program that this process has started has a tracer, which attaches.

    With ptrace_scope 1 only the ancestors of a process may trace it. The surgeon is not
    an ancestor of this process's child.
    """
    start_time = target.facts.start_time
    if target.tracee is not None and not target.tracee.lost:
        return target.tracee.attach(start_time=start_time, allowed=allowed)
    result = native.attach(
        target.pid, start_time=start_time, allowed=allowed, features=features
    )
    refused = result.step in ("open", "seize") and _is_denial(result.error)
    if not refused or yama_scope() != "1":
        return result
    return native.attach(
        target.pid,
        start_time=start_time,
        allowed=allowed,
        by_thread=True,
        features=features,
    )


def _check_it_is_of(target: Target, uffd: int) -> None:
    """Check that a userfaultfd belongs to the target, and not to another process.

    It is tried on a small mapping, because that is locked for it; on the next one if a
    mapping is gone or already registered. Mappings of files are not used: Linux before
    6.17 could crash (see `pagescan.tracking.unregistering`).

    Raises:
        PagescanError: All private memory is registered with another userfaultfd.
        TargetError: It belongs to another process, or the target has ended.
    """
    try:
        fd = os.open(f"{memory_dir(target.pid)}/maps", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        raise _replaced(target) from None
    codes = set()
    for start, end in _anonymous(fd, target.meter):
        try:
            if native.uffd_is_of(uffd, target.pagemap, start, end, target.meter):
                return
            break
        except OSError as error:
            codes.add(error.errno)
    else:
        if codes == {errno.EBUSY}:
            raise PagescanError(
                f"nothing of {target} can be armed: another userfaultfd has it all:"
                " the target's own, or another session's",
                pid=target.pid,
                errno=errno.EBUSY,
            )
    raise _replaced(target)


def _anonymous(maps: int, meter: native.Meter) -> Iterator[tuple[int, int]]:
    """Yield the ranges of private mappings without a file, small ones first."""
    with open(maps, "rb", buffering=0) as file:
        rest = b""
        for piece in native.read_pieces(file.fileno(), meter):
            *lines, rest = (rest + piece).split(b"\n")
            bounds = []
            for words in map(bytes.split, lines):
                special = words[-1].startswith(b"[v")  # [vdso] and the like
                anonymous = words[3:5] == [b"00:00", b"0"] and not special
                if words[1].endswith(b"p") and anonymous:
                    start, end = (int(word, 16) for word in words[0].split(b"-"))
                    bounds.append((start, end))
            yield from sorted(bounds, key=lambda pair: pair[1] - pair[0])


def _replaced(target: Target) -> TargetError:
    if target.exited():
        return target.gone()
    why, hint = _WHY["replaced", False]
    return UnsuitableTargetError(f"{target} {why}", hint=hint, pid=target.pid)


def _traced(target: Target, tracer: tuple[int, str]) -> PagescanError:
    return UnsuitableTargetError(
        f"{target} is traced already, by {tracer[0]} ({tracer[1]})",
        hint="end the debugger, strace or profiler first: only one can trace a process",
        pid=target.pid,
    )


def _refusal(target: Target, result: native.Attached) -> PagescanError:
    """Return the error that tells why the attach failed, by the failed step."""
    if result.uffd >= 0:
        os.close(result.uffd)
    if target.exited() or not target.has_address_space():
        return target.gone()
    tracer = _other_tracer(target)
    if tracer:
        return _traced(target, tracer)
    return _by_looking(target, result) or _by_step(target, result)


def _by_looking(target: Target, result: native.Attached) -> PagescanError | None:
    """Return the cause from errno and a look at the machine, if it is clear."""
    late = result.error in (errno.ETIMEDOUT, errno.EAGAIN)
    facts: dict[str, Any] = {"pid": target.pid, "errno": result.error}
    if late and (stands := why_it_stands(target.pid)):
        return UnsuitableTargetError(f"{target} {stands[0]}", hint=stands[1], **facts)
    if late and (stands := why_it_stands(os.getpid())):
        itself = f"{target} was left alone: pagescan itself {stands[0]}"
        return PagescanError(itself, hint=stands[1], **facts)
    if result.error == errno.ECANCELED:
        by = signal_name(result.killed_by) if result.killed_by else "a signal"
        return PagescanError(
            f"{target} was left alone: the attaching process was killed by {by},"
            " not by pagescan",
            hint="try again",
            **facts,
        )
    if result.step == "call" and result.error in IN_THE_TARGET:
        reason, hint = IN_THE_TARGET[result.error]
        return PagescanError(f"{target} {reason}", hint=hint, **facts)
    return None


def _by_step(target: Target, result: native.Attached) -> PagescanError:
    why = _WHY.get((_cause(result), _is_denial(result.error)))
    if why:
        return UnsuitableTargetError(
            f"{target} {why[0]}", hint=why[1], pid=target.pid, errno=result.error
        )
    if (result.step, result.error) in _NO_KERNEL:
        return KernelUnsupportedError(
            "this kernel has no userfaultfd(2) with asynchronous write-protect",
            hint="pagescan doctor shows what this kernel can do",
            errno=result.error,
        )
    error = OSError(result.error, os.strerror(result.error))
    call = _CALL.get(result.step, "ptrace")
    if _is_denial(result.error):
        return denied(target.pid, f"attach to {target}", call, error)
    return from_oserror(error, doing=f"attach to {target}", pid=target.pid, call=call)


def _cause(result: native.Attached) -> str:
    """Return the failed step, or a name for the way in which it failed."""
    special = {
        ("open", errno.ETIMEDOUT): "search",
        ("gadget", errno.ETIMEDOUT): "search",
        ("seize", errno.ETIMEDOUT): "execs",
        ("call", errno.ETIMEDOUT): "frozen",
        ("take", errno.ESTALE): "replaced",
    }
    return special.get((result.step, result.error), result.step)


def _is_denial(code: int) -> bool:
    return code in (errno.EPERM, errno.EACCES)


# The system call of a step; all other steps are of ptrace.
_CALL = {"open": "open", "call": "userfaultfd", "take": "pidfd_getfd"}
_ONLY_LOOK = "pagescan scan and pagescan maps work with it"

_NO_KERNEL = (
    ("call", errno.ENOSYS),  # no userfaultfd(2)
    ("call", errno.EINVAL),  # none for user-mode faults
    ("take", errno.ENOTTY),  # no asynchronous write-protect
)

# The target's problem and a remedy, by the failed step and whether it was a denial.
_WHY = {
    ("seccomp", True): (
        "has a seccomp filter, which could kill it for userfaultfd(2)",
        "as root with CAP_SYS_ADMIN the filter is suspended for the attach",
    ),
    ("dispatch", True): (
        "catches its system calls itself (Syscall User Dispatch, as Wine has it)",
        "try again: it may allow them at another moment",
    ),
    ("replaced", False): (
        "replaced the new userfaultfd by another file",
        "try again; none of its files was closed",
    ),
    ("facts", False): (
        "could not be examined completely, and was left alone",
        "is /proc complete, and the pid of this PID namespace?",
    ),
    ("table", False): (
        "has threads with descriptors of their own, and only these could be stopped",
        "Linux 6.9 can reach them",
    ),
    ("call", True): (
        "was refused userfaultfd(2)",
        "a security module of this machine forbids it: see its log",
    ),
    ("search", False): (
        "could not be examined in time: reading its code took more than a second",
        "does one of its files lie on a server that does not answer? If not, try again",
    ),
    ("execs", False): (
        "does not respond: it is in an execve(2) that does not end",
        "does it wait for a file on a server? Try again when the call has ended",
    ),
    ("stop", False): (
        "could not be stopped: none of its threads stopped in time",
        "they are in uninterruptible sleep or wait for a vfork; try again",
    ),
    ("frozen", False): (
        "does not run: its threads stop, but make no system call",
        "is its container paused, its cgroup frozen? Thaw it first",
    ),
    ("exec", False): ("changed its code while it was looked at", "try again"),
    ("abi", False): ("runs 32-bit code, and pagescan tracks 64-bit only", _ONLY_LOOK),
    ("gadget", False): ("has no system call instruction to borrow", _ONLY_LOOK),
}
