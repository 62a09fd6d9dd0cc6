"""The rows of a group: those of each process, or one per process."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pagescan.model.batch import Batch
from pagescan.model.groups import ProcessFacts
from pagescan.model.results import MappingCounts


@dataclass(frozen=True, slots=True)
class GroupRows:
    """The regions, or the mappings, of each process of a group."""

    parts: Sequence[tuple[ProcessFacts, Batch | Sequence[MappingCounts]]]

    def by(self, what: str) -> "GroupRows":
        """Return the rows of an `Output.by`: mappings, or as they are."""
        if what != "mapping":
            return self
        return GroupRows(
            [
                (process, rows.by_mapping() if isinstance(rows, Batch) else rows)
                for process, rows in self.parts
            ]
        )


class ProcessTable(list[Any]):
    """One row per process of a group: its `ProcessFacts`."""
