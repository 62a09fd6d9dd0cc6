"""The library's front door: what the commands do, as functions."""

import contextlib
import os
from collections.abc import Iterable

from pagescan import mappings
from pagescan.mappings import Selection
from pagescan.model import MappingCounts
from pagescan.regions import Batch
from pagescan.scanner import Query, Scanner
from pagescan.session import Lock
from pagescan.tally import count_by_mapping, scan_target
from pagescan.target import Target
from pagescan.tracking import Tracking, session_of
from pagescan.wp_async import check_possible


def scan(
    pid: int | None,
    ranges: Iterable[str] | None = None,
    query: Query | None = None,
) -> Batch:
    """Return the page regions of a process that a query wants.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.
        query: The masks; None: all pages, with the default categories.

    Raises:
        UsageError: A range is malformed.
        TargetError: There is no such process, or none that can be looked at.
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
    """Return one row a mapping: its pages by category.

    Args:
        pid: The process; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.

    Raises:
        PagescanError: As `scan` says.

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


def track(
    pid: int | None = None,
    ranges: Iterable[str] | None = None,
    *,
    restore_huge: bool = True,
) -> Tracking:
    """Arm a process and return the tracking, a context manager that disarms at its end.

    Args:
        pid: The process; None: this one, without ptrace and without rights.
        ranges: RANGE words; None: everything. Mappings that come later are judged by
            the same words.
        restore_huge: Put back, at the end, the huge pages that tracking has split.

    Raises:
        SessionError: It is tracked already.
        UnsuitableTargetError: It is traced, or cannot be tracked.
        AccessDeniedError: This user may not trace it.
        KernelUnsupportedError: The kernel has no asynchronous write-protect.
        PagescanError: Nothing of the selection could be armed.

    Examples:
        >>> import pagescan
        >>> with pagescan.track(4242) as tracking:
        ...     pages = sum(region.pages for region in tracking.written())
        >>> pages >= 0
        True
    """
    selection = Selection.parse(ranges or ())
    pid = os.getpid() if pid is None else pid
    if pid != os.getpid():
        check_possible()
    target = Target.open(pid)
    with contextlib.ExitStack() as undo:
        undo.callback(target.close)
        selection.check(mappings.read(target))
        lock = Lock.take(target.pid)
        undo.callback(lock.close)
        undo.callback(lock.remove)
        tracking = OwnTracking.start(target, selection)
        undo.callback(Tracking.close, tracking)
        tracking.lock = lock
        tracking.restore_huge = restore_huge
        lock.write(session_of(tracking, "track"))
        undo.pop_all()
    return tracking


class OwnTracking(Tracking):
    """What `track` returns: closes the target and frees the lock as well."""

    lock: Lock

    def close(self) -> None:
        """Disarm and let others track the target; twice does no harm."""
        if self.uffd < 0:
            return
        try:
            super().close()
        finally:
            if self.is_ours():
                self.lock.remove()
            self.lock.close()
            self.target.close()
