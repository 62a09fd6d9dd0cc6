"""Puts huge pages back that tracking has split.

The first store to a protected huge page splits it into pages of the usual size, and
khugepaged leaves alone what is protected. So what was huge when it was protected is
remembered, and at the end, when nothing is registered any more, each unit whose pages
are all present and nobody else's is made huge again: process_madvise(2) with
MADV_COLLAPSE, one huge page for each call. What the target dropped stays dropped.
"""

import contextlib
import os
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
    """What became of the huge pages; all in bytes.

    Attributes:
        restored: Huge again.
        lost: Huge once, populated now, and in no huge page.
        denied: What of that only the lack of CAP_SYS_NICE stood against.
        interrupted: Whether Ctrl-C, or the caller, ended it early.
        caught: Whether that was KeyboardInterrupt: the caller raises it again.
    """

    restored: int = 0
    lost: int = 0
    denied: int = 0
    interrupted: bool = False
    caught: bool = False

    @property
    def cost(self) -> Cost:
        """The same as results have it."""
        return Cost(huge_restored=self.restored, huge_lost=self.lost)

    @property
    def note(self) -> str | None:
        """What to tell the user: why there are fewer than there were."""
        if self.interrupted:
            return f"interrupted: {format_size(self.lost)} of huge pages stay split"
        if self.denied:
            return (
                f"{format_size(self.denied)} of huge pages stay split: putting them"
                " back needs CAP_SYS_NICE; khugepaged does it in its own time"
            )
        return None


def never() -> bool:
    """Say that nothing asks for an early end."""
    return False


@dataclass(slots=True)
class HugePages:
    """The memory that was in huge pages when it was protected.

    Attributes:
        units: Whole huge pages, neighbours joined; the categories mean nothing.
    """

    units: Columns = field(default_factory=Columns.empty)

    def learn(self, found: Columns) -> None:
        """Remember regions that are in huge pages."""
        size = huge_page_size()
        if size and found.starts:
            more = native.whole_units(found, size)
            self.units = native.overlay(self.units, more, outside=True)

    def learn_of(
        self, scanner: Scanner, found: Columns, left_out: int | None = None
    ) -> None:
        """Remember what is huge of regions that are to be protected.

        Args:
            scanner: Of the target.
            found: The regions.
            left_out: Not those with these categories; None: all.
        """
        size = huge_page_size()
        if not size or not found.starts:
            return
        whole = native.whole_units(found, size, left_out)
        if whole.starts:
            which = array("Q", bytes(8 * len(whole.starts)))
            huge = Rule(
                asked=Masks(mask=Category.HUGE, returned=Category.HUGE), align=size
            )
            self.learn(scanner.run(Spans(whole.starts, whole.ends, which), [huge]))

    def restore(
        self,
        scanner: Scanner,
        mappings: Sequence[Mapping],
        *,
        within: Columns | None = None,
        only_count: bool = False,
        interrupted: Callable[[], bool] = never,
    ) -> Restored:
        """Put back what can be, and count the rest.

        Args:
            scanner: Of the target; its pace and its meter are used.
            mappings: The target's.
            within: Units; None: all that are remembered.
            only_count: Put nothing back.
            interrupted: Asked every 50 ms; Ctrl-C does the same. What is left is
                counted only.
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
            contextlib.suppress(OSError),  # the target is gone by now
            native.keeping_the_processor(scanner.pace),
        ):
            for start, end, owner in zip(parts.starts, parts.ends, owners, strict=True):
                mapping = mappings[owner] if owner >= 0 else None
                if mapping is None or not _may_be_huge(mapping):
                    continue
                low = start + -start % size
                with file_of(scanner.target, mapping) as file:
                    offset = mapping.offset + low - mapping.start
                    try:
                        stopped = job.run(
                            low, end, file, offset, scanner.pace, scanner.meter,
                            interrupted,
                        )  # fmt: skip
                    except KeyboardInterrupt:
                        job.only_count = stopped = result.caught = True
                        job.run(
                            job.at, end, file, offset + job.at - low,
                            scanner.pace, scanner.meter, never,
                        )  # fmt: skip
                    result.interrupted |= stopped
        result.restored, result.lost, result.denied = job.restored, job.lost, job.denied
        return result


def noticing(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules that protect as those do, and list the huge pages among it."""
    huge = Category.HUGE
    return [
        rule._replace(
            asked=rule.asked._replace(returned=rule.asked.returned | huge),
            wanted=Masks(mask=huge, returned=huge),
        )
        for rule in rules
    ]


def _pidfd(scanner: Scanner) -> int:
    target = scanner.target
    return -1 if target.pid == os.getpid() else target.pidfd


def _may_be_huge(mapping: Mapping) -> bool:
    return mapping.kind in (Kind.ANON, Kind.SHARED)
