"""Writes a profile for the Firefox Profiler, with bytes as weights.

It is the processed format, in a version that the viewer upgrades when it loads a file:
every table is columns of equal length, and refers to others by index.
"""

import json
from typing import Any, TextIO

from pagescan import __version__
from pagescan.model.profile import Course, Frame, Profile, ThreadProfile

_VERSION = 48
_GECKO_VERSION = 27
_LIBRARY = 1  # the type of a resource
_CATEGORIES = [{"name": "Other", "color": "grey", "subcategories": ["Other"]}]


def write(profile: Profile, stream: TextIO) -> None:
    """Write a profile, one track per thread."""
    json.dump(document(profile), stream)
    stream.write("\n")


def document(profile: Profile) -> dict[str, Any]:
    """Return the profile as the viewer reads it."""
    return {
        "meta": {
            "version": _GECKO_VERSION,
            "preprocessedProfileVersion": _VERSION,
            "processType": 0,
            "product": "pagescan",
            "importedFrom": f"pagescan {__version__}",
            "interval": 1,
            "startTime": profile.time.timestamp() * 1000,
            "stackwalk": 1,
            "debug": False,
            "categories": _CATEGORIES,
            "markerSchema": [],
            "symbolicated": True,
            "profilingStartTime": 0,
            "profilingEndTime": _end(profile),
        },
        "libs": [],
        "pages": [],
        "threads": [
            _Tables(profile, thread, number).thread()
            for number, thread in enumerate(profile.threads)
        ],
        "counters": _counters(profile),
    }


def _end(profile: Profile) -> float:
    """Return the end of the profile, in milliseconds."""
    times = [time for thread in profile.threads for time in _times(thread)]
    return 1 + max(times, default=0)


def _times(thread: ThreadProfile) -> list[float]:
    """Return the times of its samples: without times, their numbers."""
    return [
        float(at) if stack.at is None else round(stack.at, 3)
        for at, stack in enumerate(thread.stacks)
    ]


def _counters(profile: Profile) -> list[dict[str, Any]]:
    """Return the tracks of bytes, of all processes that have a thread here."""
    owners = [thread.target or profile.target for thread in profile.threads]
    return [
        _counter(course, owners.index(course.target))
        for course in profile.courses
        if course.target in owners
    ]


def _counter(course: Course, thread: int) -> dict[str, Any]:
    """Return a track of bytes; its samples are differences, as the viewer wants."""
    counts = [count for _, count in course.points]
    return {
        "name": course.name,
        "category": "Memory",
        "description": course.description,
        "pid": str(course.target.pid),
        "mainThreadIndex": thread,
        "samples": {
            "time": [round(time, 3) for time, _ in course.points],
            "count": [
                after - before
                for before, after in zip([0, *counts], counts, strict=False)
            ],
            "length": len(counts),
        },
    }


class _Tables:
    """The tables of one thread; each name, frame and stack is in them once."""

    def __init__(self, profile: Profile, thread: ThreadProfile, number: int) -> None:
        self._profile, self._thread, self._number = profile, thread, number
        self._strings: dict[str, int] = {}
        self._resources: dict[str, int] = {}
        self._functions: dict[tuple[str, str | None, str | None], int] = {}
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[tuple[int | None, int], int] = {}

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

    def _stack(self, frames: tuple[Frame, ...]) -> int | None:
        """Return the index of a stack; the stacks above it are in the table, too."""
        index = None
        for frame in frames:
            key = (index, self._frame(frame))
            index = self._stacks.setdefault(key, len(self._stacks))
        return index

    def _frame(self, frame: Frame) -> int:
        function = (frame.function, frame.module, frame.file)
        self._functions.setdefault(function, len(self._functions))
        if frame.module:
            self._resources.setdefault(frame.module, len(self._resources))
        return self._frames.setdefault(frame, len(self._frames))

    def thread(self) -> dict[str, Any]:
        """Return the thread with its tables."""
        thread = self._thread
        stacks = [self._stack(stack.frames) for stack in thread.stacks]
        target = thread.target or self._profile.target
        return {
            "processType": "default",
            "processName": self._profile.process_of(thread),
            "processStartupTime": 0,
            "processShutdownTime": None,
            "registerTime": 0,
            "unregisterTime": None,
            "pausedRanges": [],
            "name": thread.name,
            "isMainThread": thread.tid == target.pid,
            "pid": str(target.pid),
            "tid": thread.tid if thread.tid is not None else f"none-{self._number}",
            "samples": {
                "stack": stacks,
                "time": _times(thread),
                "weight": [stack.bytes for stack in thread.stacks],
                "weightType": "bytes",
                "length": len(stacks),
            },
            "markers": _table(
                0, "data", "name", "startTime", "endTime", "phase", "category"
            ),
            "stackTable": self._stack_table(),
            "frameTable": self._frame_table(),
            "funcTable": self._function_table(),
            "resourceTable": self._resource_table(),
            "nativeSymbols": _table(0, "libIndex", "address", "name", "functionSize"),
            "stringArray": [*self._strings],
        }

    def _stack_table(self) -> dict[str, Any]:
        count = len(self._stacks)
        return {
            "frame": [frame for _, frame in self._stacks],
            "prefix": [prefix for prefix, _ in self._stacks],
            "category": [0] * count,
            "subcategory": [0] * count,
            "length": count,
        }

    def _frame_table(self) -> dict[str, Any]:
        count = len(self._frames)
        functions = [
            self._functions[frame.function, frame.module, frame.file]
            for frame in self._frames
        ]
        return {
            **_table(count, "nativeSymbol", "implementation", "column"),
            "address": [-1] * count,
            "inlineDepth": [0] * count,
            "category": [0] * count,
            "subcategory": [0] * count,
            "func": functions,
            "innerWindowID": [0] * count,
            "line": [frame.line for frame in self._frames],
        }

    def _function_table(self) -> dict[str, Any]:
        count = len(self._functions)
        return {
            **_table(count, "lineNumber", "columnNumber"),
            "name": [self._string(name) for name, _, _ in self._functions],
            "isJS": [False] * count,
            "relevantForJS": [False] * count,
            "resource": [
                self._resources[module] if module else -1
                for _, module, _ in self._functions
            ],
            "fileName": [
                self._string(file) if file else None for _, _, file in self._functions
            ],
        }

    def _resource_table(self) -> dict[str, Any]:
        count = len(self._resources)
        names = [module.rpartition("/")[2] for module in self._resources]
        return {
            **_table(count, "lib", "host"),
            "name": [self._string(name) for name in names],
            "type": [_LIBRARY] * count,
        }


def _table(length: int, *columns: str) -> dict[str, Any]:
    """Return a table in which these columns are unknown."""
    return {**{column: [None] * length for column in columns}, "length": length}
