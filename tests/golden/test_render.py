"""Compares the output for fixed records with files; --accept rewrites the files."""

import io
from array import array
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import NO_CATEGORY, Category, Mapping, Untracked
from pagescan.model.report import Report
from pagescan.model.results import (
    Action,
    Cost,
    MappingCounts,
    Output,
    PlanFacts,
    SessionFacts,
    Summary,
    TargetFacts,
)
from pagescan.native import Columns
from pagescan.render import write_result
from pagescan.render.columns import REGION_COLUMNS
from tests.conftest import checked

EXPECTED = Path(__file__).parent / "expected"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
HEAP = Mapping(0x1000_0000, 0x1100_0000, "rw-p", 0, (0, 0), 0, "[heap]")
LIBRARY = Mapping(
    0x7F00_0000_0000,
    0x7F00_0010_0000,
    "r--p",
    4096,
    (8, 1),
    77,
    "/usr/lib/a b\\012c.so",
)
ANONYMOUS = Mapping(0x7F80_0000_0000, 0x7F80_0100_0000, "rw-p", 0, (0, 0), 0, "")
WRITTEN = Category.WRITTEN | Category.PRESENT


@pytest.fixture
def batch() -> Batch:
    """Return four regions in three mappings; the last mapping is new."""
    return Batch(
        array("Q", [0x1000_0000, 0x1000_4000, 0x7F00_0000_0000, 0x7F80_0000_0000]),
        array("Q", [0x1000_3000, 0x1000_5000, 0x7F00_0001_0000, 0x7F80_0080_0000]),
        array("Q", [WRITTEN, 2 | 16, 4 | 8, WRITTEN]),
        array("q", [0, 0, 1, 2]),
        (HEAP, LIBRARY, ANONYMOUS),
        4096,
        new=frozenset({2}),
    )


@pytest.fixture
def report(batch: Batch) -> Report:
    """Return a report for that batch."""
    return Report(
        "diff",
        MOMENT,
        TargetFacts(4242, "redis-server", "/usr/bin/redis-server", 123456, 4096),
        batch.summary(),
        session=SessionFacts("4242", MOMENT, MOMENT),
        untracked=(Untracked(0x7FFF_0000, 0x7FFF_4000, "[vvar]", "it may not be"),),
        cost=Cost(0, 2_100_000, 180_000, 4, 587_642),
    )


FORMS = {
    "plain.txt": Output(),
    "plain-columns.txt": Output(columns="+perms,new", exact=True),
    "plain-by-mapping.txt": Output(by="mapping"),
    "table.txt": Output(format="table", color=False),
    "table-bytes.txt": Output(
        format="table", color=False, columns="start,bytes,mapping"
    ),
    "rows.csv": Output(format="csv"),
    "every-column.csv": Output(format="csv", columns=",".join(REGION_COLUMNS)),
    "bare.csv": Output(format="csv", header=False, columns="pages,new,mapping"),
    "document.json": Output(format="json"),
    "by-mapping.json": Output(format="json", by="mapping"),
    "lines.jsonl": Output(format="jsonl"),
}


@pytest.mark.parametrize("name", FORMS)
def test_rendering(
    name: str,
    batch: Batch,
    report: Report,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each format of a result has exactly the expected text, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    write_result(report, batch, FORMS[name], stream)
    text = stream.getvalue()
    expected = EXPECTED / name
    if request.config.getoption("--accept"):
        expected.write_text(text)
    assert text == expected.read_text(), "--accept stores the new text, if it is right"
    if name.endswith(".json"):
        checked(text)
    if name.endswith(".jsonl"):
        assert [checked(line)["line"] for line in text.splitlines()][-1] == "summary"


def test_maps(
    report: Report, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Unknown counts are a dash, and null in JSON."""
    monkeypatch.setenv("COLUMNS", "80")
    counts = dict.fromkeys(
        ("present", "file", "swapped", "pfnzero", "huge", "guard"), 3
    )
    row = MappingCounts(HEAP, 4096, 4096 * 4096, {**counts, "written": None})
    maps = Report("maps", MOMENT, report.target, Summary(1, 4096, 4096 * 4096, {}))
    stream = io.StringIO()
    for output in (Output(), Output(format="csv"), Output(format="json")):
        write_result(maps, [row], output, stream)
    expected = EXPECTED / "maps.txt"
    if request.config.getoption("--accept"):
        expected.write_text(stream.getvalue())
    assert stream.getvalue() == expected.read_text()


def test_growth_of_watched_mappings(
    report: Report,
    batch: Batch,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each mapping of a look has its growth; null where it was not counted."""
    monkeypatch.setenv("COLUMNS", "80")
    look = replace(report, kind="watch", tick=1, interval_ns=10**9)
    growths = (8192, -4096, None)
    rows = [
        replace(row, growth=growth)
        for row, growth in zip(batch.by_mapping(), growths, strict=True)
    ]
    stream = io.StringIO()
    write_result(look, rows, Output(format="json", by="mapping"), stream)
    keys = [row["growth"] for row in checked(stream.getvalue())["mappings"]]
    assert keys == [*growths]
    for form in ("plain", "csv"):
        output = Output(format=form, by="mapping", sort="-growth")
        write_result(look, rows, output, stream)
    expected = EXPECTED / "watched-mappings.txt"
    if request.config.getoption("--accept"):
        expected.write_text(stream.getvalue())
    assert stream.getvalue() == expected.read_text()


def test_page_rows_are_regions_of_one_page(batch: Batch, report: Report) -> None:
    """--by page has as many rows as the summary has pages."""
    stream = io.StringIO()
    write_result(report, batch, Output(format="json", by="page"), stream)
    document = checked(stream.getvalue())
    assert len(document["regions"]) == document["summary"]["pages"]
    assert {region["pages"] for region in document["regions"]} == {1}


def test_empty_result(report: Report, batch: Batch) -> None:
    """An empty result is an empty list, or a header alone."""
    for form, lines in (("json", None), ("plain", 1), ("csv", 1), ("table", 1)):
        stream = io.StringIO()
        write_result(report, Batch.empty(batch), Output(format=form), stream)
        if lines is None:
            assert checked(stream.getvalue())["regions"] == []
        else:
            assert len(stream.getvalue().splitlines()) == lines


@pytest.mark.parametrize("name", ["plan.json", "plan.jsonl", "plan.csv", "plan.txt"])
def test_plan(name: str, report: Report, request: pytest.FixtureRequest) -> None:
    """A plan has exactly the expected text, in each text format."""
    found = Columns(
        array("Q", [0x1000_0000, 0x1000_3000, 0x7F80_0000_0000]),
        array("Q", [0x1000_3000, 0x1000_5000, 0x7F80_0080_0000]),
        array("Q", [Action.DUMP, Action.ZERO, Action.KEEP]),
    )
    batch = Batch.join(
        found,
        MappingSet((HEAP, LIBRARY, ANONYMOUS)),
        page_size=4096,
        returned=NO_CATEGORY,
    )
    shared = Untracked(0x7FFF_0000, 0x7FFF_4000, "/dev/shm/a", "shared")
    of_plan = replace(
        report,
        kind="dump-plan",
        summary=batch.summary(),
        plan=PlanFacts(8, 7, {"dump": 3, "zero": 2, "keep": 2048}, (shared,)),
    )
    stream = io.StringIO()
    form = name.partition(".")[2].replace("txt", "plain")
    write_result(of_plan, batch, Output(format=form), stream)
    text = stream.getvalue()
    expected = EXPECTED / name
    if request.config.getoption("--accept"):
        expected.write_text(text)
    assert text == expected.read_text(), "--accept stores the new text, if it is right"
    if form == "json":
        checked(text)
    if form == "jsonl":
        assert [checked(line)["line"] for line in text.splitlines()][-1] == "summary"
