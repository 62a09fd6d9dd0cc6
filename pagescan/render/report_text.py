"""Writes the report of a recording for people: a summary, then table by table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.units import (
    escape,
    format_seconds,
    format_share,
    format_size,
    plural,
)
from pagescan.render.cells import elide_middle, pad, width_of
from pagescan.render.report_tables import moment_of, write_table
from pagescan.render.strip import bars, log_block
from pagescan.render.table import wants_color

if TYPE_CHECKING:
    from pagescan.model.results import Output

_MOST_MAPPINGS = 5
_MOST_PHASES = 4
_WIDEST = 120


def put(line: str = "") -> None:
    """Write a line to stdout, cut to the window where that is a terminal."""
    sys.stdout.write(line.rstrip() + "\n")


def heading(text: str, output: Output) -> None:
    """Write a heading."""
    bold = wants_color(output.color, sys.stdout)
    put()
    put(f"\x1b[1m{text}\x1b[0m" if bold else text)


def width() -> int:
    """Return the cells of a line."""
    return min(shutil.get_terminal_size().columns, _WIDEST)


def write_summary(
    names: Sequence[str],
    facts: Any,  # noqa: ANN401 - records of the recording, which render does not know
    result: Any,  # noqa: ANN401 - as above
    output: Output,
) -> None:
    """Write the totals, the rate over time, the mappings, the phases and the cost.

    Args:
        names: The programs that were recorded.
        facts: The `RecordingFacts`.
        result: The `RecordingSummary`.
        output: The format: table or plain.
    """
    room = width()
    head = f"{', '.join(map(escape, names))}: {plural(result.looks, 'look')}"
    head += f" in {duration(result.seconds)}, {result.begun:%Y-%m-%d %H:%M:%S} UTC"
    if facts.ending:
        head += f", {facts.ending}"
    put(elide_middle(head, room) if output.format == "table" else head)
    about = " (estimated)" if result.estimated else ""
    put(
        f"written   {size(result.bytes, output)}{about}, on average"
        f" {size(result.rate, output)}/s, at most {size(result.peak, output)}/s"
    )
    before, after = result.resident
    if before is not None and after is not None:
        more = after - before
        sign = "+" if more > 0 else "-"
        put(
            f"resident  {size(after, output)} at the end"
            f" ({sign}{size(abs(more), output)} since the beginning)"
        )
    if result.gaps > 1.5 * result.seconds / max(result.looks, 1):
        put(f"gaps      {duration(result.gaps)} are in no look")
    put(f"cost      {_cost(result)}")
    _write_course(result.timeline, room, output)
    heading("Mappings that are written most", output)
    write_table("mappings", result.mappings, output, most=_MOST_MAPPINGS)
    heading("Phases", output)
    write_table("phases", result.phases, output, most=_MOST_PHASES)


def _cost(result: Any) -> str:  # noqa: ANN401 - as above
    cost = result.cost
    parts = []
    if cost.target_share is not None:
        parts.append(f"{format_share(cost.target_share)} of its processor time")
    if cost.stopped_ns:
        parts.append(f"stopped once {format_seconds(cost.stopped_ns / 1e9)}")
    parts.append(f"longest wait {format_seconds(cost.max_wait_ns / 1e9)}")
    return ", ".join(parts)


def _write_course(rows: Sequence[Any], room: int, output: Output) -> None:
    """Write the rate over time as bars, with its scale."""
    if len(rows) < 2:
        return
    top = max(row.rate for row in rows)
    wide = max(10, min(len(rows), room - 24))
    shown = _resampled([row.rate for row in rows], wide)
    first, last = rows[0].time_ns, rows[-1].time_ns + round(rows[-1].seconds * 1e9)
    heading(f"Written per second (█ {size(top, output)}/s)", output)
    put(bars(shown, len(shown)))
    ends = (f"{moment_of(first):%H:%M:%S}", f"{moment_of(last):%H:%M:%S}")
    put(ends[0] + ends[1].rjust(max(len(shown) - len(ends[0]), 10)))


def _resampled(values: Sequence[float], count: int) -> list[float]:
    """Return the greatest value of each of some slots."""
    total = len(values)
    return [
        max(values[at * total // count : max((at + 1) * total // count, 1)] or [0.0])
        for at in range(min(count, total))
    ]


def write_heatmap(rows: Sequence[Any], begun: Sequence[int], output: Output) -> None:
    """Write memory by time: a block shows the share of the pages written per look.

    Args:
        rows: The pieces of memory, by address.
        begun: The beginnings of the slots of time, in nanoseconds since 1970.
        output: The format.
    """
    names = [escape(row.label or row.mapping) for row in rows]
    room = min(24, max(map(width_of, names), default=0))
    before: Any = None
    for row, name in zip(rows, names, strict=True):
        same = before is not None and (before.mapping, before.label) == (
            row.mapping,
            row.label,
        )
        text = pad("" if same else elide_middle(name, room), room)
        blocks = "".join("·" if one is None else log_block(one) for one in row.shares)
        gap = before is not None and before.end != row.start
        put(f"{text} {'┄' if gap else ' '}{row.start:>14x}  {blocks}")
        before = row
    if begun:
        ends = [f"{moment_of(begun[0]):%H:%M:%S}", f"{moment_of(begun[-1]):%H:%M:%S}"]
        gap_ = " " * max(1, len(begun) - sum(map(len, ends)))
        put(f"{' ' * (room + 18)}{ends[0]}{gap_}{ends[1]}")
    put("▁ 0.1 % ▃ 1 % ▅ 10 % █ all of the pages, per look; ┄ unmapped or not written")
    del output


def write_migration(result: Any, output: Output) -> None:  # noqa: ANN401 - as above
    """Write the rounds of a migration, its freeze, and the ranges to send last."""
    if output.format == "csv":
        write_table("rounds", result.rounds, output)
        return
    word = "converges" if result.converges else "does not converge"
    rounds = plural(len(result.rounds), "round")
    put(
        f"{word} at {size(result.bandwidth, output)}/s: {rounds}"
        f" in {duration(result.seconds)}, {size(result.sent, output)} sent,"
        f" then {format_seconds(result.freeze)} of freeze"
        f" (asked for: {format_seconds(result.downtime)})"
    )
    if result.repeated:
        put("the recording is shorter than the rounds: its looks were used again")
    put()
    write_table("rounds", result.rounds, output)
    if result.last:
        heading("Ranges to send last: they are written all the time", output)
        write_table("last", result.last, output)


def write_comparison(result: Any, output: Output) -> None:  # noqa: ANN401 - as above
    """Write two recordings side by side."""
    if output.format == "csv":
        write_table("comparison", result.mappings, output)
        return
    rows = [
        ("", "old", "new"),
        ("length", duration(result.old.seconds), duration(result.new.seconds)),
        (
            "written",
            f"{size(result.old.rate, output)}/s",
            f"{size(result.new.rate, output)}/s",
        ),
        (
            "peak",
            f"{size(result.old.peak, output)}/s",
            f"{size(result.new.peak, output)}/s",
        ),
        ("different", size(result.old_set, output), size(result.new_set, output)),
    ]
    for name, old, new in rows:
        put(f"{name:<10} {old:>14}  {new:>14}")
    put()
    write_table("comparison", result.mappings, output)


def size(count: float, output: Output) -> str:
    """Return a size, exact with --bytes."""
    return str(round(count)) if output.exact else format_size(round(count))


def duration(seconds: float) -> str:
    """Return a duration for people: "12.3 s", "10 min", "3 h 20 min"."""
    if seconds < 100:
        return format_seconds(seconds)
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
