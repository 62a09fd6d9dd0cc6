"""Follows the mappings of a tracked target, and selects those that can be tracked."""

from pagescan.model.mapping_set import Covers, MappingSet
from pagescan.model.memory import Kind, Mapping, Untracked
from pagescan.target.maps import Reader
from pagescan.target.process import Target
from pagescan.tracking.arm import Armed, Armer
from pagescan.tracking.mapping_count import count_alike


class FollowedMappings:
    """The mappings of one target, read again at each look.

    Attributes:
        reader: The reader of the mappings.
        has_registered: Whether memory was registered since they were last counted.
    """

    def __init__(self, target: Target, armed: Armed, armer: Armer) -> None:
        """Remember the target; read nothing yet."""
        self.reader = Reader(target)
        self.has_registered = False
        self._armed = armed
        self._armer = armer
        self._mappings: list[Mapping] = []  # the next three were made from these
        self._untracked: list[Untracked] = []
        self._trackable = MappingSet()
        self._counted: tuple[list[Mapping], int] = ([], 0)

    def read(self) -> list[Mapping]:
        """Return all mappings; the same list while they are unchanged."""
        return self.reader.read()

    def trackable(self) -> MappingSet:
        """Return the trackable selected mappings; the same object while unchanged."""
        mappings = self.read()
        self._armer.mappings = len(mappings)
        if mappings is not self._mappings:
            self._armer.forget_unmapped(mappings)
        untracked = list(self._armed.untracked)
        if mappings is not self._mappings or untracked != self._untracked:
            covers = Covers(untracked)
            self._trackable = MappingSet(
                (
                    mapping
                    for mapping in self._armed.selection.select(mappings)
                    if mapping.kind is not Kind.SPECIAL and mapping not in covers
                ),
                mappings,
            )
            self._mappings, self._untracked = mappings, untracked
        return self._trackable

    def more_alike(self, mappings: list[Mapping]) -> int:
        """Return how many neighbours look alike, less those from before arming."""
        return max(0, count_alike(mappings) - self._armed.alike)

    def added(self) -> int:
        """Return how many mappings the target has only because it is tracked."""
        mappings = self._mappings
        if self.has_registered:
            self.has_registered = False
            mappings = self.read()
        if mappings is not self._counted[0]:
            self._counted = mappings, self.more_alike(mappings)
        return self._counted[1]
