"""Keeps the looks at a tracked target in files: names them, rotates them, ends them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pagescan import __version__
from pagescan.model.units import now
from pagescan.recording.output_file import OutputFile, Ring
from pagescan.recording.records import RecordingFacts
from pagescan.target.labels import Labels

if TYPE_CHECKING:
    from pagescan.model.looks import Tick
    from pagescan.model.results import TargetFacts
    from pagescan.tracking.tracking import Tracking

SUFFIX = ".pagescan"


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which file the looks are written to, and how much of them is kept.

    Attributes:
        path: The file; None: it is named after its target, in the current directory.
        overwrite: Whether a file with that name is overwritten.
        rotate: Seconds after which another file begins; None: never.
        ring: The limits of a flight recorder; None: all looks are kept.
    """

    path: str | None = None
    overwrite: bool = False
    rotate: float | None = 3600.0
    ring: Ring | None = None


@dataclass(slots=True)
class _Program:
    """The program that is recorded now."""

    tracking: Tracking
    key: int
    labels: Labels
    seen: object = None  # the mappings that the texts are for
    texts: dict[int, str] = field(default_factory=dict)


class Recorder:
    """Writes each tick into a file before it returns.

    Attributes:
        paths: The files so far.
        looks: How many looks are in them.
        recorder_ns: Processor time that storing all looks has taken.
    """

    def __init__(
        self,
        keeping: Keeping,
        target: TargetFacts,
        *,
        interval: float,
        budget: float | None = None,
        options: Dict[str, object] | None = None,
    ) -> None:
        """Create the first file, before the target is touched.

        Args:
            keeping: The file, and how much is kept.
            target: The process; its name is in that of the file.
            interval: Seconds between two looks.
            budget: The percentage of --budget.
            options: The options as they were given.

        Raises:
            PagescanError: The file exists, or cannot be created.
        """
        self.paths: list[str] = []
        self.looks = 0
        self.recorder_ns = 0
        self._keeping = keeping
        self._target = target
        self._program: _Program | None = None
        self._last_ns: int | None = None
        self._facts = RecordingFacts(
            __version__,
            os.uname().release,
            os.uname().nodename,
            now(),
            interval,
            budget,
            options or {},
        )
        self._file = self._begin()

    def add(self, tick: Tick, tracking: Tracking) -> None:
        """Store the look of a tick; when this returns, a kill cannot take it away.

        Raises:
            PagescanError: It could not be stored, for example because the disk is full.
        """
        look = tick.look
        if look is None:
            return
        begun = time.thread_time_ns()
        if self._is_over(look.time):
            self._rotate()
        program = self._program
        if program is None or program.tracking is not tracking:
            program = self._next_program(tracking)
        self._label(program, tick)
        self._file.add(
            program.key,
            tick.number,
            tick.seconds,
            look,
            resident=resident_bytes(tracking.target.pid),
            recorder_ns=self._last_ns,
        )
        self.looks += 1
        self._last_ns = time.thread_time_ns() - begun
        self.recorder_ns += self._last_ns

    def end(self, ending: str) -> None:
        """Write why the recording ended, and close the file."""
        self._file.close(ending)

    def discard(self) -> None:
        """Remove the file if it has no look: the target could not be armed."""
        if not self.looks:
            self._file.discard()

    @property
    def size(self) -> int:
        """Bytes of all files, with their journals."""
        total = 0
        for path in self.paths:
            for name in (path, f"{path}-wal"):
                with suppress(OSError):
                    total += os.stat(name).st_size
        return total

    def _begin(self) -> OutputFile:
        """Create the next file."""
        keeping = self._keeping
        path = keeping.path or default_name(self._target, now())
        number = len(self.paths) + 1
        if self.paths and keeping.path is not None:
            path = numbered(keeping.path, number)
            while not keeping.overwrite and os.path.lexists(path):
                number += 1
                path = numbered(keeping.path, number)
        elif path in self.paths:
            path = numbered(path, number)
        file = OutputFile(
            path, self._facts, overwrite=keeping.overwrite, ring=keeping.ring
        )
        self.paths.append(path)
        return file

    def _is_over(self, moment: datetime) -> bool:
        """Whether the present file has lasted as long as it may."""
        rotate = self._keeping.rotate
        if rotate is None or not self._file.looks:
            return False
        return (moment - self._facts.begun).total_seconds() >= rotate

    def _rotate(self) -> None:
        """Close the file, and begin the next one; mappings are written again."""
        before = os.path.basename(self.paths[-1])
        self._facts = replace(self._facts, begun=now(), rotated_from=before)
        following = self._begin()
        self._file.close()
        self._file = following
        self._program = None

    def _next_program(self, tracking: Tracking) -> _Program:
        """Begin a program: the first, the same in another file, or after an exec."""
        key = 0
        if self._program is not None:
            key = self._program.key + 1
            self._file.end_process(self._program.key, "exec")
        self._file.add_process(
            key,
            tracking.target.facts,
            {
                "armed_at": tracking.armed_at,
                "tracked_bytes": tracking.armed.tracked_bytes,
                "stopped_ns": tracking.cost.stopped_ns,
            },
        )
        self._program = _Program(tracking, key, Labels(tracking.target))
        return self._program

    def _label(self, program: _Program, tick: Tick) -> None:
        """Label the mappings if they have changed, and at looks 1, 2, 4, 8, …, too."""
        assert tick.look is not None  # noqa: S101 - for the type checker
        batch = tick.look.batch
        rare = not tick.number & (tick.number - 1)  # 1, 2, 4, 8, …
        if batch.mappings is not program.seen or rare:
            program.texts = program.labels.cover(batch.mappings)
            program.seen = batch.mappings
        batch.labels = program.texts


def resident_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process, by the kernel's counters; None: gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def default_name(target: TargetFacts, moment: datetime) -> str:
    """Return the name of a recording: its target, pid and time, safe as a file name."""
    name = (
        re.sub(r"[^\w.+-]", "_", target.name, flags=re.ASCII).lstrip(".-") or "process"
    )
    return f"{name}-{target.pid}-{moment:%Y%m%dT%H%M%SZ}{SUFFIX}"


def numbered(path: str, number: int) -> str:
    """Return the name of the file with that number: -2, -3 before the suffix."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}-{number}{suffix}"
