"""The error tree: every failure of pagescan, its exit code and its remedy.

PagescanError                     1  anything that fails while it is done
├─ SessionError                   1  no session, two sessions, tracked already
│  └─ SessionLostError            1  the keeper died: what was written is unknown
├─ UsageError                     2  the caller's words are off
├─ TargetError                    3  ProcessLookupError as well
│  ├─ NoSuchTargetError           3  no such process, or another one by now
│  └─ UnsuitableTargetError       3  kernel thread, zombie, traced, exec'd, …
├─ AccessDeniedError              4  PermissionError as well
└─ KernelUnsupportedError         5  the kernel has no such interface
"""

import errno as errno_names
import os
from typing import ClassVar


class PagescanError(Exception):
    """Something could not be done; `str()` is one line: what, and why.

    Attributes:
        hint: One line that says what to try, or None.
        code: The exit code that the command line gives it.
    """

    code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message in `args`, so that the error pickles."""
        super().__init__(message)
        self.hint = hint


class SessionError(PagescanError):
    """There is no such session, more than one, or one too many."""


class SessionLostError(SessionError):
    """The holder of the userfaultfd died: what was written since is unknown."""


class UsageError(PagescanError):
    """A value that the caller gave is malformed."""

    code = 2


class TargetError(PagescanError, ProcessLookupError):
    """The process cannot be looked at."""

    code = 3


class NoSuchTargetError(TargetError):
    """No such process, or its pid belongs to another one by now."""


class UnsuitableTargetError(TargetError):
    """The process is there, but of a kind that pagescan cannot look at."""


class AccessDeniedError(PagescanError, PermissionError):
    """The kernel does not let this user look at the process."""

    code = 4


class KernelUnsupportedError(PagescanError):
    """The running kernel lacks an interface that was asked for."""

    code = 5


_PERMISSION_HINT = (
    "run as root or as the owner of the process; "
    "see PERMISSIONS in pagescan(1), and pagescan doctor"
)


def from_errno(code: int, *, doing: str, pid: int | None = None) -> PagescanError:
    """Turn the errno of a failed step into an error; the only place that does.

    Args:
        code: A positive errno.
        doing: The step that failed, as in "cannot <doing>", target included.
        pid: The target, where there is one: ENOENT and ESRCH then mean that it went.
    """
    name = errno_names.errorcode.get(code, str(code))
    reason = f"{os.strerror(code).lower()} ({name})"
    message = f"cannot {doing}: {reason}"
    if pid is not None and code in (errno_names.ESRCH, errno_names.ENOENT):
        return NoSuchTargetError(f"cannot {doing}: process {pid} is gone")
    if code in (errno_names.EPERM, errno_names.EACCES):
        return AccessDeniedError(message, hint=_PERMISSION_HINT)
    if code in (errno_names.ENOTTY, errno_names.ENOSYS):
        return KernelUnsupportedError(
            message, hint="pagescan doctor shows what this kernel can do"
        )
    return PagescanError(message)
