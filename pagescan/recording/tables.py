"""The rows of views, and views as tables; pure, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from pagescan.model.frame import Frame

Row = TypeVar("Row", bound=tuple[Any, ...])


class ViewTable(list[Row], Frame):
    """A view: a list of rows, which are named tuples, and a table of scalars."""

    def table(self) -> dict[str, Sequence[Any]]:
        """Return the columns of scalars, by name; other columns are left out."""
        if not self:
            return {}
        names: tuple[str, ...] = self[0]._fields  # type: ignore[attr-defined]
        return {
            name: [row[at] for row in self]
            for at, name in enumerate(names)
            if not isinstance(self[0][at], (list, tuple))
        }


class MappingRow(NamedTuple):
    """The writes to a mapping, over all looks.

    Attributes:
        process: Index of the process.
        start: Its lowest address.
        end: Its highest one, exclusive.
        mapping: Its name.
        label: What it is for; None: no rule knows it.
        bytes: Its size at the last look.
        growth: How much larger that is than at the first look.
        pages: Written pages, added up over all looks.
        written: The same in bytes.
        share: The part of all written pages, 0 to 1.
        looks: The number of looks that found any.
        peak: The most written bytes per second in one look.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    bytes: int
    growth: int
    pages: int
    written: int
    share: float
    looks: int
    peak: float


class TimelineRow(NamedTuple):
    """A slot of time.

    Attributes:
        time_ns: Its beginning, in nanoseconds since 1970.
        seconds: Its length; gaps between looks are not in it.
        looks: The number of looks in it.
        pages: Written pages, added up over the looks.
        bytes: The same in bytes.
        rate: Written bytes per second.
        resident: Resident bytes of all processes at the slot's end; None: not known.
    """

    time_ns: int
    seconds: float
    looks: int
    pages: int
    bytes: int
    rate: float
    resident: int | None


class HeatRow(NamedTuple):
    """A piece of memory, with one value per slot of time.

    Attributes:
        process: Index of the process.
        start: Its first address.
        end: The address behind it.
        mapping: The name of its mapping.
        label: What that is for; None: no rule knows it.
        pages: Its pages.
        shares: By slot: the share of the pages that a look found written, on average,
            0 to 1; None: the slot has no look.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    pages: int
    shares: list[float | None]


class AgesRow(NamedTuple):
    """How often the pages of a mapping were written; all numbers are bytes.

    Attributes:
        process: Index of the process.
        start: The lowest address of the mapping.
        end: The highest one, exclusive.
        mapping: Its name.
        label: What it is for; None: no rule knows it.
        bytes: Its size at the last look.
        growth: How much larger that is than at the first look.
        written: The different pages that were written in any look.
        once: The pages that were written in one look and never again.
        sometimes: The pages that were written more than once, but not `always`.
        always: The pages that were written in more than half of the looks since
            the first that found them.
    """

    process: int
    start: int
    end: int
    mapping: str
    label: str | None
    bytes: int
    growth: int
    written: int
    once: int
    sometimes: int
    always: int


class WorkingSetRow(NamedTuple):
    """The memory that is written within windows of one length.

    Attributes:
        looks: The length of the windows, in looks.
        seconds: The same in seconds, on average.
        bytes: Different pages written in such a window, in bytes; the mean of all
            windows.
        share: The same as a share of all pages that were ever written, 0 to 1.
    """

    looks: int
    seconds: float
    bytes: int
    share: float


class PhaseRow(NamedTuple):
    """A stretch of time in which the writes stay about the same.

    Attributes:
        time_ns: Its beginning, in nanoseconds since 1970.
        seconds: Its length.
        looks: The number of its looks.
        rate: Written bytes per second.
        mapping: The mapping that is written most; None: nothing is written.
        share: Its part of the writes, 0 to 1.
    """

    time_ns: int
    seconds: float
    looks: int
    rate: float
    mapping: str | None
    share: float


class RoundRow(NamedTuple):
    """A round of a migration.

    Attributes:
        round: Its number, from 1; round 1 sends all memory.
        bytes: The bytes that it sends.
        seconds: The time that this takes.
        dirty: The bytes that the target writes in that time.
    """

    round: int
    bytes: int
    seconds: float
    dirty: int


class LastRange(NamedTuple):
    """A range to send last in a migration, because it is written all the time.

    Attributes:
        process: Index of the process.
        start: Its first address.
        end: The address behind it.
        mapping: The name of its mapping.
        bytes: The bytes of its pages that are written all the time.
    """

    process: int
    start: int
    end: int
    mapping: str
    bytes: int


class Migration(NamedTuple):
    """The course of a pre-copy, by the recorded writes.

    Attributes:
        rounds: The rounds before the freeze.
        memory: The bytes of the first round.
        sent: All bytes that are sent, also during the freeze.
        seconds: The time until the freeze.
        freeze: Seconds for which the target stands still at the end.
        converges: Whether the freeze is no longer than `downtime`.
        bandwidth: Bytes per second.
        downtime: The longest freeze that was asked for, in seconds.
        repeated: Whether the recording is shorter than the rounds, so that its looks
            were used again.
        last: The ranges to send last.
    """

    rounds: ViewTable[RoundRow]
    memory: int
    sent: int
    seconds: float
    freeze: float
    converges: bool
    bandwidth: int
    downtime: float
    repeated: bool
    last: ViewTable[LastRange]
