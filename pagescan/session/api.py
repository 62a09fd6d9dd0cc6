"""The library functions that look at a process, track it, and use sessions."""

import contextlib
import os
from collections.abc import Iterable, Iterator

from pagescan.model.batch import Batch
from pagescan.model.looks import Look
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import MappingTable
from pagescan.scanner.counts import with_shares
from pagescan.scanner.query import Query
from pagescan.scanner.scanner import Scanner
from pagescan.session import unregistered
from pagescan.session.delivery import look_at
from pagescan.session.locks import Lock
from pagescan.session.lookup import find_session, keeper_sessions
from pagescan.session.opened import end, start
from pagescan.session.record import Session, session_of
from pagescan.target import maps as mappings
from pagescan.target.find import pid_of
from pagescan.target.labels import Labels
from pagescan.target.process import Target
from pagescan.target.selection import Selection
from pagescan.target.wp_async import check_possible
from pagescan.tracking.tracking import Tracking


def scan(
    pid: int | str | None,
    ranges: Iterable[str] | None = None,
    query: Query | None = None,
) -> Batch:
    """Return the page regions of a process that match a query.

    Args:
        pid: The process, by its pid or its name; None: this one.
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
    with _selected(pid, ranges) as (scanner, selected):
        session = unregistered.session_of(scanner)
        return unregistered.scan(scanner, selected, query or Query(), session)


def maps(
    pid: int | str | None,
    ranges: Iterable[str] | None = None,
    *,
    smaps: bool = False,
    ask_runtime: bool = False,
) -> MappingTable:
    """Return one row per mapping, with its pages by category.

    Args:
        pid: The process, by its pid or its name; None: this one.
        ranges: RANGE words, as the command takes them; None: everything.
        smaps: Also read smaps, for `shares`: it holds the target's mmap lock for a
            whole mapping at a time.
        ask_runtime: Ask a Java virtual machine itself what its memory is for, with
            jcmd: this disturbs it.

    Raises:
        PagescanError: As for `scan`.

    Examples:
        >>> import pagescan
        >>> [row] = pagescan.maps(4242, ["[stack]"])
        >>> row.mapping.label, row.counts["present"] > 0
        ('[stack]', True)
        >>> pagescan.maps(4242).table()["mapping"].count("[stack]")
        1
    """
    with _selected(pid, ranges) as (scanner, selected):
        rows = unregistered.maps(scanner, selected, unregistered.session_of(scanner))
        if smaps:
            rows = with_shares(scanner, rows)
        labels = Labels(scanner.target)
        if ask_runtime:
            from pagescan.target.jvm import ask

            labels.told = ask(scanner.target)
        return MappingTable(labels.label_rows(rows))


@contextlib.contextmanager
def _selected(
    pid: int | str | None, ranges: Iterable[str] | None
) -> Iterator[tuple[Scanner, MappingSet]]:
    """Open a process; yield its scanner, and the mappings that the ranges select."""
    selection = Selection.parse(ranges or ())
    with Target.open(pid_of(pid)) as target:
        rows = mappings.read(target)
        selection.check(rows)
        yield Scanner(target), selection.select(rows)


def start_session(pid: int | str, ranges: Iterable[str] | None = None) -> Session:
    """Arm a process and leave the tracking to a keeper, like `pagescan arm`.

    Args:
        pid: The process, by its pid or its name.
        ranges: RANGE words; None: everything. The same words select mappings that
            appear later.

    Raises:
        PagescanError: As for `arm`; nothing is left in the target then.

    Examples:
        >>> import pagescan
        >>> session = pagescan.start_session(4242, ["[stack]"])
        >>> session.target.pid, session.holder
        (4242, 'keeper')
        >>> pagescan.end_session(4242)
    """
    selection = Selection.parse(ranges or ())
    check_possible()
    pid = pid_of(pid)
    with Target.open(pid) as target:
        mappings.check_selection(selection, target)
        start(target, selection)
    return find_session(pid)


def sessions() -> list[Session]:
    """Return the sessions of this user, by pid.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> 4242 in [session.target.pid for session in pagescan.sessions()]
        True
        >>> pagescan.end_session(4242)
    """
    return keeper_sessions()


def look_at_session(pid: int | str | None = None, *, rearm: bool = False) -> Look:
    """Return the pages written since arming or the last rearm, like `pagescan diff`.

    Args:
        pid: The target, by its pid or name; None: that of the only session.
        rearm: Protect the found pages in the same step: the next look starts there.

    Raises:
        SessionError: No session exists, or it was lost.
        TargetError: The target has ended, or runs another program.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> look = pagescan.look_at_session(4242, rearm=True)
        >>> look.batch.summary().pages >= 0
        True
        >>> pagescan.end_session(4242)
    """
    return look_at(find_session(pid), rearm=rearm)[1]


def end_session(pid: int | str | None = None, *, restore_huge: bool = True) -> None:
    """End a session, like `pagescan disarm`: nothing is left in the target.

    Args:
        pid: The target, by its pid or name; None: that of the only session.
        restore_huge: Put back the huge pages that tracking has split.

    Raises:
        SessionError: No session exists.
        KeyboardInterrupt: It came while huge pages were put back.
    """
    _, restored = end(find_session(pid), restore_huge=restore_huge)
    if restored.caught:
        raise KeyboardInterrupt


def track(
    pid: int | str | None = None,
    ranges: Iterable[str] | None = None,
    *,
    restore_huge: bool = True,
) -> Tracking:
    """Arm a process and return its tracking, a context manager that disarms at the end.

    Args:
        pid: The process, by its pid or its name; None: this one, without ptrace or
            privileges.
        ranges: RANGE words; None: everything. The same words select mappings that
            appear later.
        restore_huge: At the end, put back the huge pages that tracking has split.

    Raises:
        SessionError: The process is tracked already.
        UnsuitableTargetError: The process is traced, or cannot be tracked.
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
    pid = pid_of(pid)
    if pid != os.getpid():
        check_possible()
    target = Target.open(pid)
    with contextlib.ExitStack() as undo:
        undo.callback(target.close)
        mappings.check_selection(selection, target)
        lock = Lock.taken(target.pid, undo)
        tracking = OwnTracking.start(target, selection)
        undo.callback(Tracking.close, tracking)
        tracking.lock = lock
        tracking.restore_huge = restore_huge
        lock.write(session_of(tracking, "track"))
        undo.pop_all()
    return tracking


class OwnTracking(Tracking):
    """The result of `track`: also closes the target and releases its lock."""

    lock: Lock

    def close(self) -> None:
        """Disarm and release the lock on the target; a second call has no effect."""
        if self.uffd < 0:
            return
        try:
            super().close()
        finally:
            if self.is_ours():
                self.lock.remove()
            self.lock.close()
            self.target.close()
