"""The library's door to sessions: tracking and checkpoints that outlive the caller."""

from collections.abc import Iterable

from pagescan import checkpoint, mappings, session, session_tracking
from pagescan.mappings import Selection
from pagescan.plan import Plan
from pagescan.session import Session
from pagescan.target import Target
from pagescan.tracking import Look
from pagescan.wp_async import check_possible


def start_session(pid: int, ranges: Iterable[str] | None = None) -> Session:
    """Arm a process and leave the tracking to a keeper, as `pagescan arm` does.

    Args:
        pid: The process.
        ranges: RANGE words; None: everything. Mappings that come later are judged by
            the same words.

    Raises:
        PagescanError: As `arm` says; nothing is left in the target then.

    Examples:
        >>> import pagescan
        >>> session = pagescan.start_session(4242, ["[stack]"])
        >>> session.target.pid, session.holder
        (4242, 'keeper')
        >>> pagescan.end_session(4242)
    """
    selection = Selection.parse(ranges or ())
    check_possible()
    with Target.open(pid) as target:
        selection.check(mappings.read(target))
        session_tracking.start(target, selection)
    return session.find(pid)


def sessions() -> list[Session]:
    """Return the sessions of this user, by pid.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> 4242 in [session.target.pid for session in pagescan.sessions()]
        True
        >>> pagescan.end_session(4242)
    """
    return session.kept()


def look_at_session(pid: int | None = None, *, rearm: bool = False) -> Look:
    """Return what was written since arming, or since the last rearm: `pagescan diff`.

    Args:
        pid: The target; None: that of the only session.
        rearm: Protect what is found, in the same step: the next look starts here.

    Raises:
        SessionError: There is no session, or it was lost.
        TargetError: The target has ended, or runs another program.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> look = pagescan.look_at_session(4242, rearm=True)
        >>> look.batch.summary().pages >= 0
        True
        >>> pagescan.end_session(4242)
    """
    return session_tracking.look_at(session.find(pid), rearm=rearm)[1]


def end_session(pid: int | None = None, *, restore_huge: bool = True) -> None:
    """Disarm: nothing is left in the target.

    Args:
        pid: The target; None: that of the only session.
        restore_huge: Put back the huge pages that tracking has split.

    Raises:
        SessionError: There is no session.
        KeyboardInterrupt: It came while huge pages were put back.
    """
    _, restored = session_tracking.end(session.find(pid), restore_huge=restore_huge)
    if restored.caught:
        raise KeyboardInterrupt


def dump_plan(pid: int, epoch: int | None = None) -> Plan:
    """Return the pages that a checkpoint has to store.

    Args:
        pid: The process.
        epoch: None: all, now, and nothing is touched. Else, through the session: the
            image of that epoch is done, and this comes on top of it; 0: there is none.

    Raises:
        SessionError: There is no session, or no plan of that epoch was made.

    Examples:
        >>> import pagescan
        >>> _ = pagescan.start_session(4242)
        >>> plan = pagescan.dump_plan(4242, 0)
        >>> plan.epoch, plan.parent, plan.pages()["keep"]
        (1, None, 0)
        >>> pagescan.dump_plan(4242, 1).parent
        1
        >>> pagescan.end_session(4242)
    """
    if epoch is None:
        with Target.open(pid) as target:
            return checkpoint.plan_now(target).plan
    return checkpoint.plan_epoch(pid, epoch).plan
