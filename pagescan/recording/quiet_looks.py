"""Adds the looks that a recorder of a group leaves out: of processes that did not run.

A process that has not run since its last look has written nothing. The recorder stores
no look of it, and the reader adds an empty one: so each process has a look per tick,
and views may count looks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

MOST = 1_000_000
"""About this many empty looks are added at most. If there were more, each stands for
several ticks, and has their time together: a day of a large group fits into memory."""

_ID, _PROCESS, _NUMBER, _TIME, _INTERVAL, _RESIDENT = 0, 1, 2, 3, 4, 7
"""Indices of columns of `looks`."""

Row = tuple[Any, ...]


class QuietLook(NamedTuple):
    """An empty look that is in no file.

    Attributes:
        process: The id of its process.
        number: The number of its tick.
        time_ns: Its end.
        interval_ns: The time since the look before.
        resident: Resident bytes at that look.
    """

    process: int
    number: int
    time_ns: int
    interval_ns: int
    resident: int | None


class Filled(NamedTuple):
    """The looks of a file with those that were left out.

    Attributes:
        looks: Rows of the file, and empty looks, by tick.
        step: How many ticks an empty look stands for.
    """

    looks: list[Row | QuietLook]
    step: int


def with_quiet_looks(
    looks: list[Row], processes: list[Row], most: int = MOST
) -> Filled:
    """Return the rows of looks with those that were left out.

    Args:
        looks: The rows of a file, by id.
        processes: The rows of its processes.
        most: About how many empty looks are added.
    """
    if len({row[_PROCESS] for row in looks}) < 2:
        return Filled([*looks], 1)
    ticks = [
        [*rows]
        for _, rows in groupby(
            sorted(looks, key=lambda row: (row[_NUMBER], row[_ID])),
            lambda row: row[_NUMBER],
        )
    ]
    own = _own_looks(ticks)
    lasts = _last_places(looks, processes, own)
    missing = sum(lasts[one] + 1 - next(iter(at)) - len(at) for one, at in own.items())
    step = max(1, -(-missing // most))
    firsts = [rows[0] for rows in ticks]
    filled: list[list[Row | QuietLook]] = [[*rows] for rows in ticks]
    for process, at in own.items():
        for place, look in _quiet(firsts, at, lasts[process], step):
            filled[place].append(look)
    return Filled([look for rows in filled for look in rows], step)


def _own_looks(ticks: list[list[Row]]) -> dict[int, dict[int, Row]]:
    """Return the looks of each process by their places in the ticks, ascending."""
    found: dict[int, dict[int, Row]] = {}
    for place, rows in enumerate(ticks):
        for row in rows:
            found.setdefault(row[_PROCESS], {})[place] = row
    return found


def _last_places(
    looks: list[Row], processes: list[Row], own: dict[int, dict[int, Row]]
) -> dict[int, int]:
    """Return the place of the tick with which each process ends.

    For one that ended it is that of the last look before its end.
    """
    ids = [row[_ID] for row in looks]
    place_of = {row[_NUMBER]: place for at in own.values() for place, row in at.items()}
    ends = {row[0]: row[-3] for row in processes}
    found = {}
    for process, at in own.items():
        last = max(at)
        end = ends.get(process, 0)  # 0: its row is lost
        if end is None:
            last = max(place_of.values())
        elif before := bisect_right(ids, end):
            last = max(last, place_of[looks[before - 1][_NUMBER]])
        found[process] = last
    return found


def _quiet(
    ticks: list[Row], own: dict[int, Row], last: int, step: int
) -> Iterator[tuple[int, QuietLook]]:
    """Yield the empty looks of a process, with their places.

    Args:
        ticks: A row of each tick.
        own: The looks of the process by their places.
        last: The place of its last tick.
        step: How many ticks one look stands for; before a look of its own they are
            fewer.
    """
    first = min(own)
    known, interval = own[first], 0
    for place in range(first, last + 1):
        known = own.get(place, known)
        if place in own:
            continue
        row = ticks[place]
        interval += row[_INTERVAL]
        if place % step == step - 1 or place == last or place + 1 in own:
            yield (
                place,
                QuietLook(
                    known[_PROCESS],
                    row[_NUMBER],
                    row[_TIME],
                    interval,
                    known[_RESIDENT],
                ),
            )
            interval = 0
