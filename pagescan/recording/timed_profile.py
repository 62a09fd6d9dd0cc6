"""Turns an excerpt of a recording into a profile: bytes by thread, code and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pagescan.model.profile import (
    NO_THREAD,
    Course,
    Frame,
    Profile,
    Stack,
    ThreadProfile,
)
from pagescan.model.results import TargetFacts
from pagescan.model.writers import KERNEL_OR_OTHER, LOST
from pagescan.recording.by_writer import code_of, name_of, writers_of
from pagescan.recording.records import moment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedLook

MOST = 500_000
"""Samples of a profile: viewers fail on files of some hundred MB."""
MAPPINGS = "(mappings)"
"""The name of the thread, where the recording does not say who wrote."""


class _Key(NamedTuple):
    """A thread of a process."""

    process: int
    name: str
    tid: int | None


class TimedProfile(NamedTuple):
    """A profile, and how many looks each of its samples stands for."""

    profile: Profile
    looks: int


def timed_profile(excerpt: Excerpt, most: int = MOST) -> TimedProfile:
    """Return the bytes of each look by thread and function, or else by mapping.

    A sample is the bytes that one function wrote first in one look; it has the time of
    that look. Where this would be more than `most` samples, each stands for several
    looks.
    """
    looks = excerpt.looks
    first = looks[0]
    begun = first.time_ns - first.interval_ns
    samples = sum(len(_written(excerpt, look)) for look in looks)
    step = max(1, -(-samples // most))
    threads: dict[_Key, list[Stack]] = {}
    for group in _groups(looks, step):
        sums: Counter[tuple[_Key, Frame]] = Counter()
        for look in group:
            sums.update(_written(excerpt, look))
        at = (group[-1].time_ns - begun) / 1e6
        for (key, frame), size in sums.items():
            threads.setdefault(key, []).append(Stack((frame,), size, at))
    recording = excerpt.recording
    rows = [
        ThreadProfile(key.name, key.tid, tuple(stacks), _target(excerpt, key.process))
        for key, stacks in sorted(
            threads.items(), key=lambda pair: (pair[0].process, -_bytes(pair[1]))
        )
    ]
    target, name = _whole(excerpt, first.process)
    what = "first writes" if recording.has_writers else "written mappings"
    courses = tuple(_courses(excerpt, begun))
    return TimedProfile(
        Profile(f"{name}: {what}", moment(begun), target, tuple(rows), courses), step
    )


def _whole(excerpt: Excerpt, first: int) -> tuple[TargetFacts, str]:
    """Return what the profile is of, and its name: a process, or a group."""
    target, group = _target(excerpt, first), excerpt.recording.facts.group
    if group is None:
        return target, f"{target.name} ({target.pid})"
    name = f"{group['kind']} {group['name']}"
    return TargetFacts(0, name, None, 0, target.page_size), name


def _written(excerpt: Excerpt, look: RecordedLook) -> Counter[tuple[_Key, Frame]]:
    """Return the bytes of a look by thread and code, or else by mapping."""
    recording, size = excerpt.recording, excerpt.page_size(look)
    sums: Counter[tuple[_Key, Frame]] = Counter()
    found = writers_of(excerpt, look) if recording.has_writers else None
    counts = excerpt.counts(look)
    if found is None:
        key = _Key(look.process, MAPPINGS, None)
        for mapping, pages in zip(*counts, strict=True):
            sums[key, Frame(name_of(recording, mapping) or "?")] += pages * size
        return sums
    for one in found.counts:
        function, module = code_of(recording, one.function)
        name = "?"
        tid = None
        if one.thread >= 0:
            _, tid, name = recording.threads[one.thread]
        where = (module or "(unmapped)").rpartition("/")[2]
        frame = Frame(function or where, module)
        sums[_Key(look.process, name, tid), frame] += one.pages * size
    missing = max(0, sum(counts.pages) - found.attributed)
    lost = min(found.lost, missing)
    nobody = _Key(look.process, NO_THREAD, None)
    for name, pages in ((KERNEL_OR_OTHER, missing - lost), (LOST, lost)):
        if pages:
            sums[nobody, Frame(name)] += pages * size
    return sums


def _groups(
    looks: Sequence[RecordedLook], step: int
) -> Iterator[Sequence[RecordedLook]]:
    for at in range(0, len(looks), step):
        yield looks[at : at + step]


def _courses(excerpt: Excerpt, begun: int) -> Iterator[Course]:
    """Yield the resident memory of each process over time."""
    for process, looks in excerpt.by_process().items():
        points = [
            ((look.time_ns - begun) / 1e6, look.resident)
            for look in looks
            if look.resident is not None
        ]
        if points:
            target = _target(excerpt, process)
            yield Course("resident", "Resident memory", target, tuple(points))


def _target(excerpt: Excerpt, process: int) -> TargetFacts:
    return excerpt.recording.processes[process].target


def _bytes(stacks: Sequence[Stack]) -> int:
    return sum(stack.bytes for stack in stacks)
