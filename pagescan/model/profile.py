"""Bytes by stack and thread, for viewers of profiles; no I/O."""

from datetime import datetime
from typing import NamedTuple

from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import TargetFacts
from pagescan.model.writers import WriterReport


class Frame(NamedTuple):
    """One function of a stack."""

    function: str
    module: str | None = None
    file: str | None = None
    line: int | None = None


class Stack(NamedTuple):
    """Bytes that one thread has written first, by one stack of functions."""

    frames: tuple[Frame, ...]
    """The outermost first."""
    bytes: int
    at: float | None = None
    """Milliseconds since the beginning of the profile; None: the sum of all times."""


class ThreadProfile(NamedTuple):
    """The bytes that one thread has written first."""

    name: str
    tid: int | None
    """None: several threads that are not listed, or no thread."""
    stacks: tuple[Stack, ...]
    target: TargetFacts | None = None
    """Its process; None: that of the profile."""


class Course(NamedTuple):
    """A number of bytes over time."""

    name: str
    description: str
    target: TargetFacts
    points: tuple[tuple[float, int], ...]
    """Milliseconds since the beginning of the profile, and the bytes then."""


class Profile(NamedTuple):
    """Bytes by thread and stack."""

    title: str
    time: datetime
    target: TargetFacts
    """The process; of a group only its name, with the pid 0."""
    threads: tuple[ThreadProfile, ...]
    courses: tuple[Course, ...] = ()

    @property
    def has_several(self) -> bool:
        """Whether its threads are of several processes, as those of a group."""
        return any(thread.target not in (None, self.target) for thread in self.threads)

    def process_of(self, thread: ThreadProfile) -> str:
        """Return the name of a thread's process; with its pid if there are several."""
        target = thread.target or self.target
        if not (self.has_several and target.pid):
            return target.name
        return f"{target.name} ({target.pid})"

    @property
    def bytes(self) -> int:
        """All bytes."""
        return sum(stack.bytes for thread in self.threads for stack in thread.stacks)


OTHERS = "(other threads)"
NO_THREAD = "(no thread)"


def profile_of(report: WriterReport) -> Profile:
    """Return the bytes of the writers of a report, by thread.

    The rows without a writer are a thread of their own, so that nothing is left out.
    """
    stacks: dict[tuple[str, int | None, int | None], list[Stack]] = {}
    for writer in report.writers:
        name = writer.function or _nameless(writer.module, writer.offset)
        own = Frame(name, writer.module, writer.file, writer.line)
        callers = (Frame(caller) for caller in reversed(writer.callers))
        frames = (*callers, own)
        rest = writer.pages
        for thread in writer.threads:
            key = (thread.name, thread.tid, thread.pid)
            stacks.setdefault(key, []).append(Stack(frames, thread.pages * PAGE_SIZE))
            rest -= thread.pages
        if rest > 0:
            others = stacks.setdefault((OTHERS, None, None), [])
            others.append(Stack(frames, rest * PAGE_SIZE))
    fixed = [Stack((Frame(text),), n * PAGE_SIZE) for text, n in report.fixed_rows]
    if fixed:
        stacks[NO_THREAD, None, None] = fixed
    targets = {process.target.pid: process.target for process in report.processes}
    threads = [
        ThreadProfile(name, tid, tuple(rows), targets.get(pid or 0))
        for (name, tid, pid), rows in stacks.items()
    ]
    threads.sort(key=lambda thread: -sum(stack.bytes for stack in thread.stacks))
    target, name = report.target, str(report.group)
    if target is None:  # what is of no process, or of several ones
        target = TargetFacts(0, name, None, 0, PAGE_SIZE)
    else:
        name = f"{target.name} ({target.pid})"
    return Profile(f"{name}: first writes", report.time, target, tuple(threads))


def _nameless(module: str | None, offset: int | None) -> str:
    """Return a name for code without one: its file, and the place in it."""
    where = (module or "(unmapped)").rpartition("/")[2]
    return where if offset is None else f"{where}+{offset:#x}"
