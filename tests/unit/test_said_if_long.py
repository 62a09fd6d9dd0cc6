"""A command says what it does if that takes longer than a moment."""

import time

import pytest

from pagescan.commands import watch
from pagescan.console.context import Context


def test_only_what_takes_long_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A short block says nothing, also later; a long one says it while it runs."""
    monkeypatch.setattr(watch, "PATIENCE", 0.05)
    with watch.said_if_long(Context(), "arming 42"):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
    with watch.said_if_long(Context(), "arming 42"):
        time.sleep(0.5)
        assert capsys.readouterr().err == "pagescan: arming 42\n"
