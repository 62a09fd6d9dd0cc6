"""Runs pagescan where the kernel answers as an older one does, or forbids a call.

A seccomp filter in this process answers for the kernel: what pagescan gets is a real
errno of a real system call. Other processes, its targets among them, have no filter.

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
_IOCTL, _EXECVE, _USERFAULTFD = 16, 59, 323
_PAGEMAP_SCAN, _UFFDIO_API = 0xC0606610, 0xC018AA3F


class Answer(NamedTuple):
    """What a system call says; with a request: only the ioctl of that number."""

    call: int
    code: int
    request: int | None = None


ANSWERS = {
    # As Linux 6.1 does: no such ioctl, and the features are unknown.
    "no-scan": Answer(_IOCTL, errno.ENOTTY, _PAGEMAP_SCAN),
    "no-async": Answer(_IOCTL, errno.EINVAL, _UFFDIO_API),
    # As the profiles of containers do.
    "forbidden": Answer(_USERFAULTFD, errno.EPERM),
    "unknown": Answer(_USERFAULTFD, errno.ENOSYS),
    # So that a program that is started gives itself away.
    "no-exec": Answer(_EXECVE, errno.EPERM),
}

LINUX_6_1 = "no-scan,no-async"


def _instruction(code: int, value: int, unless: int = 0) -> bytes:
    return struct.pack("=HBBI", code, 0, unless, value)


def _program(answers: list[Answer]) -> bytes:
    """Return the filter: each answer is looked at in turn."""
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
    """Put the filter around this process and its children, for ever."""
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
    """Load pagescan, forbid, and run it."""
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
