"""The tables of a recording's views on a terminal."""

from types import SimpleNamespace

import pytest

from pagescan.model.results import Output
from pagescan.model.units import format_duration
from pagescan.render.report_tables import write_table
from pagescan.render.report_text import put_fact, write_heatmap


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


@pytest.mark.parametrize(("width", "size"), [(80, False), (100, True)])
def test_ages_fit_a_window_of_80_cells(
    *,
    width: int,
    size: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ages = {"once": 1023 << 20, "sometimes": 1023 << 20, "always": 1023 << 20}
    place = row(0x7FFF_0000_0000, "/usr/lib/x86_64-linux-gnu/libc.so.6")
    both = [SimpleNamespace(**vars(place), **ages) for _ in range(2)]
    write_table("ages", both, Output(format="table"))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert ("  size" in lines[0]) == size
    assert "0x7fff00000000" in lines[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "200 ms"),
        (99.9, "99.9 s"),
        (601, "10 min"),
        (12_000, "3 h 20 min"),
        (27_570_176, "319 days"),
    ],
)
def test_a_duration_has_a_unit_that_fits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_the_legend_of_a_heat_map_names_all_signs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for shares in ([0.5, 0.0], [0.5, None]):
        piece = SimpleNamespace(
            **vars(row(0x1000, "[heap]")), end=0x2000, shares=shares
        )
        write_heatmap([piece], [0, 10**9], Output(format="table"))
        assert ("· no look" in capsys.readouterr().out) == (None in shares)
