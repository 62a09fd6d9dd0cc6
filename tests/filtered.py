"""Runs pagescan under a filter that answers like an older kernel, or forbids a call.

A seccomp filter in this process answers for the kernel: pagescan sees a real errno of a
real system call. Other processes, its targets among them, have no filter.

    python -m tests.filtered WHAT[,WHAT]... WORD...     pagescan WORD...
    python -m tests.filtered WHAT[,WHAT]... -c CODE

WHAT is a key of ANSWERS. The code is loaded first, so that a filter may forbid execve.
"""

import ctypes
import errno
import runpy
import struct
import sys
from typing import NamedTuple

# <linux/filter.h>, <linux/seccomp.h>, <linux/prctl.h>; x86-64's system calls.
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
_NUMBER, _SECOND_ARGUMENT = 0, 24  # offsets in struct seccomp_data
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_IOCTL, _EXECVE, _PERF_EVENT_OPEN, _KCMP, _USERFAULTFD = 16, 59, 298, 312, 323
_PAGEMAP_SCAN, _UFFDIO_API = 0xC0606610, 0xC018AA3F


class Answer(NamedTuple):
    """The errno that a system call returns; with `request`, only that ioctl."""

    call: int
    code: int
    request: int | None = None


ANSWERS = {
    # Linux 6.1: the ioctl does not exist, and the features are unknown.
    "no-scan": Answer(_IOCTL, errno.ENOTTY, _PAGEMAP_SCAN),
    "no-async": Answer(_IOCTL, errno.EINVAL, _UFFDIO_API),
    # The seccomp profiles of containers.
    "forbidden": Answer(_USERFAULTFD, errno.EPERM),
    "unknown": Answer(_USERFAULTFD, errno.ENOSYS),
    "no-perf": Answer(_PERF_EVENT_OPEN, errno.EACCES),
    "unknown-perf": Answer(_PERF_EVENT_OPEN, errno.ENOSYS),
    "no-kcmp": Answer(_KCMP, errno.EPERM),
    "unknown-kcmp": Answer(_KCMP, errno.ENOSYS),
    # Any attempt to start a program fails, and so becomes visible.
    "no-exec": Answer(_EXECVE, errno.EPERM),
}

LINUX_6_1 = "no-scan,no-async"


def _instruction(code: int, value: int, unless: int = 0) -> bytes:
    return struct.pack("=HBBI", code, 0, unless, value)


def _program(answers: list[Answer]) -> bytes:
    """Return the filter program: it tests each answer in turn."""
    text = b""
    for answer in answers:
        ending = _instruction(_RETURN, _ERRNO | answer.code)
        if answer.request is not None:
            ending = (
                _instruction(_LOAD, _SECOND_ARGUMENT)
                + _instruction(_EQUAL, answer.request, 1)
                + ending
            )
        text += _instruction(_LOAD, _NUMBER)
        text += _instruction(_EQUAL, answer.call, len(ending) // 8) + ending
    return text + _instruction(_RETURN, _ALLOW)


def forbid(names: str) -> None:
    """Install the filter in this process and its children; it cannot be removed."""
    text = _program([ANSWERS[name] for name in names.split(",")])
    buffer = ctypes.create_string_buffer(text)
    program = struct.pack("HxxxxxxQ", len(text) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, program, 0, 0),
    ):
        if libc.prctl(*words):
            raise OSError(ctypes.get_errno(), f"prctl{words[:2]}")


def main(names: str, *words: str) -> None:
    """Load pagescan, install the filter, and run the command or the code."""
    import pagescan.cli

    for name in pagescan.cli.COMMANDS:
        pagescan.cli.cli.get_command(None, name)  # type: ignore[arg-type]
    forbid(names)
    if words[0] == "-c":
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
        return
    sys.argv = ["pagescan", *words]
    runpy.run_module("pagescan", run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
