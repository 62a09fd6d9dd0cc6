"""Keeps the looks at a tracked target in files: names them, rotates them, ends them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping as Dict
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from pagescan import __version__
from pagescan.model.memory import PAGE_SIZE
from pagescan.model.results import Cost, TargetFacts
from pagescan.model.units import now
from pagescan.recording.file_names import default_name, numbered
from pagescan.recording.output_file import OutputFile, Ring
from pagescan.recording.programs import Program, named, resident_bytes
from pagescan.recording.records import RecordingFacts
from pagescan.session.member import JUST_JOINED
from pagescan.target.labels import Labels

if TYPE_CHECKING:
    from pagescan.attribution.look_writers import (
        GroupWritersByLook,
        LookWriters,
        WritersByLook,
    )
    from pagescan.model.groups import GroupFacts, GroupTick, ProcessFacts
    from pagescan.model.looks import Look, Tick
    from pagescan.tracking.tracking import Tracking


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
        target: TargetFacts | None,
        *,
        interval: float,
        budget: float | None = None,
        options: Dict[str, object] | None = None,
        writers: WritersByLook | None = None,
        group: GroupFacts | None = None,
        group_writers: GroupWritersByLook | None = None,
    ) -> None:
        """Create the first file, before the target is touched.

        Args:
            keeping: The file, and how much is kept.
            target: The process; its name is in that of the file. None: there is a
                group.
            interval: Seconds between two looks.
            budget: The percentage of --budget.
            options: The options as they were given.
            writers: Finds out who wrote the pages of each look; None: nobody asks.
            group: The group of processes; its name is in that of the file.
            group_writers: The same as `writers`, for the members of a group.

        Raises:
            PagescanError: The file exists, or cannot be created.
        """
        self.paths: list[str] = []
        self.looks = 0
        self.recorder_ns = 0
        self._keeping = keeping
        stem = f"{target.name}-{target.pid}" if target else "group"
        self._stem = f"{group.kind}-{group.name}" if group else stem
        self._programs: dict[object, Program] = {}
        self._untracked: set[tuple[int, str]] = set()
        self._trackings: Dict[tuple[int, int], Tracking] = {}
        self._next_key = 0
        self._last_ns: int | None = None
        self._writers, self._group_writers = writers, group_writers
        asked = writers or group_writers
        user_only = asked.user_only if asked else None
        self._facts = _facts_of(interval, budget, options, user_only, group)
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
        found = self._writers.of(look) if self._writers is not None else None
        self._store(None, tick.number, tick.seconds, look, tracking, writers=found)
        self._count(begun)

    def meet(self, trackings: Dict[tuple[int, int], Tracking]) -> None:
        """Remember the members of a group, before its first tick."""
        self._trackings = dict(trackings)

    def add_group(
        self, tick: GroupTick, trackings: Dict[tuple[int, int], Tracking]
    ) -> None:
        """Store the looks of a tick at a group, all in one step.

        Args:
            tick: The tick.
            trackings: The trackings of the present members, by `Member.key`.

        Raises:
            PagescanError: As for `add`.
        """
        begun = time.thread_time_ns()
        if self._is_over(tick.time):
            self._rotate()
        # One that has just come is in `trackings`; one that has just gone is not.
        self._trackings = {**self._trackings, **trackings}
        found = self._group_writers.of(tick) if self._group_writers else {}
        with self._file.together():
            self._store_members(tick, trackings, found)
            self._store_untracked(tick)
        self._trackings = dict(trackings)
        self._count(begun)

    def _store_members(
        self,
        tick: GroupTick,
        present: Dict[tuple[int, int], Tracking],
        writers: Dict[tuple[int, int], LookWriters],
    ) -> None:
        """Store the looks; if no process has run, one empty look keeps the time."""
        for facts, look in tick.members:
            if look is None:
                self._end_unseen(facts, present.get(_key(facts)))
        stored = False
        looks, cost = self._worth_storing(tick)
        for facts, look in looks:
            key = _key(facts)
            if not stored:  # it also has the cost of the looks that are not stored
                look = replace(look, cost=cost + look.cost)  # noqa: PLW2901
            self._store(
                *(key, tick.number, tick.seconds, look, self._trackings[key], facts),
                writers=writers.get(key),
            )
            stored = True
        if not stored:
            self._store_nothing(tick, cost)
        for facts, _ in tick.members:
            if facts.end is not None:
                self._end_unseen(facts, None)

    def _worth_storing(
        self, tick: GroupTick
    ) -> tuple[list[tuple[ProcessFacts, Look]], Cost]:
        """Return the looks of a tick without the quiet ones, and the cost of these."""
        looks, cost = [], Cost()
        for facts, look in tick.members:
            key = _key(facts)
            tracking = self._trackings.get(key)
            if look is None or tracking is None:
                continue
            program = self._programs.get(key)
            known = program is not None and program.tracking is tracking
            if program and known and program.is_quiet(look):
                cost += look.cost
            else:
                looks.append((facts, look))
        return looks, cost

    def _end_unseen(self, facts: ProcessFacts, present: Tracking | None) -> None:
        """End a program that is not tracked any more; one that did not run goes on.

        It ends with the tick before: its last writes were not seen.
        """
        program = self._programs.get(_key(facts))
        if program is None or program.tracking is present:
            return
        del self._programs[_key(facts)]
        end = facts.end or ("lost" if present is None else "exec")
        self._file.end_process(program.key, end)

    def _store_nothing(self, tick: GroupTick, cost: Cost) -> None:
        """Store an empty look, with the cost of those that are not stored."""
        for program in self._programs.values():
            look = program.empty_look(tick.time, cost)
            if look is None:
                continue
            resident = resident_bytes(program.tracking.target.pid)
            self._file.add(
                program.key, tick.number, tick.seconds, look, resident=resident
            )
            self.looks += 1
            return

    def _store_untracked(self, tick: GroupTick) -> None:
        """Store the processes that are not tracked as a whole, each reason once."""
        for item in tick.untracked:
            known = (item.pid or 0, item.why)
            if item.part is not None or item.why == JUST_JOINED:
                continue
            if known in self._untracked:
                continue
            self._untracked.add(known)
            target = TargetFacts(item.pid or 0, item.name, None, 0, PAGE_SIZE)
            self._file.add_untracked(target, tick.time, item.why)

    def _store(
        self,
        slot: object,
        number: int,
        seconds: float,
        look: Look,
        tracking: Tracking,
        facts: ProcessFacts | None = None,
        *,
        writers: LookWriters | None = None,
    ) -> None:
        """Store one look of the process in a slot."""
        program = self._programs.get(slot)
        if program is None or program.tracking is not tracking:
            program = self._next_program(slot, tracking, facts)
        self._label(program, number, look)
        program.last = look
        program.resident = resident_bytes(tracking.target.pid)
        self._file.add(
            program.key,
            number,
            seconds,
            look,
            resident=program.resident,
            recorder_ns=self._last_ns,
            writers=writers,
        )
        self._last_ns = None
        self.looks += 1

    def _count(self, begun: int) -> None:
        """Add up the processor time that storing has taken."""
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
        path = keeping.path or default_name(self._stem, now())
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
        self._programs.clear()
        self._untracked.clear()

    def _next_program(
        self, slot: object, tracking: Tracking, facts: ProcessFacts | None
    ) -> Program:
        """Begin a program: the first, the same in another file, or after an exec."""
        before = self._programs.get(slot)
        if before is not None:
            self._file.end_process(before.key, "exec")
        key, self._next_key = self._next_key, self._next_key + 1
        target = tracking.target.facts
        if facts is not None:
            target = facts.target._replace(name=named(facts))
        self._file.add_process(
            key,
            target,
            {
                "armed_at": tracking.armed_at,
                "tracked_bytes": tracking.armed.tracked_bytes,
                "stopped_ns": tracking.cost.stopped_ns,
            },
        )
        program = Program(tracking, key, Labels(tracking.target))
        self._programs[slot] = program
        return program

    def _label(self, program: Program, number: int, look: Look) -> None:
        """Label the mappings if they have changed, and at looks 1, 2, 4, 8, …, too."""
        batch = look.batch
        rare = not number & (number - 1)  # 1, 2, 4, 8, …
        if batch.mappings is not program.seen or rare:
            program.texts = program.labels.cover(batch.mappings)
            program.seen = batch.mappings
        batch.labels = program.texts


def _facts_of(
    interval: float,
    budget: float | None,
    options: Dict[str, object] | None,
    user_only: bool | None,
    group: GroupFacts | None,
) -> RecordingFacts:
    """Return the facts of a recording that begins now."""
    return RecordingFacts(
        __version__,
        os.uname().release,
        os.uname().nodename,
        now(),
        interval,
        budget,
        options or {},
        who=None if user_only is None else {"user_only": user_only},
        group={"kind": group.kind, "name": group.name} if group else None,
    )


def _key(facts: ProcessFacts) -> tuple[int, int]:
    """Return the `Member.key` of a process."""
    return facts.target.pid, facts.target.start_time
