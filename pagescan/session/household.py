"""All sessions of one keeper: those that live, and the members that have gone."""

from __future__ import annotations

import selectors
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pagescan.native import Columns
    from pagescan.session.held_session import HeldSession

_REMEMBERED = 1000
"""The members of a group that have gone: the latest ones that nobody was told of."""

_CARE = 60.0
"""Seconds between two checks of the sessions' files, which a cleaner may remove.

Cleaners run daily; one check is a stat(2) per file.
"""


class Household:
    """The sessions of one keeper: one, or one per member of a group.

    Attributes:
        sessions: The living sessions by the pid of their target.
        gone: The facts of the sessions of a group that have ended, each with a number.
        split: The huge pages that are to be put back after `disarm_all`: the pid of
            each target, its start time, and the memory that was in huge pages.
    """

    def __init__(self) -> None:
        """Begin without a session."""
        self.selector = selectors.DefaultSelector()
        self.sessions: dict[int, HeldSession] = {}
        self.gone: list[dict[str, Any]] = []
        self.split: list[tuple[int, int, Columns]] = []
        self._number = 0

    def living(self) -> list[HeldSession]:
        """Return the sessions that are not over."""
        return [session for session in self.sessions.values() if not session.ended]

    def serve(self) -> None:
        """Serve until all sessions have ended; leave nothing of them behind."""
        due = time.monotonic() + _CARE
        while self.sessions:
            for key, _ in self.selector.select(max(0.0, due - time.monotonic())):
                key.data()
                # At once: a later event may be one of a session that is closed here.
                if self._sweep():
                    break
            if time.monotonic() >= due:
                due += _CARE
                for session in self.living():
                    session.care()
                self._sweep()

    def disarm_all(self) -> None:
        """End all sessions, as if a client had requested it; `split` is for later."""
        for session in self.living():
            units = session.huge_pages()
            session.disarm()
            if units is not None:
                start_time = session.facts["target"]["start_time"]
                self.split.append((session.pid, start_time, units))

    def _sweep(self) -> bool:
        """Close the sessions that are over; return whether there were any."""
        over = [session for session in self.sessions.values() if session.ended]
        for session in over:
            del self.sessions[session.pid]
            session.close()
            if session.facts.get("group") is not None:
                self._remember(session)
        return bool(over)

    def _remember(self, session: HeldSession) -> None:
        self._number += 1
        facts = session.facts
        self.gone = self.gone[1 - _REMEMBERED :]
        self.gone.append(
            {
                "number": self._number,
                "target": facts["target"],
                "armed_at": facts["armed_at"],
                "since": facts["since"],
                "ended_at": time.time(),
                "end": session.end,
            }
        )

    def forget(self, last: int) -> None:
        """Forget the members up to a number: a command has told of them."""
        self.gone = [item for item in self.gone if item["number"] > last]
