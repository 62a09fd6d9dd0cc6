"""Looks and recordings whose truth is known, because a test makes them."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pagescan.model.batch import Batch
from pagescan.model.looks import Look
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Mapping, Untracked
from pagescan.model.results import Cost, TargetFacts
from pagescan.native import Columns
from pagescan.recording.output_file import OutputFile, Ring
from pagescan.recording.records import RecordingFacts

PAGE = 4096
WRITTEN = 0b1010
"""PAGE_IS_WRITTEN and PAGE_IS_PRESENT."""
BEGUN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TARGET = TargetFacts(4242, "worker", "/usr/bin/worker", 777, PAGE)


def mapping(start: int, pages: int, name: str = "", perms: str = "rw-p") -> Mapping:
    """Return a mapping of that many pages."""
    return Mapping(start, start + pages * PAGE, perms, 0, (0, 0), 0, name)


def columns_of(pages: Sequence[int], bits: int = WRITTEN) -> Columns:
    """Return the regions of ascending addresses of pages."""
    result = Columns.empty()
    for page in pages:
        if result.ends and result.ends[-1] == page:
            result.ends[-1] = page + PAGE
        else:
            result.starts.append(page)
            result.ends.append(page + PAGE)
            result.categories.append(bits)
    return result


def pages_of(columns: Columns) -> list[int]:
    """Return the addresses of all pages of regions."""
    return [
        page
        for start, end in zip(columns.starts, columns.ends, strict=True)
        for page in range(start, end, PAGE)
    ]


def look_of(
    pages: Sequence[int],
    mappings: MappingSet,
    *,
    second: float = 0.0,
    new: Sequence[int] = (),
    untracked: tuple[Untracked, ...] = (),
) -> Look:
    """Return a look that found pages."""
    batch = Batch.join(columns_of(pages), mappings, page_size=PAGE, new=frozenset(new))
    moment = BEGUN + timedelta(seconds=second)
    cost = Cost(
        scan_ns=1000,
        ioctls=3,
        target_share=0.01,
        target_ns=2_000_000,
        used_ns=200_000_000,
    )
    return Look(batch, untracked, moment, cost)


@dataclass
class Made:
    """A recording that a test makes, look by look.

    Attributes:
        written: The pages of each look.
    """

    path: Path
    mappings: MappingSet
    interval: float = 1.0
    ring: Ring | None = None
    written: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        facts = RecordingFacts("0.1.0", "6.18.0", "host", BEGUN, self.interval)
        self.file = OutputFile(str(self.path), facts, ring=self.ring)
        process = {"armed_at": BEGUN, "tracked_bytes": 1 << 20, "stopped_ns": 200_000}
        self.file.add_process(0, TARGET, process)

    def look(self, pages: Sequence[int], resident: int | None = None) -> int:
        """Add a look; return the bytes that its regions take."""
        self.written.append(sorted(pages))
        look = look_of(
            self.written[-1],
            self.mappings,
            second=len(self.written) * self.interval,
        )
        return self.file.add(
            0, len(self.written), self.interval, look, resident=resident
        )

    def close(self, ending: str = "interrupted") -> str:
        """End it; return its path."""
        self.file.close(ending)
        return str(self.path)


def some_pages(rolled: random.Random, one: Mapping, count: int) -> list[int]:
    """Return random pages of a mapping, ascending."""
    total = one.length // PAGE
    return [
        one.start + at * PAGE
        for at in sorted(rolled.sample(range(total), min(count, total)))
    ]
