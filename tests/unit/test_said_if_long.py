"""A command says what it does if that takes longer than a moment."""

import threading

import pytest

from pagescan.commands import running
from pagescan.console.context import Context
from tests import witness


def test_only_what_takes_long_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short block says nothing, also later; a long one says it while it runs.

    A message that is dropped is never said.
    """
    before = threading.active_count()
    with running.said_if_long(Context(), "arming 42"):
        assert threading.active_count() == before + 1
    witness.wait_for(lambda: threading.active_count() == before)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(running, "PATIENCE", 0.01)
    with running.said_if_long(Context(), "arming 42"):
        witness.wait_for(lambda: threading.active_count() == before)
        assert capsys.readouterr().err == "pagescan: arming 42\n"
    with running.said_if_long(Context(), "arming 42") as drop:
        drop()
        witness.wait_for(lambda: threading.active_count() == before)
        assert capsys.readouterr().err == ""
