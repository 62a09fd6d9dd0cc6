"""Progress bars: none for quick work, one line for slow work, erased at the end."""

import io
import os
import tty

import pytest

from pagescan.render.progress import Bar, WritingBar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list of times; the clock shows the last one."""
    said = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: said[-1])
    return said


def test_quick_work_shows_nothing(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar.begin(1 << 30)
    clock.append(100.49)
    bar.advance(1 << 29)
    bar.begin(0)
    assert stream.getvalue() == ""


def test_long_work_shows_its_share_and_takes_it_away(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Bar(stream)
    bar.begin(4 << 30)
    clock.append(100.6)
    bar.advance(1 << 30)
    assert stream.getvalue().endswith("▏  25% of 4.0 GiB")
    bar.advance(9 << 30)
    assert stream.getvalue().endswith(f"▕{'█' * 30}▏ 100% of 4.0 GiB")
    assert "\n" not in stream.getvalue()
    bar.begin(0)
    assert stream.getvalue().endswith("\r\x1b[K")


def test_each_result_is_timed_anew(clock: list[float]) -> None:
    """Each result of `watch` is timed on its own."""
    stream = io.StringIO()
    bar = WritingBar("regions", stream)
    for begun in (100.0, 100.4, 100.8):
        clock.append(begun)
        bar.begin(1_000_000)
        clock.append(begun + 0.3)
        bar.advance(500_000)
        bar.begin(0)
    assert stream.getvalue() == ""
    bar.begin(1_000_000)
    clock.append(102.0)
    bar.advance(250_000)
    line = f"\r\x1b[Kwriting ▕{'█' * 8}{'·' * 22}▏  25% of 1,000,000 regions"
    assert stream.getvalue() == line
    bar.begin(0)
    assert stream.getvalue() == f"{line}\r\x1b[K"


@pytest.mark.parametrize("pager", [False, True])
def test_a_pager_has_the_screen_for_itself(clock: list[float], pager: bool) -> None:
    """`pagescan scan PID | less`: the bar neither draws nor erases on the pager."""
    screen, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stream:
        if pager:
            tty.setcbreak(terminal)
        bar = WritingBar("pages", stream)
        bar.begin(10)
        clock.append(102.0)
        bar.advance(5)
        bar.begin(0)
        os.set_blocking(screen, False)
        try:
            shown = os.read(screen, 1000)
        except BlockingIOError:
            shown = b""
    os.close(screen)
    assert (b"writing" in shown) is not pager
