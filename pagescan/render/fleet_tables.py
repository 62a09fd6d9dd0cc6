"""Tables of the answers about a fleet."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.units import format_seconds, format_share, format_size
from pagescan.render.report_tables import COLUMNS, NAME, ViewColumn, write_table

if TYPE_CHECKING:
    from pagescan.model.results import Output


def _text(value: Any) -> str:  # noqa: ANN401 - any of the fields
    return "-" if value is None else str(value)


def _size(value: Any) -> str:  # noqa: ANN401 - as above
    return "-" if value is None else format_size(round(value))


def _growth(value: Any) -> str:  # noqa: ANN401 - as above
    return f"+{format_size(value)}" if value > 0 else format_size(value)


def _rate(value: Any) -> str:  # noqa: ANN401 - as above
    return "-" if value is None else f"{_size(value)}/s"


def _share(value: Any) -> str:  # noqa: ANN401 - as above
    return "-" if value is None else format_share(value)


def _change(value: Any) -> str:  # noqa: ANN401 - as above
    return "-" if value is None else f"{100 * value:+.0f} %"


COLUMNS |= {
    "fleet memory": (
        ViewColumn("name", "name", _text),
        ViewColumn("hosts", "hosts", _text),
        ViewColumn("processes", "processes", _text),
        ViewColumn("written", "bytes", _size),
        ViewColumn("share", "share", _share),
        ViewColumn("rate", "rate", _rate),
        NAME,
    ),
    "fleet functions": (
        ViewColumn("name", "name", _text),
        ViewColumn("hosts", "hosts", _text),
        ViewColumn("processes", "processes", _text),
        ViewColumn("written", "bytes", _size),
        ViewColumn("share", "share", _share),
        ViewColumn("function", "function", _text),
        ViewColumn("module", "module", _text),
    ),
    "fleet growth": (
        ViewColumn("host", "host", _text),
        ViewColumn("name", "name", _text),
        ViewColumn("pid", "pid", _text),
        ViewColumn("before", "before", _size),
        ViewColumn("after", "after", _size),
        ViewColumn("growth", "growth", _growth),
        ViewColumn("seconds", "seconds", format_seconds),
        ViewColumn("rate", "rate", _rate),
    ),
    "fleet regressions": (
        ViewColumn("name", "name", _text),
        ViewColumn("hosts", "hosts", _text),
        ViewColumn("processes", "processes", _text),
        ViewColumn("old rate", "old_rate", _rate),
        ViewColumn("new rate", "new_rate", _rate),
        ViewColumn("change", "change", _change),
        ViewColumn("old", "old", _text),
        ViewColumn("new", "new", _text),
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
