"""Follows a process and its forked children, and counts the shared pages they copy."""

import contextlib

from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.exact_copies import ExactCopies
from pagescan.attribution.families import Program
from pagescan.attribution.samples import FaultSampler
from pagescan.attribution.symbols import Symbols
from pagescan.target.find import pid_of
from pagescan.target.forked_memory import sharing_parent
from pagescan.target.group import Member, Tree
from pagescan.target.process import Target


class CopyWatch(CopyCounter):
    """The copies of a process and its children. A context manager.

    Attributes:
        target: The oldest process of the family.

    Examples:
        >>> import pagescan
        >>> with pagescan.CopyWatch(4242) as watch:
        ...     report = watch.report()
        >>> report.processes[0].role, report.lost
        ('parent', 0)
    """

    def __init__(
        self, pid: int | str, *, existing: bool = True, exact: bool = False
    ) -> None:
        """Begin to follow a process.

        Args:
            pid: The process, by its pid or its name.
            existing: Include the children that it has now.
            exact: Arm its memory, and let each fork wait until it has been read; see
                docs/copies.md for what that risks. `sessions` lists the process as
                tracked until the end.

        Raises:
            PagescanError: It cannot be looked at, its faults cannot be sampled, or it
                cannot be armed; with `exact` SessionError: it is tracked already.
        """
        with contextlib.ExitStack() as undo:
            self.target = undo.enter_context(Target.open(pid_of(pid)))
            root = self.target.pid
            members = Tree.of(root).members() if existing else ()
            sampler = undo.enter_context(FaultSampler([root], children=True))
            program = Program(root, undo.enter_context(Symbols(root)))
            bits = _listed_bits(self.target, undo) if exact else None
            super().__init__(sampler, bits)
            self.target_facts = self.target.facts
            self.add_process(root, self.target.facts.name, program)
            for member in members:
                if member.pid != root:
                    self._add_descendant(member)
            self.copied_before = self.count_before()
            self._undo = undo.pop_all()

    def _add_descendant(self, member: Member) -> None:
        """Follow a child of before, or a child of a child, with what it shares."""
        pid, name = member.pid, member.name
        with self._unfollowed.trying(pid, name, "perf_event_open"):
            self._sampler.add(pid)
            parent = sharing_parent(pid)
            if parent in self.processes:
                self.add_existing(parent, pid, name)
            if pid not in self.processes and pid not in self._unfollowed:
                self.add_process(pid, name, Program(pid)).shown = False

    @property
    def inputs(self) -> list[int]:
        """A descriptor that becomes readable when the target has ended."""
        return [self.target.pidfd]

    def is_over(self, ready: list[int]) -> bool:
        """Whether the target has ended."""
        return self.target.pidfd in ready


def _listed_bits(target: Target, undo: contextlib.ExitStack) -> ExactCopies:
    """Arm a target, under its lock: `sessions` lists it until the end."""
    from pagescan.session.listed import listed

    held = undo.enter_context(listed(target.pid, "cow"))
    bits = undo.enter_context(ExactCopies(target.pid))
    held.armed(target.facts, bits.events.tracked_bytes or 0)
    return bits
