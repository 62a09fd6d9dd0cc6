"""Finds which thread's stack a mapping is: the stack pointer of each blocked thread."""

import os
from typing import NamedTuple

from pagescan.model.units import escape


class ThreadStack(NamedTuple):
    """Where the stack of a thread is.

    Attributes:
        tid: The thread id.
        name: The thread's name (comm), escaped.
        pointer: Its stack pointer, an address.
    """

    tid: int
    name: str
    pointer: int


def thread_stacks(pid: int) -> list[ThreadStack]:
    """Return the stacks of the threads that are blocked; the others are not known.

    A thread that runs has no stack pointer to read; it is not stopped for that.
    Source: /proc/PID/task/TID/syscall, proc_pid_syscall(5): its last two fields are
    the stack pointer and the program counter. Reading it takes the right to trace.
    """
    stacks = []
    for tid in _threads(pid):
        try:
            with open(f"/proc/{pid}/task/{tid}/syscall") as file:
                fields = file.read().split()
            with open(f"/proc/{pid}/task/{tid}/comm", errors="surrogateescape") as file:
                name = file.read().rstrip("\n")
        except OSError:  # it has ended, or this user may not trace it
            continue
        if len(fields) >= 3:
            stacks.append(ThreadStack(tid, escape(name), int(fields[-2], 16)))
    return stacks


def _threads(pid: int) -> list[int]:
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except OSError:
        return []
