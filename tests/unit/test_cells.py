"""Names that do not fit: what of them is shown, in every width."""

import io

import pytest

from pagescan import render
from pagescan.model.memory import Mapping
from pagescan.model.report import Report
from pagescan.model.results import MappingCounts, Output, Summary
from pagescan.model.units import now
from pagescan.render.cells import fit_path, folded, width_of

PATH = "/usr/lib/x86_64-linux-gnu/libc.so.6"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, PATH),
        (35, PATH),
        (30, "…/x86_64-linux-gnu/libc.so.6"),
        (20, "…/libc.so.6"),
        (11, "…/libc.so.6"),
        (10, "libc.so.6"),
        (9, "libc.so.6"),
        (8, "li…so.6"),
    ],
)
def test_the_end_of_a_path_stays(width: int, shown: str) -> None:
    """As many of its last parts as fit; at last its basename is cut."""
    assert fit_path(PATH, width)[-4:] == shown[-4:]
    assert width < 9 or fit_path(PATH, width) == shown


@pytest.mark.parametrize(
    "name", [PATH, "/データベース/索引.idx", "[anon]", "/", "/a//b/"]
)
def test_it_always_fits(name: str) -> None:
    assert all(width_of(fit_path(name, width)) <= width for width in range(1, 60))


def table(
    *counts: dict[str, int | None],
    kind: str = "maps",
    labels: tuple[str, ...] = (),
    columns: str | None = None,
) -> list[str]:
    """Return the lines of a table of mappings with these counts."""
    rows = [
        MappingCounts(
            Mapping(at << 20, (at << 20) + 8192, "rw-p", 0, (0, 0), 0, "[heap]"),
            2,
            8192,
            {"present": 0, "written": None, **count},
            label=labels[at - 1] if labels else None,
        )
        for at, count in enumerate(counts, 1)
    ]
    stream = io.StringIO()
    report = Report(kind, now(), None, Summary.none())
    output = Output(format="table", color=False, columns=columns)
    render.write_result(report, rows, output, stream)
    return stream.getvalue().splitlines()


def test_columns_that_are_empty_throughout_are_left_out() -> None:
    """One value in one row is enough for its column to stay."""
    head, *_ = table({"swapped": 0}, {"swapped": 0})
    assert head.split() == ["start", "size", "mapping"]
    head, *_ = table({"swapped": 0}, {"swapped": 1})
    assert head.split() == ["start", "size", "swapped", "mapping"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_label_takes_the_place_of_the_name(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a window that has no room for both; columns that were asked for stay."""
    monkeypatch.setenv("COLUMNS", str(width))
    count: dict[str, int | None] = {"present": 3, "swapped": 3, "file": 3, "pfnzero": 3}
    labels = ("[malloc main arena]", "")
    head, first, second, _ = table(count, count, labels=labels)
    assert ("label" in head) == (width == 120)
    assert first.endswith("[heap]" if width == 120 else labels[0])
    assert second.endswith("[heap]")
    assert max(map(len, (head, first, second))) <= width
    head, *_ = table(count, labels=labels, columns="start,size,present,label,mapping")
    assert "label" in head


def test_maps_ends_with_the_sums() -> None:
    """Of the numbers; one mapping needs no sum."""
    assert table({"present": 1}, {"present": 2})[-1].split() == [
        *("2", "mappings", "16.0", "KiB", "3"),
    ]
    assert len(table({"present": 1})) == 2


def test_folded_text_breaks_at_its_marks() -> None:
    """A line is as full as it can be, and no part is divided."""
    text = "one; two; three; " + "x" * 20
    assert folded(text, 80) == [text]
    assert folded(text, 10) == ["one; two", "three", "x" * 20]
