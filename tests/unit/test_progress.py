"""The bar: nothing for what is quick, one line for what is not, and none in the end."""

import io

import pytest

from pagescan.render.progress import Bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is: the last of this list."""
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
