"""The line that `who` writes on a terminal until its result comes."""

import math
import os
from types import SimpleNamespace

import pytest

from pagescan.commands.progress_line import ProgressLine, TimeLeft
from pagescan.model.results import Summary
from pagescan.tracking.ticks import Limits


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> ProgressLine:
    """A line on a terminal of 80 columns."""
    size = os.terminal_size((80, 24))
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: size)
    said: list[str] = []
    context = SimpleNamespace(shows_progress=True, say=said.append, said=said)
    return ProgressLine(context)  # type: ignore[arg-type]


def tick(pages: int, end: str | None = None) -> SimpleNamespace:
    """Return a tick with these totals."""
    return SimpleNamespace(totals=Summary(1, pages, pages << 12, {}), end=end)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that were written since the last call."""
    text = capsys.readouterr().err
    return [part.removesuffix("\x1b[K") for part in text.split("\r")[1:]]


def test_the_seconds_that_are_left(
    line: ProgressLine, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was written so far; the line goes with the last look."""
    limits = Limits(1.0, duration=3600.0)
    left = TimeLeft(line, limits)
    assert limits.waiting is not None
    assert 0 < limits.waiting(0.7) <= 1
    (text,) = shown(capsys)
    assert text.endswith(" s left")
    assert 3500 < int(text.split()[0]) <= 3600
    left.add(tick(256))  # type: ignore[arg-type]
    limits.waiting(0.7)
    (text,) = shown(capsys)
    assert text.endswith(" s left; 1.0 MiB written so far")
    line.say("a message")
    assert shown(capsys) == [""]
    assert line.context.said == ["a message"]  # type: ignore[attr-defined]
    limits.waiting(0.7)
    left.add(tick(512, "duration"))  # type: ignore[arg-type]
    assert shown(capsys)[-1] == ""


def test_without_a_duration_the_next_look_is_counted_down(
    line: ProgressLine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is written twice, nor where no look is due."""
    limits = Limits(60.0)
    TimeLeft(line, limits)
    assert limits.waiting is not None
    assert limits.waiting(59.25) == 0.25
    assert limits.waiting(59.1) == pytest.approx(0.1)
    assert shown(capsys) == ["next look in 60 s"]
    assert limits.waiting(math.inf) == math.inf


def test_nothing_is_written_where_stderr_is_no_terminal(
    line: ProgressLine, capsys: pytest.CaptureFixture[str]
) -> None:
    """The wait is not divided either."""
    line.context.shows_progress = False  # type: ignore[misc]
    limits = Limits(1.0)
    TimeLeft(line, limits)
    assert limits.waiting is None
    line.write("text")
    line.clear()
    assert shown(capsys) == []
