"""Finds sessions: live ones, lost ones, and the session of a named target."""

from __future__ import annotations

import contextlib
import os
from array import array
from typing import TYPE_CHECKING

from pagescan.model.errors import (
    AccessDeniedError,
    PagescanError,
    SessionError,
    SessionLostError,
    UsageError,
)
from pagescan.native import Meter, Pace, Spans, scan_once
from pagescan.session.locks import (
    live_sessions,
    lock_files,
    remove_orphans,
    tracked_already,
)
from pagescan.target.find import pid_of
from pagescan.target.maps import read
from pagescan.target.process import Target, read_stat
from pagescan.target.wp_async import why_impossible

if TYPE_CHECKING:
    from pagescan.model.results import TargetFacts
    from pagescan.session.record import Session

_USER_SPACE = 1 << 56
_AT_ONCE = 500  # mappings: the kernel skips that many in 20 us


def keeper_sessions() -> list[Session]:
    """Return the live sessions held by a keeper: users call these sessions."""
    return [session for session in live_sessions() if session.is_kept]


def other_holders() -> list[Session]:
    """Return what `watch` and the library track for as long as they run."""
    return [session for session in live_sessions() if session.holder != "keeper"]


def lost_sessions(group: tuple[str, str] | None = None) -> list[Session]:
    """Return the sessions of dead keepers whose targets still run.

    Args:
        group: The kind and name of a group, whenever it was armed; None: all sessions.
    """
    return [
        session
        for file in lock_files()
        if not file.held and (session := file.read()) and _is_lost(session)
        if group is None or (session.group is not None and session.group.key == group)
    ]


def losses(lost: list[Session], living: list[Session]) -> list[str]:
    """Return what to say about lost sessions, a line per session or group.

    Args:
        lost: The lost sessions.
        living: The living ones: they may be of the same groups.
    """
    groups = {session.group.key for session in living if session.group}
    lines = []
    for session in lost:
        group = session.group
        name = f"session {session.name}" if group is None else str(group)
        part = " in part" if group is not None and group.key in groups else ""
        lines.append(f"{name} was lost{part}: its keeper died")
    return list(dict.fromkeys(lines))


def clear_away(session: Session) -> None:
    """Remove the files of a session whose holder died."""
    for file in lock_files(session.target.pid):
        if not file.held:
            file.remove()


def clear_leftovers() -> None:
    """Remove the files of dead holders, apart from those of lost sessions.

    A killed `watch` leaves such files, and so does a keeper that died with its target.
    """
    for file in lock_files():
        if not file.held:
            session = file.read()
            if session is None or not _is_lost(session):
                file.remove()
    remove_orphans()


def _is_lost(session: Session) -> bool:
    """Whether a session whose holder died has to be reported as lost."""
    return session.is_kept and still_runs(session.target)


def still_runs(target: TargetFacts) -> bool:
    """Whether the process still exists, is the same one, and has not ended."""
    try:
        stat = read_stat(target.pid)
    except OSError:
        return False
    return stat.start_time == target.start_time and stat.state not in "ZX"


def find_session(target: int | str | None) -> Session:
    """Return the session of a target, or the only session.

    Args:
        target: Its pid or its name; None: that of the only session.

    Raises:
        NoSuchTargetError: No process has the name.
        SessionError: There is no session.
        UsageError: No target was named and there are several; its details list them.
        SessionLostError: Its keeper died. The files are removed: it is reported once.
    """
    pid = None if target is None else pid_of(target)
    sessions = keeper_sessions()
    if pid is not None:
        sessions = [session for session in sessions if session.target.pid == pid]
    if len(sessions) > 1 and pid is None:
        raise _several(sessions)
    if sessions:
        return sessions[0]
    clear_leftovers()
    for session in lost_sessions():
        if pid in (None, session.target.pid):
            clear_away(session)
            raise lost_tracking(session)
    if pid is None:
        raise SessionError("no session", hint=hint_to_arm(None))
    with Target.open(pid) as process:
        raise _no_session(process)


def hint_to_arm(pid: int | None) -> str:
    """Return the hint on starting a session, or why none can be started here."""
    error = why_impossible()
    if error:
        return f"no session can be started here: {error}"
    return f"pagescan arm {pid}" if pid is not None else "pagescan arm PID starts one"


def lost_tracking(session: Session) -> SessionLostError:
    """Return the error for a session whose keeper died."""
    target = session.target
    return SessionLostError(
        f"tracking of {target.pid} ({target.name}) was lost: its keeper"
        f" (pid {session.keeper_pid}) died; which pages were written is unknown",
        hint=f"start over with: pagescan arm {target.pid}",
        pid=target.pid,
    )


def _several(sessions: list[Session]) -> UsageError:
    """Return the error that lists the sessions to choose from."""
    names = dict.fromkeys(
        item.group.words if item.group else f"{item.name}  {item.target.name}"
        for item in sorted(sessions, key=lambda item: item.armed_at)
    )
    return UsageError(
        f"{len(names)} sessions, and no TARGET; the oldest first",
        hint="give one of them as TARGET",
        details=[f"  {name}" for name in names],
    )


def _no_session(target: Target) -> PagescanError:
    """Return the error that tells why this user has no session of a process."""
    pid = target.pid
    held = [file.read() for file in lock_files(pid) if file.held]
    for other in held:  # a keeper's session would have been found
        if other is None or other.holder == "keeper":
            return tracked_already(other, pid)
        return SessionError(
            f"no session for {target}:"
            f" it is tracked by {other.holder}, pid {other.keeper_pid}",
            hint=f"end that first, then: pagescan arm {pid}",
            pid=pid,
        )
    if _write_protected(target):
        return AccessDeniedError(
            f"{target} is tracked by another user's session, or by itself",
            hint=_hint_to_its_user(pid),
            pid=pid,
        )
    return SessionError(f"no session for {target}", hint=hint_to_arm(pid), pid=pid)


def _hint_to_its_user(pid: int) -> str:
    """Return who may look at a session that this user does not see.

    It is most often that of the target's own user, for root; or root's, for others.
    """
    hint = "only that user can look at it"
    if os.geteuid():
        return f"{hint}; as root: pagescan sessions"
    with contextlib.suppress(OSError):
        if owner := os.stat(f"/proc/{pid}").st_uid:
            return f"{hint}; as the target's own: sudo -u '#{owner}' pagescan sessions"
    return hint


def _write_protected(target: Target) -> bool:
    """Whether a mapping is registered for write-protect: its first page matches."""
    from pagescan.scanner.rules import registered_rule  # an error's cause is rare

    rule = registered_rule(align=_USER_SPACE)  # one call per span: skipped whole
    with contextlib.suppress(PagescanError, OSError):
        rows = read(target)
        groups = [rows[at : at + _AT_ONCE] for at in range(0, len(rows), _AT_ONCE)]
        spans = Spans(
            array("Q", (group[0].start for group in groups)),
            array("Q", (group[-1].end for group in groups)),
            array("Q", bytes(8 * len(groups))),
        )
        regions = scan_once(
            target.pagemap, spans, [rule], max_pages=1, pace=Pace(), meter=Meter()
        )
        return bool(regions.starts)
    return False
