"""Finds out whether processes can be tracked here, on a userfaultfd of its own.

The answer needs no target, so none is stopped in vain. If the trial itself is not
possible, that is not a "no": a filter around this process tells nothing about the
kernel or about a target.
"""

import copy
import errno
import functools
import os

from pagescan import native
from pagescan.model.errors import (
    AccessDeniedError,
    KernelUnsupportedError,
    PagescanError,
    from_oserror,
    name_of,
)
from pagescan.target.causes import has_filter

SINCE = "6.10" if os.uname().machine == "aarch64" else "6.7"
"""The first Linux that has asynchronous write-protect on this processor."""

_HINT = "pagescan doctor shows what this kernel can do"
# Since Linux 5.2 all kernels with userfaultfd(2) have it: source, fs/userfaultfd.c.
_SWITCH = "/proc/sys/vm/unprivileged_userfaultfd"


def open_own() -> int:
    """Return a userfaultfd of this process, with the features enabled.

    Raises:
        KernelUnsupportedError: The kernel has no userfaultfd, or none that protects
            asynchronously.
        AccessDeniedError: A seccomp filter or another policy forbids the call.
        PagescanError: For example, no descriptor is left.
    """
    uffd = create()
    try:
        native.uffd_api(uffd)
    except OSError as error:
        os.close(uffd)
        raise _no_features(error) from error
    return uffd


def create() -> int:
    """Return a userfaultfd of this process; errors as for `open_own`."""
    try:
        return native.uffd_open()
    except OSError as error:
        raise _no_userfaultfd(error) from error


def check_fork_events() -> None:
    """Try fork events on an own userfaultfd, which has no memory.

    Raises:
        AccessDeniedError: CAP_SYS_PTRACE is missing.
        KernelUnsupportedError: The kernel has no fork events.
        PagescanError: No userfaultfd can be made.
    """
    uffd = create()
    try:
        native.uffd_api(uffd, native.UFFD_FEATURES | native.UFFD_FORKS)
    except PermissionError as error:
        raise AccessDeniedError(
            "this user may not have the events of forks: CAP_SYS_PTRACE is missing",
            hint="run as root, or leave out --exact",
            call="ioctl(UFFDIO_API)",
            errno=error.errno,
        ) from error
    except OSError as error:
        raise KernelUnsupportedError(
            "this kernel has no events of forks for memory that is tracked",
            hint="leave out --exact; pagescan doctor shows what this kernel can do",
            call="ioctl(UFFDIO_API)",
            errno=error.errno,
        ) from error
    finally:
        os.close(uffd)


def why_impossible() -> KernelUnsupportedError | None:
    """Return why no other process can be tracked here; None: no reason is known.

    The kernel is tried once per process; no other process is touched.
    """
    error = copy.copy(_missing())  # a raised error gets a traceback
    if error or native.can_attach():
        return error
    return KernelUnsupportedError(
        "another process can be tracked on x86-64 only,"
        f" and this processor is {os.uname().machine}",
        hint="pagescan scan and pagescan maps work here",
    )


def check_possible() -> None:
    """Raise the error that `why_impossible` returns, if there is one."""
    error = why_impossible()
    if error:
        raise error


@functools.cache
def _missing() -> KernelUnsupportedError | None:
    try:
        os.close(open_own())
    except KernelUnsupportedError as error:
        return copy.copy(error)  # without its traceback
    except PagescanError:
        return None  # the trial was not possible
    return None


def _no_userfaultfd(error: OSError) -> PagescanError:
    hidden = error.errno == errno.ENOSYS and os.path.exists(_SWITCH) and has_filter()
    if hidden or error.errno in (errno.EPERM, errno.EACCES):
        return _forbidden(error, "userfaultfd")
    if error.errno == errno.EINVAL:
        return KernelUnsupportedError(
            "this kernel's userfaultfd cannot be had for user-mode faults (Linux 5.11)",
            hint=_HINT,
            call="userfaultfd",
            errno=error.errno,
        )
    return from_oserror(error, doing="create a userfaultfd", call="userfaultfd")


def _no_features(error: OSError) -> PagescanError:
    if error.errno == errno.EINVAL:
        return KernelUnsupportedError(
            "this kernel's userfaultfd has no asynchronous write-protect"
            f" (Linux {SINCE})",
            hint=_HINT,
            call="UFFDIO_API",
            errno=error.errno,
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return _forbidden(error, "UFFDIO_API")
    return from_oserror(error, doing="set up a userfaultfd", call="UFFDIO_API")


def _forbidden(error: OSError, call: str) -> AccessDeniedError:
    """Return the error for a forbidden call that normally needs no right.

    With UFFD_USER_MODE_ONLY, vm.unprivileged_userfaultfd=0 does not forbid it either.
    """
    code = error.errno or 0
    if has_filter():
        who = "a seccomp filter around this process"
        hint = "give it, or its container, a seccomp profile that allows userfaultfd(2)"
    else:
        who = "a policy of this machine"
        hint = "see the log of SELinux or of another security module"
    return AccessDeniedError(
        f"{who} forbids {call}: {os.strerror(code).lower()} ({name_of(code)})",
        hint=hint,
        call=call,
        errno=code,
    )
