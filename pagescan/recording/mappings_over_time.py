"""Finds the mappings of a recorded process at any look; pure, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pagescan.model.mapping_set import MappingSet

if TYPE_CHECKING:
    from pagescan.recording.records import RecordedMapping


class MappingsOverTime:
    """The mappings of a process at any look; the last answer is cached."""

    def __init__(self, rows: list[tuple[int, RecordedMapping]]) -> None:
        self._rows = sorted(rows, key=lambda pair: pair[1].mapping.start)
        edges = {row.first_look for _, row in rows}
        self._edges = sorted(edges | {row.last_look + 1 for _, row in rows})
        self._at = -1
        self._answer: tuple[Sequence[int], MappingSet] = ((), MappingSet())

    def at(self, look: int) -> tuple[Sequence[int], MappingSet]:
        """Return the indices of the mappings at a look, and their set."""
        at = bisect_right(self._edges, look)
        if at != self._at:
            alive = [
                (index, row.mapping)
                for index, row in self._rows
                if row.first_look <= look <= row.last_look
            ]
            self._answer = (
                [index for index, _ in alive],
                MappingSet(mapping for _, mapping in alive),
            )
            self._at = at
        return self._answer
