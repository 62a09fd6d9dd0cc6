"""The error tree: every failure of pagescan, its exit code and its remedy.

PagescanError                     1  any failure while running
├─ SessionError                   1  no session, two sessions, tracked already
│  └─ SessionLostError            1  the keeper died: its written pages are unknown
├─ UsageError                     2  an invalid value from the caller
├─ TargetError                    3  ProcessLookupError as well
│  ├─ NoSuchTargetError           3  no such process, or a later one with its pid
│  └─ UnsuitableTargetError       3  kernel thread, zombie, traced, exec'd, …
├─ AccessDeniedError              4  PermissionError as well
└─ KernelUnsupportedError         5  the kernel has no such interface
"""

import errno
import errno as errno_names
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar


class PagescanError(Exception):
    """Something failed; `str()` is one line that says what, and why.

    Attributes:
        hint: One line that says what to try, or None.
        details: Lines below the message, such as the processes to choose from.
        code: The exit code that the command line gives it.
        pid: The process that the failure is about, or None.
        call: The system call that failed, as in "userfaultfd", or None.
        errno: The error number of that call, positive, or None.
        range: The addresses that the call was about, start and end, or None.
    """

    code: ClassVar[int] = 1
    errno: int | None

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Sequence[str] = (),
        pid: int | None = None,
        call: str | None = None,
        errno: int | None = None,
        range: tuple[int, int] | None = None,  # noqa: A002 - the word of the manual
    ) -> None:
        """Keep the message in `args`, and the facts of the failure as attributes."""
        super().__init__(message)
        self.hint = hint
        self.details = tuple(details)
        for line in self.details:  # a traceback shows notes
            self.add_note(line)
        self.pid = pid
        self.call = call
        self.errno = errno
        self.range = range

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the keywords too: OSError would leave out its errno."""
        facts: dict[str, Any] = {
            "hint": self.hint,
            "details": self.details,
            "pid": self.pid,
            "call": self.call,
            "errno": self.errno,
            "range": self.range,
        }
        return partial(type(self), **facts), (str(self),)


class SessionError(PagescanError):
    """There is no session, more than one, or already one."""


class SessionLostError(SessionError):
    """The keeper died: which pages were written since is unknown."""


class UsageError(PagescanError):
    """A value that the caller gave is malformed."""

    code = 2


class TargetError(PagescanError, ProcessLookupError):
    """The process cannot be looked at."""

    code = 3


class NoSuchTargetError(TargetError):
    """No process has the pid, or a later process has it."""


class UnsuitableTargetError(TargetError):
    """The process exists, but pagescan cannot look at its kind."""


class AccessDeniedError(PagescanError, PermissionError):
    """The kernel does not let this user look at the process."""

    code = 4


class KernelUnsupportedError(PagescanError):
    """The running kernel lacks a requested interface."""

    code = 5


_PERMISSION_HINT = (
    "run as root or as the owner of the process; "
    "see PERMISSIONS in pagescan(1), and pagescan doctor"
)
_DOCTOR_HINT = "pagescan doctor shows what this kernel can do"


def from_oserror(
    error: OSError,
    *,
    doing: str,
    pid: int | None = None,
    call: str | None = None,
    range: tuple[int, int] | None = None,  # noqa: A002 - the word of the manual
) -> PagescanError:
    """Turn the OSError of a failed step into an error that carries its facts.

    This knows what an errno means whatever the call was. Where an errno has another
    meaning in one step, the function of that step looks at it first, and ends here.

    Args:
        error: The exception that the step raised.
        doing: The step, as in "cannot <doing>", with the target's name.
        pid: The target, if any: ENOENT and ESRCH then mean that it has ended.
        call: The system call that failed, if known.
        range: The addresses that the step was about.
    """
    code = error.errno or 0
    reason = f"{os.strerror(code).lower()} ({name_of(code)})"
    reason, hint = BY_ERRNO.get(code, (reason, None))
    message = f"cannot {doing}: {reason}"
    kind: type[PagescanError] = PagescanError
    if pid is not None and code in (errno_names.ESRCH, errno_names.ENOENT):
        kind, message = NoSuchTargetError, f"cannot {doing}: process {pid} has ended"
    elif code in (errno_names.EPERM, errno_names.EACCES):
        kind, hint = AccessDeniedError, _PERMISSION_HINT
    elif code in (errno_names.ENOTTY, errno_names.ENOSYS):
        kind, hint = KernelUnsupportedError, _DOCTOR_HINT
    return kind(message, hint=hint, pid=pid, call=call, errno=code, range=range)


def file_error(
    error: OSError, doing: str, *, call: str = "open", hint: str | None = None
) -> PagescanError:
    """Turn the OSError of a file that the user named into an error: exit code 1.

    Args:
        error: The exception that the step raised.
        doing: The step with the file's name, as in "cannot <doing>".
        call: The system call that failed.
        hint: A remedy, if there is one.
    """
    reason = (error.strerror or str(error)).lower()
    return PagescanError(
        f"cannot {doing}: {reason}", hint=hint, call=call, errno=error.errno
    )


def name_of(code: int) -> str:
    """Return the symbol of an errno, as in "ENOSPC"."""
    return errno_names.errorcode.get(code, str(code))


BY_ERRNO = {
    errno.EMFILE: (
        "this process has reached its limit of descriptors (EMFILE)",
        "raise the limit: ulimit -n",
    ),
    errno.ENFILE: (
        "the machine has no descriptor left (ENFILE)",
        "sysctl fs.file-nr shows how many there are, fs.file-max the limit",
    ),
    errno.ENOMEM: ("there is no memory left (ENOMEM)", None),
}
"""The meaning of an errno in this process, with a remedy, whatever the call was."""

IN_THE_TARGET = {
    errno.EMFILE: (
        "has reached its limit of descriptors, and the attach needs one (EMFILE)",
        "raise its limit: prlimit --nofile=N --pid PID",
    ),
    errno.ENFILE: (
        "could not open a descriptor: the machine has none left (ENFILE)",
        BY_ERRNO[errno.ENFILE][1],
    ),
    errno.ENOMEM: ("could get no memory for a userfaultfd (ENOMEM)", None),
}
"""The meaning of an errno of a call that the target was made to make."""
