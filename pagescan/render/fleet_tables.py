"""Tables of the answers about a fleet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.units import format_seconds
from pagescan.render.report_tables import COLUMNS, NAME, ViewColumn, write_table
from pagescan.render.view_cells import (
    growth_text,
    plain_text,
    rate_text,
    share_text,
    size_text,
)

if TYPE_CHECKING:
    from pagescan.model.results import Output


def _change(value: Any) -> str:  # noqa: ANN401 - any of the fields
    return "-" if value is None else f"{100 * value:+.0f} %"


COLUMNS |= {
    "fleet memory": (
        ViewColumn("name", "name", plain_text),
        ViewColumn("hosts", "hosts", plain_text),
        ViewColumn("processes", "processes", plain_text),
        ViewColumn("written", "bytes", size_text),
        ViewColumn("share", "share", share_text),
        ViewColumn("rate", "rate", rate_text),
        NAME,
    ),
    "fleet functions": (
        ViewColumn("name", "name", plain_text),
        ViewColumn("hosts", "hosts", plain_text),
        ViewColumn("processes", "processes", plain_text),
        ViewColumn("written", "bytes", size_text),
        ViewColumn("share", "share", share_text),
        ViewColumn("function", "function", plain_text),
        ViewColumn("module", "module", plain_text),
    ),
    "fleet growth": (
        ViewColumn("host", "host", plain_text),
        ViewColumn("name", "name", plain_text),
        ViewColumn("pid", "pid", plain_text),
        ViewColumn("before", "before", size_text),
        ViewColumn("after", "after", size_text),
        ViewColumn("growth", "growth", growth_text),
        ViewColumn("seconds", "seconds", format_seconds),
        ViewColumn("rate", "rate", rate_text),
    ),
    "fleet regressions": (
        ViewColumn("name", "name", plain_text),
        ViewColumn("hosts", "hosts", plain_text),
        ViewColumn("processes", "processes", plain_text),
        ViewColumn("old rate", "old_rate", rate_text),
        ViewColumn("new rate", "new_rate", rate_text),
        ViewColumn("change", "change", _change),
        ViewColumn("old", "old", plain_text),
        ViewColumn("new", "new", plain_text),
    ),
}


def write_answer(
    name: str,
    rows: Sequence[Any],
    output: Output,
    shape: tuple[str | None, int | None],
    *,
    first: bool,
) -> None:
    """Write the answer to a question about a fleet.

    Args:
        name: The question.
        rows: The rows of the answer.
        output: The format.
        shape: The heading, and how many rows are shown; None: none, and all.
        first: Whether no other answer stands above it.
    """
    heading, most = shape
    if heading is not None:
        sys.stdout.write(f"{'' if first else chr(10)}{heading}\n")
    if rows or output.format == "csv":
        write_table(f"fleet {name}", rows, output, most=most)
    else:
        sys.stdout.write("(nothing)\n")
