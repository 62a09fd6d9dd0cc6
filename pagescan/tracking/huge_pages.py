"""Puts back the huge pages that tracking has split.

The first store to a protected huge page splits it into small pages, and khugepaged
leaves protected memory alone. So the huge pages are remembered when they are protected.
At the end, when nothing is registered any more, each unit whose pages are all present
and not shared is made huge again: process_madvise(2) with MADV_COLLAPSE, one huge page
per call. Memory that the target dropped stays dropped.
"""

import contextlib
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pagescan import native
from pagescan.model.mapping_set import bounds_of
from pagescan.model.memory import Category, Kind, Mapping
from pagescan.model.results import Cost
from pagescan.model.units import format_size
from pagescan.native import Columns, Masks, Rule, Spans
from pagescan.scanner.scanner import Scanner
from pagescan.target.kernel import huge_page_size
from pagescan.target.shared_files import file_of


@dataclass(slots=True)
class Restored:
    """The result for the huge pages, in bytes.

    Attributes:
        restored: Memory that is huge again.
        lost: Memory that was huge, is populated, and is not in a huge page.
        denied: The part of it that only lacks CAP_SYS_NICE.
        interrupted: Whether Ctrl-C, or the caller, ended the work early.
        caught: Whether that was a KeyboardInterrupt, which the caller raises again.
    """

    restored: int = 0
    lost: int = 0
    denied: int = 0
    interrupted: bool = False
    caught: bool = False

    @property
    def cost(self) -> Cost:
        """The result in the form of a cost."""
        return Cost(huge_restored=self.restored, huge_lost=self.lost)

    @property
    def note(self) -> str | None:
        """A message for the user if huge pages are missing, or None."""
        if self.interrupted:
            return f"interrupted: {format_size(self.lost)} of huge pages stay split"
        if self.denied:
            return (
                f"{format_size(self.denied)} of huge pages stay split: putting them"
                " back needs CAP_SYS_NICE; khugepaged does it in its own time"
            )
        return None


def never() -> bool:
    """Return False: never ask for an early end."""
    return False


@dataclass(slots=True)
class HugePages:
    """The memory that was in huge pages when it was protected.

    Attributes:
        units: Whole huge pages, neighbours joined; their categories have no meaning.
    """

    units: Columns = field(default_factory=Columns.empty)

    def learn(self, found: Columns) -> None:
        """Remember the regions that are in huge pages."""
        size = huge_page_size()
        if size and found.starts:
            more = native.whole_units(found, size)
            self.units = native.overlay(self.units, more, outside=True)

    def learn_of(
        self, scanner: Scanner, found: Columns, left_out: int | None = None
    ) -> None:
        """Remember the huge pages in regions that are about to be protected.

        Args:
            scanner: The target's scanner.
            found: The regions.
            left_out: Leave out pages with these categories; None: take all.
        """
        size = huge_page_size()
        if not size or not found.starts:
            return
        whole = native.whole_units(found, size, left_out)
        if whole.starts:
            which = array("Q", bytes(8 * len(whole.starts)))
            huge = Rule(
                kernel_masks=Masks(mask=Category.HUGE, returned=Category.HUGE),
                align=size,
            )
            self.learn(
                scanner.scan_ranges(Spans(whole.starts, whole.ends, which), [huge])
            )

    def restore(
        self,
        scanner: Scanner,
        mappings: Sequence[Mapping],
        *,
        within: Columns | None = None,
        only_count: bool = False,
        interrupted: Callable[[], bool] = never,
    ) -> Restored:
        """Put back all possible huge pages, and count the rest.

        Args:
            scanner: The target's scanner, for its pace and its meter.
            mappings: The target's mappings.
            within: Units to put back; None: all remembered ones.
            only_count: Put nothing back, and only count.
            interrupted: Called every 50 ms; if it returns True, or after Ctrl-C, the
                rest is only counted.
        """
        result = Restored()
        units = self.units if within is None else within
        if not units.starts:
            return result
        size = huge_page_size()
        job = native.Collapse(scanner.target.pagemap, _pidfd(scanner), size)
        job.only_count = only_count
        parts, owners = native.join(units, *bounds_of(mappings))
        with (
            contextlib.suppress(OSError),  # the target may be gone
            native.keeping_the_processor(scanner.pace),
        ):
            for start, end, owner in zip(parts.starts, parts.ends, owners, strict=True):
                mapping = mappings[owner] if owner >= 0 else None
                if mapping is None or not _may_be_huge(mapping):
                    continue
                low = start + -start % size
                with file_of(scanner.target, mapping) as file:
                    offset = mapping.offset + low - mapping.start
                    part = Part(low, end, file, offset)
                    _put_back(job, part, scanner, interrupted, result)
        result.restored, result.lost, result.denied = job.restored, job.lost, job.denied
        return result


class Part(NamedTuple):
    """A part of one mapping, with the file behind it.

    Attributes:
        start: Its first address, a multiple of the huge page's size.
        end: Its end.
        file: The descriptor of the file; -1: anonymous memory.
        offset: The offset of `start` in the file, in bytes.
    """

    start: int
    end: int
    file: int
    offset: int


def _put_back(
    job: "native.Collapse",
    part: Part,
    scanner: Scanner,
    interrupted: Callable[[], bool],
    result: Restored,
) -> None:
    """Put back the huge pages of a part; after Ctrl-C only count the rest of it."""
    meters = scanner.pace, scanner.meter
    try:
        stopped = job.run(*part, *meters, interrupted)
    except KeyboardInterrupt:
        job.only_count = stopped = result.caught = True
        done = job.at - part.start
        job.run(job.at, part.end, part.file, part.offset + done, *meters, never)
    result.interrupted |= stopped


def noticing(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules that protect the same pages, and list the huge pages among them."""
    huge = Category.HUGE
    return [
        rule._replace(
            kernel_masks=rule.kernel_masks._replace(
                returned=rule.kernel_masks.returned | huge
            ),
            result_masks=Masks(mask=huge, returned=huge),
        )
        for rule in rules
    ]


def _pidfd(scanner: Scanner) -> int:
    target = scanner.target
    return -1 if target.pid == os.getpid() else target.pidfd


def _may_be_huge(mapping: Mapping) -> bool:
    return mapping.kind in (Kind.ANON, Kind.SHARED)
