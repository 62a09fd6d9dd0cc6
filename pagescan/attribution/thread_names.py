"""Names of a process's threads, also of those that have ended."""

import contextlib
import os
from collections.abc import Iterable

from pagescan.native.perf import FORK, NAMED, Task
from pagescan.target.proc_files import read_proc


class ThreadNames:
    """The names of the threads of one process, read before they end.

    A thread that ends before a tick has the name that it gave itself, else that of the
    thread that made it.
    """

    def __init__(self, pid: int) -> None:
        """Begin with the threads that exist."""
        self._pid = pid
        self._names: dict[int, str] = {}
        self._makers: dict[int, int] = {}
        with contextlib.suppress(OSError):
            self.learn(map(int, os.listdir(f"/proc/{pid}/task")))

    def take(self, task: Task) -> None:
        """Take the name of a thread from a record of the kernel."""
        if task.kind == NAMED:
            self._names[task.tid] = task.name
        elif task.kind == FORK and task.pid == task.parent:
            self._makers[task.tid] = task.maker

    def learn(self, tids: Iterable[int]) -> None:
        """Read the names of threads that have written."""
        for tid in tids:
            text = read_proc(self._pid, f"task/{tid}/comm")
            if text:
                self._names[tid] = text.rstrip(b"\n").decode(errors="replace")

    def of(self, tid: int) -> str:
        """Return the name of a thread; its number if it has none, or none is known."""
        seen = set()
        at = tid
        while at not in self._names and at in self._makers and at not in seen:
            seen.add(at)
            at = self._makers[at]
        return self._names.get(at) or str(tid)
