"""The facts in a target's status, and the meaning of a missing line."""

import os

import pytest

from pagescan.model.errors import AccessDeniedError, UnsuitableTargetError
from pagescan.target import process as target


def test_tracer_that_is_not_told_is_no_no(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable status is an error, and so is one without the line TracerPid."""
    assert target.tracer_of(os.getpid()) is None

    def deny(pid: int) -> dict[str, str]:
        raise PermissionError(13, "no", f"/proc/{pid}/status")

    monkeypatch.setattr(target, "read_status", deny)
    with pytest.raises(AccessDeniedError, match="is traced"):
        target.tracer_of(os.getpid())
    monkeypatch.setattr(target, "read_status", lambda _: {})
    with pytest.raises(UnsuitableTargetError, match="is traced"):
        target.tracer_of(os.getpid())
    monkeypatch.setattr(target, "read_status", lambda _: {"TracerPid": "1"})
    monkeypatch.setattr(target, "read_stat", deny)
    assert target.tracer_of(os.getpid()) == (1, "hidden")
