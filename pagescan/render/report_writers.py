"""Writes the functions that wrote most: of a recording, or of two side by side."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pagescan.model.writers import KERNEL_OR_OTHER, LOST
from pagescan.render.report_tables import write_table

if TYPE_CHECKING:
    from pagescan.model.results import Output

_WIDE = 120  # cells, from which a terminal has room for more columns
_USER_ONLY = (
    "Writes of the kernel for the process, as in read(2), have no function: the\n"
    "recorder could sample only code in user mode."
)
_SAMPLED = (
    "By --budget these are the functions that wrote to the part that was tracked."
)


class Shown(NamedTuple):
    """A row of the table: a function, or the pages that have none."""

    written: int
    share: float
    peak: float | None
    looks: int | None
    thread: str | None
    threads: int | None
    mapping: str | None
    mappings: int | None
    pid: int | None
    process: str | None
    processes: int | None
    module: str | None
    function: str

    @property
    def processes_in_short(self) -> str | None:
        """The process, or the one in which it wrote most and how many others."""
        if self.process is None or not self.processes:
            return None
        if self.pid is not None:
            return f"{self.process} ({self.pid})"
        return f"{self.process} +{self.processes - 1}"


def write_writers(
    result: Any,  # noqa: ANN401 - a record of the recording, which render does not know
    page_size: int,
    output: Output,
    *,
    most: int | None = None,
    several: bool = False,
    sampled: bool = False,
) -> None:
    """Write the functions, those that wrote most first, then the pages without one.

    Args:
        result: The `WritersView`.
        page_size: Bytes per page.
        output: The format.
        most: How many functions are shown; None: all of them.
        several: Whether several processes were recorded.
        sampled: Whether only a random part of the memory was tracked.
    """
    rows = [_shown(row) for row in result.functions]
    fixed = [
        Shown(pages * page_size, pages / result.pages, *(None,) * 10, name)
        for name, pages in (
            (KERNEL_OR_OTHER, result.kernel_or_other),
            (LOST, result.lost),
        )
        if pages
    ]
    if most is not None and len(rows) > most:
        left = len(rows) - most
        rows = [*rows[:most], _sum_of(rows[most:], f"({left} more)")]
    name = "writers"
    if output.format == "table":
        wide = shutil.get_terminal_size().columns >= _WIDE
        name = "writers on a wide screen" if wide else "writers on a screen"
        name += " of a group" if several else ""
    write_table(name, [*rows, *fixed], output)
    if sampled and output.format != "csv":
        sys.stdout.write(_SAMPLED + "\n")
    if result.user_only and output.format != "csv":
        sys.stdout.write(_USER_ONLY + "\n")


def _shown(row: Any) -> Shown:  # noqa: ANN401 - as above
    return Shown(
        row.written,
        row.share,
        row.peak,
        row.looks,
        row.thread,
        row.thread_count,
        row.mapping,
        row.mapping_count,
        row.pid,
        row.process,
        row.process_count,
        row.module,
        name_of(row.function),
    )


def name_of(function: str | None) -> str:
    """Return the name of a function for people."""
    return function or "(no name)"


def _sum_of(rows: Sequence[Shown], name: str) -> Shown:
    written, share = sum(row.written for row in rows), sum(row.share for row in rows)
    return Shown(written, share, *(None,) * 10, name)


class Beside(NamedTuple):
    """A function of two recordings."""

    old_rate: float | None
    new_rate: float | None
    old_share: float | None
    new_share: float | None
    module: str | None
    function: str


def write_both(rows: Sequence[Any], output: Output) -> None:
    """Write functions side by side: the rows of `Comparison.functions`."""
    shown = [
        Beside(
            row.old_rate,
            row.new_rate,
            row.old_share,
            row.new_share,
            row.module,
            name_of(row.function),
        )
        for row in rows
    ]
    name = "functions"
    if output.format == "table":
        name = "functions on a screen"
    write_table(name, shown, output)
