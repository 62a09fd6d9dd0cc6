"""The tables of a recording's views on a terminal."""

from types import SimpleNamespace

import pytest

from pagescan.model.results import Output
from pagescan.render.report_tables import write_table
from pagescan.render.report_text import put_fact


def row(start: int, mapping: str, label: str | None = None) -> SimpleNamespace:
    """Return a row of the view of mappings."""
    return SimpleNamespace(
        written=4096,
        share=0.5,
        peak=4096.0,
        looks=1,
        bytes=4096,
        growth=0,
        start=start,
        label=label,
        mapping=mapping,
    )


@pytest.mark.parametrize(
    ("labels", "alike"),
    [((None, None), True), (("[java heap]", None), False), (("[a]", "[a]"), True)],
)
def test_rows_that_look_alike_have_an_address(
    labels: tuple[str | None, str | None],
    alike: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two mappings of one name differ by their start; otherwise the line is short."""
    rows = [row(0x1000, "[anon]", labels[0]), row(0x2000, "[anon]", labels[1])]
    write_table("mappings", rows, Output(format="table"))
    shown = capsys.readouterr().out
    assert ("0x1000" in shown and "0x2000" in shown) == alike
    assert ("start" in shown.splitlines()[0]) == alike


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_fits_the_window(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are cut, and then columns left out; a wide window has all of them."""
    monkeypatch.setenv("COLUMNS", str(width))
    long = SimpleNamespace(
        **vars(row(0x7FFF_0000_0000, "")),
        resident=1 << 30,
        begun_ns=1_700_000_000_000_000_000,
        seconds=3600.0,
        end="interrupted",
        pid=4_194_303,
        name="/usr/lib/postgresql/15/bin/postgres: checkpointer",
    )
    write_table("processes", [long], Output(format="table"))
    head, line = capsys.readouterr().out.splitlines()
    assert max(len(head), len(line)) <= width
    assert {"written", "share", "pid", "process"} <= {*head.split()}
    assert ("end" in head) == (width == 200)
    assert "pointer" in line


def test_a_long_fact_breaks_at_blanks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal would break it in a figure; a pipe gets one line."""
    monkeypatch.setenv("COLUMNS", "40")
    text = "10 % of their processor time, longest wait 148 µs, 5712 samples"
    put_fact("cost", text, Output(format="table"))
    assert capsys.readouterr().out.splitlines() == [
        "cost      10 % of their processor time,",
        "          longest wait 148 µs,",
        "          5712 samples",
    ]
    put_fact("cost", text, Output(format="plain"))
    assert capsys.readouterr().out == f"cost      {text}\n"
