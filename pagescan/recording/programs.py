"""The programs that a recorder records now, and the looks that it need not store."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Estimate
from pagescan.native import Columns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pagescan.model.groups import ProcessFacts
    from pagescan.model.looks import Look
    from pagescan.model.memory import Mapping
    from pagescan.target.labels import Labels
    from pagescan.tracking.tracking import Tracking


@dataclass(slots=True)
class Program:
    """A program that is recorded now.

    Attributes:
        tracking: Its tracking.
        key: Its number in the file.
        labels: Knows the purposes of its mappings.
        seen: The mappings that the texts are for.
        texts: The labels, by the start of the mapping.
        last: Its last look that was stored; None: no look yet.
        resident: Its resident bytes then.
    """

    tracking: Tracking
    key: int
    labels: Labels
    seen: object = None
    texts: dict[int, str] = field(default_factory=dict)
    last: Look | None = None
    resident: int | None = None

    def is_quiet(self, look: Look) -> bool:
        """Whether a look tells nothing that a reader would not assume without it.

        The process has used no processor time since its last look, its memory is the
        same, and nobody else has written to it.
        """
        last = self.last
        return (
            last is not None
            and not len(look.batch)
            and look.cost.used_ns is None
            and look.estimate is None
            and last.estimate is None
            and look.untracked == last.untracked
            and _same(look.batch.mappings, last.batch.mappings)
            and self.resident == resident_bytes(self.tracking.target.pid)
        )

    def empty_look(self, time: datetime, cost: Cost) -> Look | None:
        """Return a look that found nothing; None: there was no look before."""
        if self.last is None:
            return None
        batch = Batch.join(
            Columns.empty(),
            MappingSet(self.last.batch.mappings),
            page_size=self.last.batch.page_size,
        )
        batch.labels = self.texts
        look = replace(self.last, batch=batch, time=time, cost=cost)
        if look.estimate is None:
            return look
        return replace(look, estimate=Estimate(0, 0, 0, look.estimate.share))


def _same(one: Sequence[Mapping], other: Sequence[Mapping]) -> bool:
    return one is other or [*one] == [*other]


def named(facts: ProcessFacts) -> str:
    """Return the name of a member of a group, with its role."""
    name, label = facts.target.name, facts.label
    if label is None:
        return name
    return label if label.startswith(name) else f"{name}: {label}"


def resident_bytes(pid: int) -> int | None:
    """Return the resident bytes of a process, by the kernel's counters; None: gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read(256).split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None
