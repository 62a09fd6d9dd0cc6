"""The questions to a fleet: one text of SQL each, the same on every engine.

Sums are of whole numbers, and only their last step is a division: so engines that add
in different orders give equal answers.
"""

from __future__ import annotations

from typing import NamedTuple


class MemoryRow(NamedTuple):
    """The writes of all processes of one name to mappings of one name.

    Attributes:
        name: The name of the processes.
        mapping: What the mapping is for, or else its name.
        hosts: The number of machines.
        processes: The number of processes.
        bytes: Written bytes; a page counts once per look.
        share: Their part of all written bytes, 0 to 1.
        rate: Written bytes per second of one process, on average.
    """

    name: str
    mapping: str
    hosts: int
    processes: int
    bytes: int
    share: float
    rate: float


class FunctionRow(NamedTuple):
    """The writes of a function, in all processes of one name.

    Attributes:
        name: The name of the processes.
        function: The function.
        module: Its file; None: not known.
        hosts: The number of machines.
        processes: The number of processes.
        bytes: Bytes of pages that it wrote first.
        share: Their part of all bytes of recordings with writers, 0 to 1.
    """

    name: str
    function: str
    module: str | None
    hosts: int
    processes: int
    bytes: int
    share: float


class GrowthRow(NamedTuple):
    """The resident memory of a process, at its first and at its last look.

    Attributes:
        host: The machine.
        name: The name of the process.
        pid: The process.
        seconds: The time of its looks.
        before: Resident bytes at its first look.
        after: Resident bytes at its last look.
        growth: The difference.
        rate: The growth per second.
    """

    host: str
    name: str
    pid: int
    seconds: float
    before: int
    after: int
    growth: int
    rate: float


class RegressionRow(NamedTuple):
    """The writes of a program in two releases that followed each other.

    Attributes:
        name: The name of the processes.
        old: The release before.
        new: The release.
        hosts: The number of machines with the new one.
        processes: The number of processes of the new one.
        old_rate: Written bytes per second of one process, on average.
        new_rate: The same with the new release.
        change: By how much the rate has changed: 0.5 is half as much again.
    """

    name: str
    old: str
    new: str
    hosts: int
    processes: int
    old_rate: float
    new_rate: float
    change: float | None


class Question(NamedTuple):
    """A question.

    Attributes:
        sql: Its text.
        row: The rows of its answer.
    """

    sql: str
    row: type[NamedTuple]


QUESTIONS = {
    "memory": Question(
        """
        WITH times AS (
            SELECT name, SUM(interval_ns) AS ns FROM looks GROUP BY name
        ), total AS (
            SELECT SUM(bytes) AS bytes FROM mappings
        ), sums AS (
            SELECT name, COALESCE(label, mapping) AS mapping,
                   COUNT(DISTINCT host) AS hosts,
                   COUNT(DISTINCT host || ' ' || session) AS processes,
                   SUM(bytes) AS bytes
            FROM mappings GROUP BY name, COALESCE(label, mapping)
        )
        SELECT sums.name AS name, sums.mapping AS mapping, sums.hosts AS hosts,
               sums.processes AS processes, CAST(sums.bytes AS BIGINT) AS bytes,
               CAST(sums.bytes AS DOUBLE) / NULLIF(total.bytes, 0) AS share,
               CAST(sums.bytes AS DOUBLE) * 1000000000 / NULLIF(times.ns, 0) AS rate
        FROM sums JOIN times ON sums.name = times.name CROSS JOIN total
        ORDER BY bytes DESC, name, mapping
        """,
        MemoryRow,
    ),
    "functions": Question(
        """
        WITH total AS (
            SELECT SUM(bytes) AS bytes FROM writers
        ), sums AS (
            SELECT name, COALESCE(function, '(no name)') AS function, module,
                   COUNT(DISTINCT host) AS hosts,
                   COUNT(DISTINCT host || ' ' || session) AS processes,
                   SUM(bytes) AS bytes
            FROM writers GROUP BY name, COALESCE(function, '(no name)'), module
        )
        SELECT sums.name AS name, sums.function AS function, sums.module AS module,
               sums.hosts AS hosts, sums.processes AS processes,
               CAST(sums.bytes AS BIGINT) AS bytes,
               CAST(sums.bytes AS DOUBLE) / NULLIF(total.bytes, 0) AS share
        FROM sums CROSS JOIN total
        ORDER BY bytes DESC, name, function, COALESCE(module, '')
        """,
        FunctionRow,
    ),
    "growth": Question(
        """
        WITH ends AS (
            SELECT host, session, MIN(look) AS first_look, MAX(look) AS last_look
            FROM looks WHERE resident IS NOT NULL GROUP BY host, session
        ), sums AS (
            SELECT looks.host AS host, looks.session AS session,
                   MAX(looks.name) AS name, MAX(looks.pid) AS pid,
                   SUM(looks.interval_ns) AS ns,
                   MAX(CASE WHEN looks.look = ends.first_look THEN looks.resident END)
                       AS resident_before,
                   MAX(CASE WHEN looks.look = ends.last_look THEN looks.resident END)
                       AS resident_after
            FROM looks JOIN ends
              ON looks.host = ends.host AND looks.session = ends.session
            GROUP BY looks.host, looks.session
        )
        SELECT host, name, pid, CAST(ns AS DOUBLE) / 1000000000 AS seconds,
               resident_before, resident_after,
               resident_after - resident_before AS growth,
               CAST(resident_after - resident_before AS DOUBLE) * 1000000000
                   / NULLIF(ns, 0) AS rate
        FROM sums ORDER BY growth DESC, host, name, pid, session
        """,
        GrowthRow,
    ),
    "regressions": Question(
        """
        WITH sums AS (
            SELECT name, COALESCE(release, '(unknown)') AS new_release,
                   MIN(time) AS since,
                   COUNT(DISTINCT host) AS hosts,
                   COUNT(DISTINCT host || ' ' || session) AS processes,
                   CAST(SUM(COALESCE(estimated_bytes, bytes)) AS DOUBLE) * 1000000000
                       / NULLIF(SUM(interval_ns), 0) AS new_rate
            FROM looks GROUP BY name, COALESCE(release, '(unknown)')
        ), pairs AS (
            SELECT name, new_release, hosts, processes, new_rate,
                   LAG(new_release) OVER (
                       PARTITION BY name ORDER BY since, new_release) AS old_release,
                   LAG(new_rate) OVER (
                       PARTITION BY name ORDER BY since, new_release) AS old_rate
            FROM sums
        )
        SELECT name, old_release, new_release, hosts, processes, old_rate, new_rate,
               new_rate / NULLIF(old_rate, 0) - 1 AS change
        FROM pairs WHERE old_release IS NOT NULL
        ORDER BY COALESCE(new_rate / NULLIF(old_rate, 0), 0) DESC, name, new_release
        """,
        RegressionRow,
    ),
}
"""The questions by their names; `row` has the columns of the answer, in order."""
