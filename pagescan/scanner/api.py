"""The functions `scan` and `maps` of the library."""

import os
from collections.abc import Iterable

from pagescan.model.batch import Batch
from pagescan.model.results import MappingCounts
from pagescan.scanner.counts import count_by_mapping, scan_target
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps as mappings
from pagescan.target.process import Target
from pagescan.target.selection import Selection


def scan(
    pid: int | None,
    ranges: Iterable[str] | None = None,
    query: Query | None = None,
) -> Batch:
    """Return the page regions of a process that match a query.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.
        query: The masks; None: all pages, with the default categories.

    Raises:
        UsageError: A range is malformed.
        TargetError: No such process, or not one that can be looked at.
        AccessDeniedError: This user may not look at it.
        PagescanError: A range covers no mapping.

    Examples:
        >>> import pagescan
        >>> present = pagescan.Query(require=pagescan.Category.PRESENT)
        >>> batch = pagescan.scan(4242, query=present)
        >>> batch.summary().bytes == sum(batch.ends) - sum(batch.starts)
        True
    """
    query = query or Query()
    selection = Selection.parse(ranges or ())
    with Target.open(os.getpid() if pid is None else pid) as target:
        there = mappings.read(target)
        selection.check(there)
        return scan_target(Scanner(target), selection.select(there), query)


def maps(pid: int | None, ranges: Iterable[str] | None = None) -> list[MappingCounts]:
    """Return one row per mapping, with its pages by category.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.

    Raises:
        PagescanError: As for `scan`.

    Examples:
        >>> import pagescan
        >>> [row] = pagescan.maps(4242, ["[stack]"])
        >>> row.mapping.label, row.counts["present"] > 0
        ('[stack]', True)
    """
    selection = Selection.parse(ranges or ())
    with Target.open(os.getpid() if pid is None else pid) as target:
        there = mappings.read(target)
        selection.check(there)
        return count_by_mapping(Scanner(target), selection.select(there))
