"""Writes the report of a recording for people: a summary, then table by table."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pagescan.model.paragraph import lines_of
from pagescan.model.units import (
    escape,
    format_duration,
    format_seconds,
    format_share,
    format_size,
    plural,
)
from pagescan.render.cells import elide_middle, pad, width_of
from pagescan.render.report_tables import moment_of, write_table
from pagescan.render.report_writers import write_both, write_writers
from pagescan.render.strip import bars, log_block
from pagescan.render.table import wants_color

if TYPE_CHECKING:
    from pagescan.model.results import Output

_MOST_MAPPINGS = 5
_MOST_PHASES = 4
_MOST_FUNCTIONS = 5
_WIDEST = 120
_FACT = 10  # cells of the name of a fact


def put(line: str = "") -> None:
    """Write a line to stdout, cut to the window where that is a terminal."""
    sys.stdout.write(line.rstrip() + "\n")


def put_fact(name: str, text: str, output: Output) -> None:
    """Write a line of the summary; a narrow window has it in several lines."""
    line = f"{name:<{_FACT}}{text}"
    if output.format == "table":
        line = "\n".join(lines_of(line, width(), indent=_FACT * " "))
    put(line)


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
    page_size: int,
    output: Output,
) -> None:
    """Write totals, the rate over time, mappings, functions, phases and the cost.

    Args:
        names: The programs that were recorded, by their indices.
        facts: The `RecordingFacts`.
        result: The `RecordingSummary`.
        page_size: Bytes per page.
        output: The format: table or plain.
    """
    room = width()
    head = _subject(names, facts, result)
    head += (
        f" in {format_duration(result.seconds)}, {result.begun:%Y-%m-%d %H:%M:%S} UTC"
    )
    if facts.ending:
        head += f", {facts.ending}"
    put(elide_middle(head, room) if output.format == "table" else head)
    about = " (estimated)" if result.estimated else ""
    put_fact(
        "written",
        f"{size(result.bytes, output)}{about}, on average"
        f" {size(result.rate, output)}/s, at most {size(result.peak, output)}/s",
        output,
    )
    before, after = result.resident
    if before is not None and after is not None:
        more = after - before
        change = "no change"
        if more:
            change = f"{'+' if more > 0 else ''}{size(more, output)}"
        end = size(after, output)
        put_fact("resident", f"{end} at the end ({change} since the beginning)", output)
    usual = max(facts.interval, result.seconds / max(result.ticks, 1))
    if result.gaps > 1.5 * usual:
        put_fact("gaps", f"{format_duration(result.gaps)} are in no look", output)
    put_fact("cost", _cost(result), output)
    if not result.pages:  # no course, and no table but that of the processes
        if len(result.processes) > 1:
            heading("Processes", output)
            write_processes(result.processes, output, most=_MOST_MAPPINGS)
        return
    _write_course(result.timeline, room, output)
    _write_most(names, facts, result, page_size, output)


def _write_most(
    names: Sequence[str],
    facts: Any,  # noqa: ANN401 - as above
    result: Any,  # noqa: ANN401 - as above
    page_size: int,
    output: Output,
) -> None:
    """Write the processes, mappings and functions that write most, and the phases."""
    if len(result.processes) > 1:
        heading("Processes that write most", output)
        write_processes(result.processes, output, most=_MOST_MAPPINGS)
    heading("Mappings that are written most", output)
    write_table(
        "mappings",
        result.mappings,
        output,
        most=_MOST_MAPPINGS,
        processes=names if len(result.processes) > 1 else (),
    )
    if result.writers is not None:
        heading("Functions that write most", output)
        write_writers(
            result.writers,
            page_size,
            output,
            most=_MOST_FUNCTIONS,
            several=bool(facts.group),
            sampled=result.estimated,
        )
    heading("Phases", output)
    write_table("phases", result.phases, output, most=_MOST_PHASES)


def _subject(names: Sequence[str], facts: Any, result: Any) -> str:  # noqa: ANN401 - as above
    """Return what was recorded, a group or the programs by their names; and the looks.

    The looks at all processes of a group at one moment count as one.
    """
    rows = [row for row in result.processes if row.why is None]
    looks = plural(result.ticks, "look")
    if facts.group:
        count = plural(len(rows), "process")
        group = f"{facts.group['kind']} {escape(facts.group['name'])}"
        return f"{group}: {looks} of {count}"
    return f"{', '.join(escape(names[row.process]) for row in rows)}: {looks}"


def write_processes(
    rows: Sequence[Any], output: Output, *, most: int | None = None
) -> None:
    """Write the processes, then those that were not tracked, with the reasons."""
    if output.format == "csv":
        write_table("processes", rows, output)
        return
    tracked = [row for row in rows if row.why is None]
    write_table("processes", tracked, output, most=most)
    for row in rows:
        if row.why is not None:
            name = f"{escape(row.name)} ({row.pid})" if row.pid else "others"
            put(f"not tracked: {name}: {escape(row.why)}")


def _cost(result: Any) -> str:  # noqa: ANN401 - as above
    cost = result.cost
    parts = []
    whose = "their" if len(result.processes) > 1 else "its"
    if cost.target_share is None:
        parts.append(f"the share of {whose} processor time is not known")
    else:
        parts.append(f"{format_share(cost.target_share)} of {whose} processor time")
    if cost.stopped_ns:
        once = "in all" if len(result.processes) > 1 else "once"
        parts.append(f"stopped {once} {format_seconds(cost.stopped_ns / 1e9)}")
    parts.append(f"longest wait {format_seconds(cost.max_wait_ns / 1e9)}")
    if result.writers is not None and result.writers.samples:
        parts.append(f"{plural(result.writers.samples, 'sample')} for the functions")
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
    if any(share is None for row in rows for share in row.shares):
        put("· no look, or one of which most is in another slot")
    del output


def write_migration(result: Any, output: Output) -> None:  # noqa: ANN401 - as above
    """Write the rounds of a migration, its freeze, and the ranges to send last."""
    if output.format == "csv":
        write_table("rounds", result.rounds, output)
        return
    word = "converges" if result.converges else "does not converge"
    rounds = plural(len(result.rounds), "round")
    course = (
        f"{word} at {size(result.bandwidth, output)}/s: {rounds}"
        f" in {format_duration(result.seconds)}, {size(result.sent, output)} sent,"
        f" then {format_duration(result.freeze)} of freeze"
        f" (asked for: {format_duration(result.downtime)})"
    )
    for line in lines_of(course, width()) if output.format == "table" else [course]:
        put(line)
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
        name = "comparison of groups" if result.processes else "comparison"
        write_table(name, result.mappings, output)
        return
    rows = [
        ("", "old", "new"),
        (
            "length",
            format_duration(result.old.seconds),
            format_duration(result.new.seconds),
        ),
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
    name = "comparison of groups" if result.processes else "comparison"
    write_table(name, result.mappings, output)
    if result.processes:
        put()
        write_table("processes of both", result.processes, output)
    if result.functions:
        put()
        write_both(result.functions, output)


def size(count: float, output: Output) -> str:
    """Return a size, exact with --bytes."""
    return str(round(count)) if output.exact else format_size(round(count))
