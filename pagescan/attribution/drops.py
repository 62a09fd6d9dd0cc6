"""Finds the shared pages that one side of a fork has given back since.

When a process frees memory that it shares with a child, the child keeps these pages
alone, and a later write of the child copies nothing. So for a child that frees memory.
Nothing tells of it, so both sides are looked at again and again.
"""

import contextlib
from collections.abc import Iterable

from pagescan import native
from pagescan.attribution.families import FamilyProcess
from pagescan.attribution.forks import Fork, Side, held
from pagescan.attribution.samples import clock_ns
from pagescan.model.errors import PagescanError, TargetError
from pagescan.target.forked_memory import sharing_parent
from pagescan.target.process import Target

_LEAST_NS = 100_000_000
_MOST_SHARE = 20
"""The looks take at most this part of the time: one divided by it."""


class Drops:
    """Looks at the two sides of each fork, ten times per second at most.

    Attributes:
        notes: Notes for the user about processes that could not be looked at.
    """

    def __init__(self) -> None:
        """Begin without a process."""
        self.notes: dict[str, None] = {}
        self._targets: dict[FamilyProcess, Target] = {}
        self._due = 0

    def look(self, forks: Iterable[Fork]) -> None:
        """Mark the pages that a side has given back, if it is time for it."""
        begun = clock_ns()
        if begun < self._due:
            return
        found: dict[FamilyProcess, native.Columns | None] = {}
        for fork in forks:
            for side in (fork.parent, fork.child):
                process = side.process
                if process is None:
                    continue
                if process not in found:
                    found[process] = self._held(process, side)
                pages = found[process]
                if pages is not None:
                    side.drop(fork.shared, fork.first_pages, pages)
        for process in self._targets.keys() - found.keys():
            self._targets.pop(process).close()
        now = clock_ns()
        self._due = now + max(_LEAST_NS, _MOST_SHARE * (now - begun))

    def _held(self, process: FamilyProcess, side: Side) -> native.Columns | None:
        """Return the private memory of a process; None: it is not known, or gone."""
        pid = process.pid
        try:
            if process not in self._targets:
                with contextlib.ExitStack() as undo:
                    target = undo.enter_context(Target.open(pid))
                    if side.role == "child" and sharing_parent(pid) is None:
                        return None  # it has called exec just now
                    self._targets[process] = target
                    undo.pop_all()
            return held(self._targets[process])
        except TargetError:  # it has ended
            return None
        except PagescanError as error:
            self.notes[f"memory that {pid} gives back counts as copied: {error}"] = None
            return None

    def close(self) -> None:
        """Close the processes; a second call has no effect."""
        for target in self._targets.values():
            target.close()
        self._targets.clear()
