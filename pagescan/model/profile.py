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


class ThreadProfile(NamedTuple):
    """The bytes that one thread has written first."""

    name: str
    tid: int | None
    """None: several threads that are not listed, or no thread."""
    stacks: tuple[Stack, ...]


class Profile(NamedTuple):
    """Bytes by thread and stack."""

    title: str
    time: datetime
    target: TargetFacts
    threads: tuple[ThreadProfile, ...]

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
    stacks: dict[tuple[str, int | None], list[Stack]] = {}
    for writer in report.writers:
        name = writer.function or _nameless(writer.module, writer.offset)
        own = Frame(name, writer.module, writer.file, writer.line)
        callers = (Frame(caller) for caller in reversed(writer.callers))
        frames = (*callers, own)
        rest = writer.pages
        for thread in writer.threads:
            key = (thread.name, thread.tid)
            stacks.setdefault(key, []).append(Stack(frames, thread.pages * PAGE_SIZE))
            rest -= thread.pages
        if rest > 0:
            others = stacks.setdefault((OTHERS, None), [])
            others.append(Stack(frames, rest * PAGE_SIZE))
    fixed = [Stack((Frame(text),), n * PAGE_SIZE) for text, n in report.fixed_rows]
    if fixed:
        stacks[NO_THREAD, None] = fixed
    threads = [ThreadProfile(*key, tuple(rows)) for key, rows in stacks.items()]
    threads.sort(key=lambda thread: -sum(stack.bytes for stack in thread.stacks))
    title = f"{report.target.name} ({report.target.pid}): first writes"
    return Profile(title, report.time, report.target, tuple(threads))


def _nameless(module: str | None, offset: int | None) -> str:
    """Return a name for code without one: its file, and the place in it."""
    where = (module or "(unmapped)").rpartition("/")[2]
    return where if offset is None else f"{where}+{offset:#x}"
