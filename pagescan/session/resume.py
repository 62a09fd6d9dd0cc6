"""Continues a tracking from the state that its session has stored."""

from pagescan.native import Pace
from pagescan.scanner.scanner import Scanner
from pagescan.session.record import Session
from pagescan.target.selection import Selection
from pagescan.tracking.arm import Armed
from pagescan.tracking.growing_ends import End
from pagescan.tracking.tracking import Tracking


def resume(
    session: Session, scanner: Scanner, uffd: int = -1, pace: Pace | None = None
) -> Tracking:
    """Return a tracking that continues from the state of a session.

    Args:
        session: The facts of the session.
        scanner: The scanner of its target.
        uffd: Its userfaultfd; -1: nothing will be changed.
        pace: How long one call may hold the target's mmap lock.
    """
    return Tracking(
        scanner.target,
        uffd,
        Armed(
            Selection.parse(session.words),
            list(session.untracked),
            session.tracked_bytes,
            session.tables_left,
            session.epoch,
            session.alike,
            ends=[End.from_json(end) for end in session.ends],
        ),
        armed_at=session.armed_at,
        since=session.since,
        pace=pace,
    )
