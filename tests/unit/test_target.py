"""The facts in a target's status, and the meaning of a missing line."""

import os

import pytest

from pagescan.model.errors import (
    AccessDeniedError,
    NoSuchTargetError,
    UnsuitableTargetError,
)
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


def test_an_error_names_its_process() -> None:
    """A program reads the pid from the error, not from its text."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(UnsuitableTargetError, match="is a zombie") as told:
        target.Target.open(pid)
    assert told.value.pid == pid
    os.waitpid(pid, 0)
    with pytest.raises(NoSuchTargetError, match="no process with pid") as gone:
        target.Target.open(pid)
    assert gone.value.pid == pid


def test_a_process_without_a_name_has_its_pid() -> None:
    """The kernel lets a process empty its name; this one's program is not known."""
    rest = b" S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20"
    assert target.parse_stat(b"4999999 (a) b)" + rest).name == "a) b"
    assert target.parse_stat(b"4999999 ()" + rest).name == "4999999"
