"""Bands: each joins the sizes that a mapping has had into one row of a view."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pagescan.recording.excerpt import Excerpt
    from pagescan.recording.records import RecordedMapping


@dataclass(slots=True)
class Band:
    """Mappings of one process and one name that follow each other in one place.

    Attributes:
        process: Index of the process.
        mapping: The name, as `maps` prints it.
        label: The purpose of the memory; None: no rule knows it.
        perms: The permissions of the last mapping.
        start: The lowest address.
        end: The highest one, exclusive.
        members: Indices of the mappings.
    """

    process: int
    mapping: str
    label: str | None
    perms: str
    start: int
    end: int
    members: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The label, or else the name."""
        return self.label or self.mapping


class Bands(list[Band]):
    """The bands of an excerpt, by address.

    Attributes:
        of_mapping: The band of each mapping of the recording.
    """

    def __init__(self, excerpt: Excerpt) -> None:
        """Join the mappings that overlap and have one name."""
        super().__init__()
        self._excerpt = excerpt
        mappings = excerpt.recording.mappings
        self.of_mapping = array("q", [-1]) * len(mappings)
        order = sorted(
            range(len(mappings)),
            key=lambda index: (
                mappings[index].process,
                mappings[index].mapping.label,
                mappings[index].mapping.start,
            ),
        )
        groups: list[Band] = []
        for index in order:
            row = mappings[index]
            last = groups[-1] if groups else None
            if last is None or not _follows(last, row):
                one = row.mapping
                last = Band(
                    row.process, one.label, row.label, one.perms, one.start, one.end
                )
                groups.append(last)
            last.members.append(index)
            last.end = max(last.end, row.mapping.end)
            last.label = last.label or row.label
        groups.sort(key=lambda band: (band.process, band.start))
        for at, band in enumerate(groups):
            newest = max(band.members, key=lambda index: mappings[index].last_look)
            band.perms = mappings[newest].mapping.perms
            for index in band.members:
                self.of_mapping[index] = at
        self.extend(groups)

    def size(self, band: Band, look: int) -> int:
        """Return the bytes that a band had at a look."""
        mappings = self._excerpt.recording.mappings
        return sum(
            mappings[index].mapping.length
            for index in band.members
            if mappings[index].first_look <= look <= mappings[index].last_look
        )

    def sizes(self, band: Band) -> tuple[int, int]:
        """Return the bytes of a band at the first and the last look of its process."""
        looks = self._excerpt.by_process().get(band.process)
        if not looks:
            return 0, 0
        first, last = looks[0].position, looks[-1].position
        return self.size(band, first), self.size(band, last)


def _follows(band: Band, row: RecordedMapping) -> bool:
    """Whether a mapping is the band at another time: their addresses overlap."""
    return (
        band.process == row.process
        and band.mapping == row.mapping.label
        and row.mapping.start < band.end
    )
