"""A keeper lives on while another version of pagescan is installed in its place."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from pagescan.session.held_session import HeldSession
from pagescan.session.household import Household


def test_sigterm_after_an_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is loaded at the end may be gone: all sessions are disarmed."""
    monkeypatch.setitem(sys.modules, "pagescan.session.pending", None)
    household = Household()
    disarmed = []
    for pid in (1, 2):
        session: Any = SimpleNamespace(pid=pid, directory=-1, ended=False)
        session.huge_pages = lambda one=session: HeldSession.huge_pages(one)
        session.disarm = lambda pid=pid: disarmed.append(pid)
        household.sessions[pid] = session
    household.disarm_all()
    assert (disarmed, household.split) == ([1, 2], [])
