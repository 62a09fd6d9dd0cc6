"""Messages on a terminal break at blanks, and never in a figure."""

import re

import pytest
from hypothesis import given, strategies as st

from pagescan.model.cell_width import width_of
from pagescan.model.paragraph import lines_of

MESSAGE = (
    "pagescan: tracking costs the target about 652 ms of processor time per second,"
    " 65 % of its own: --budget 2 keeps that to 2 %, and a longer interval costs less;"
    " the error is ± 1.5 MiB"
)
FIGURES = ("652 ms", "65 %", "--budget 2", "2 %", "± 1.5 MiB")


@pytest.mark.parametrize("width", range(30, 200))
def test_no_figure_is_divided(width: int) -> None:
    """Whatever the width, a figure keeps its unit, its sign and its option."""
    lines = lines_of(MESSAGE, width)
    assert all(width_of(line) <= width for line in lines)
    assert " ".join(map(str.strip, lines)) == MESSAGE
    for figure in FIGURES:
        assert any(figure in line for line in lines)


@given(st.text("ab 1%-", max_size=300), st.integers(30, 100))
def test_nothing_is_lost(text: str, width: int) -> None:
    """The words and their order stay."""
    lines = lines_of(text, width)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)


def test_long_words() -> None:
    """A path that is wider than the window has a line of its own; short text stays."""
    path = "/a" * 40
    assert lines_of(f"cannot open {path}: no such file", 40) == [
        "cannot open",
        f"  {path}:",
        "  no such file",
    ]
    assert lines_of("a  b", 80) == ["a  b"]
    assert lines_of(MESSAGE, 20) == [MESSAGE]
