"""The processes of a family, their programs, and the names of their code."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import errno
import os
from array import array
from collections import Counter
from typing import TYPE_CHECKING

from pagescan import native
from pagescan.attribution.symbols import Name, Symbols
from pagescan.model.errors import PagescanError, TargetError
from pagescan.target.proc_files import if_it_lives
from pagescan.target.process import read_stat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pagescan.attribution.forks import Fork


class Program:
    """The code of a process, which its forked children share until they call exec."""

    def __init__(self, pid: int, symbols: Symbols | None = None) -> None:
        """Name the code of a process; without symbols, open its files when needed."""
        self._pid, self._symbols = pid, symbols
        self._failure: str | None = None

    def look(self) -> None:
        """Open the files now, because the process may end."""
        if self._symbols is None and self._pid:
            try:
                self._symbols = Symbols(self._pid)
            except TargetError:  # it has ended
                pass
            except PagescanError as error:
                self._failure = f"functions of {self._pid} have no name: {error}"
            self._pid = 0

    def names(self, codes: Iterable[int]) -> dict[int, Name]:
        """Return the names of addresses of code."""
        column = array("Q", codes)
        self.look()
        if self._symbols is None:  # it had ended
            return {code: Name(None, None, code) for code in column}
        return dict(zip(column, self._symbols.name(column), strict=True))

    @property
    def notes(self) -> list[str]:
        """Notes for the user about the names."""
        if self._symbols is not None:
            return self._symbols.notes
        return [] if self._failure is None else [self._failure]

    def close(self) -> None:
        """Close the files; a second call has no effect."""
        if self._symbols is not None:
            self._symbols.close()


class FamilyProcess:
    """A process of the family, with its copies for all forks that it is a side of.

    Attributes:
        program: The code that it runs.
        label: Its role, if its command line tells it; else None.
        copied: Pages; `seen`: at the last report.
        by_code: Pages by the address of the code that wrote.
        tids: Its threads.
        lives: Whether it has this memory: it has not ended, and not called exec.
        end: exited, exec or left (the group); None: it lives.
        made: The fork that made it; None: it is the oldest.
        shown: Whether it has a row, also without a fork.
    """

    def __init__(self, pid: int, name: str, program: Program) -> None:
        """Begin without a copy."""
        self.pid, self.name, self.program = pid, name, program
        self.label: str | None = None
        self.copied = self.seen = 0
        self.by_code: Counter[int] = Counter()
        self.tids = 1
        self.lives = True
        self.end: str | None = None
        self.made: Fork | None = None
        self.shown = True


def lives(pid: int) -> bool:
    """Whether a process has a thread that is not known to have ended."""
    try:
        return (
            read_stat(pid).state not in "ZXx"
            or len(os.listdir(f"/proc/{pid}/task")) > 1
        )
    except (FileNotFoundError, ProcessLookupError):
        return False
    except OSError:  # no descriptor is left, for example
        return True


def threads_of(pid: int) -> int:
    """Return how many threads a process has; 1: it has ended.

    Raises:
        PagescanError: It cannot be looked at, and has not ended.
    """
    others = 0
    with if_it_lives(pid, doing=f"list the threads of {pid}", call="open"):
        others = len(os.listdir(f"/proc/{pid}/task")) - 1
    return 1 + others


def is_one_memory(pid: int, other: int) -> bool:
    """Whether two processes that live have one address space, as after vfork(2).

    Raises:
        OSError: This user may not compare them.
    """
    try:
        return native.same_memory(pid, other)
    except OSError as error:
        if error.errno == errno.ESRCH or not _can_compare():
            return False
        raise


def _can_compare() -> bool:
    """Whether memory can be compared at all: a container's seccomp may forbid it."""
    own = os.getpid()
    try:
        return native.same_memory(own, own)
    except OSError:
        return False


def families_of(forks: Iterable[Fork]) -> list[list[int]]:
    """Return the pids of each family, parents before their children."""
    families: dict[int, list[int]] = {}
    for fork in forks:
        pids = families.setdefault(fork.parent.pid, [fork.parent.pid])
        pids.append(fork.child.pid)
        families[fork.child.pid] = pids
    return [*{pids[0]: pids for pids in families.values()}.values()]
