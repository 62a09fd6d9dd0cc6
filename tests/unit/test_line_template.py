"""Text made from columns equals text made from objects, in every format."""

import csv
import io
import itertools
import json
import random
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pagescan.model.batch import Batch
from pagescan.model.memory import Category, Mapping, Region
from pagescan.model.report import Report
from pagescan.model.results import Output, Summary
from pagescan.model.units import exactly
from pagescan.render import line_template, rows as rendered, write_result
from pagescan.render.cells import fit_path
from pagescan.render.columns import (
    REGION_COLUMNS,
    RegionRow,
    Value,
    region_rows,
    show,
)
from pagescan.render.line_template import END, START, LineTemplate, Slot

PAGE = 4096
NAMES = ["", "[heap]", "/a%d,b", 'say "100 %"', "%#-18x", "/tmp/\x1b[31m", "/é\udcff"]
ORDERS = [
    None,
    "mapping,end,start",
    "pages",
    "start,categories,end",
    "end",
    "end,start,mapping,bytes,new,perms",
    "mapping",
    "end,categories",
]


def some_batch(count: int, seed: int = 3) -> Batch:
    """Make regions of mixed lengths, categories and owners, also unmapped owners."""
    rng = random.Random(seed)
    mappings = [
        Mapping(n << 40, (n + 1) << 40, "rw-p", 0, (0, 0), 0, name)
        for n, name in enumerate(NAMES)
    ]
    starts, ends, bits = array("Q"), array("Q"), array("Q")
    owners = array("q")
    at = 0
    for _ in range(count):
        at += rng.choice([0, 1, 9]) * PAGE
        starts.append(at)
        at += rng.choice([1, 1, 2, 700, rng.randrange(1, 1 << 30)]) * PAGE
        ends.append(at)
        bits.append(rng.randrange(512))
        owners.append(rng.randrange(-1, len(NAMES)))
    every = Category(511)
    return Batch(starts, ends, bits, owners, mappings, PAGE, frozenset({2}), every)


def text_of(batch: Batch, output: Output) -> str:
    """Return the printed text."""
    stream = io.StringIO()
    report = Report("scan", datetime.now(UTC), None, Summary.none())
    write_result(report, batch, output, stream)
    return stream.getvalue()


def rows(batch: Batch, columns: str | None, by: str) -> list[list[Value]]:
    """Return the values, computed from the objects."""
    keys = (columns or "start,end,pages,written,file,present,swapped,mapping").split(
        ","
    )
    regions = batch.pages() if by == "page" else batch.regions()
    return [[value_of(region, key) for key in keys] for region in regions]


def value_of(region: Region, key: str) -> Value:
    """Return the value of a column, computed from an object."""
    row = RegionRow(
        region.start,
        region.end,
        region.pages,
        int(region.categories),
        region.mapping,
        region.new,
    )
    return REGION_COLUMNS[key].value(row)


@pytest.mark.parametrize("by", ["region", "page"])
@pytest.mark.parametrize("columns", ORDERS)
def test_csv(columns: str | None, by: str) -> None:
    """Values read back from the text equal those of the objects."""
    batch = some_batch(2500 if by == "region" else 40)
    if by == "page":
        batch.ends = array("Q", (start + 3 * PAGE for start in batch.starts))
    text = text_of(batch, Output(format="csv", columns=columns, by=by))
    head, *found = csv.reader(io.StringIO(text))

    def plain(value: Value, key: str) -> str:
        if isinstance(value, bool):
            return "01"[value]
        if key in ("start", "end"):
            return hex(value)  # type: ignore[arg-type]
        if isinstance(value, tuple):
            return ",".join(value)
        if value is None:
            return "[gone]" if key == "mapping" else ""
        return exactly(str(value), "utf-8")

    assert found == [
        [plain(value, key) for value, key in zip(values, head, strict=True)]
        for values in rows(batch, columns, by)
    ]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("columns", ORDERS)
def test_plain(columns: str | None, exact: bool) -> None:
    """Each cell has the width of its column, and no blank ends a line."""
    batch = some_batch(2500)
    output = Output(columns=columns, exact=exact, header=False)
    lines = text_of(batch, output).splitlines()
    keys = (columns or "start,end,pages,written,file,present,swapped,mapping").split(
        ","
    )
    for line, values in zip(lines, rows(batch, columns, "region"), strict=True):
        cells = []
        for key, value in zip(keys, values, strict=True):
            column = REGION_COLUMNS[key]
            width = max(column.width, len(key))
            text = show(value, column, exact=exact)
            cells.append(text.rjust(width) if column.right else text.ljust(width))
        assert line == "  ".join(cells).rstrip()


@pytest.mark.parametrize("window", ["80", "300"])
@pytest.mark.parametrize("columns", ORDERS)
def test_table(
    columns: str | None, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns are as wide as the first rows, which alone are made into objects."""
    monkeypatch.setenv("COLUMNS", window)
    batch = some_batch(2500)
    made: list[RegionRow] = []
    values = rows(batch, columns, "region")

    def counted(batch: Batch, *, by_page: bool) -> Iterator[RegionRow]:
        for row in region_rows(batch, by_page=by_page):
            made.append(row)
            yield row

    monkeypatch.setattr(rendered, "region_rows", counted)
    found = text_of(batch, Output(format="table", columns=columns, color=False))
    assert 500 <= len(made) <= 501
    keys = (columns or "start,end,pages,written,file,present,swapped,mapping").split(
        ","
    )
    columns_of = [REGION_COLUMNS[key] for key in keys]
    texts = [
        [
            show(value, column, exact=False)
            for value, column in zip(row, columns_of, strict=True)
        ]
        for row in values
    ]
    heads = [column.key for column in columns_of]
    widths = [max(map(len, cells)) for cells in zip(heads, *texts[:500], strict=True)]
    room = max(8, int(window) - sum(widths[:-1]) - 2 * (len(columns_of) - 1))
    for line, row in zip(found.splitlines()[1:], texts, strict=True):
        padded = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, column, width in zip(row, columns_of, widths, strict=True)
        ]
        if columns_of[-1].unit in ("text", "names"):
            padded[-1] = fit_path(row[-1], room)
        assert line == "  ".join(padded).rstrip()


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json(form: str) -> None:
    """Regions read back from the text equal the objects."""
    batch = some_batch(2500)
    text = text_of(batch, Output(format=form))
    if form == "json":
        found = json.loads(text)["regions"]
    else:
        found = [json.loads(line) for line in text.splitlines()][1:-1]

    def keys(region: Region) -> dict[str, object]:
        mapping = region.mapping
        return {
            "start": hex(region.start),
            "end": hex(region.end),
            "pages": region.pages,
            "bytes": region.bytes,
            "categories": list(region.categories.names),
            "mapping": mapping.label if mapping else None,
            "label": None,
            "perms": mapping.perms if mapping else None,
            "new": region.new,
        }

    line = {"line": "region"} if form == "jsonl" else {}
    assert found == [{**line, **keys(region)} for region in batch.regions()]


def test_the_first_lines_wait_for_no_other() -> None:
    """Reading ten lines costs the work for a thousand lines, not for all."""
    made = []

    def template(key: line_template.Key) -> LineTemplate:
        made.append(key)
        return LineTemplate.of([START, " ", END, "\n"])

    batch = some_batch(5000)
    first = next(line_template.batch_lines(batch, template, Output()))
    assert first.count("\n") == len(made) == 1000 or len(made) < 1000
    assert first.startswith(f"{batch.starts[0]:#x} {batch.ends[0]:#x}\n")


def test_templates_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all lines differ, memory does not grow with their number."""
    monkeypatch.setattr(line_template, "_MOST_TEMPLATES", 7)
    templates = line_template._Templates(lambda key: LineTemplate.of([str(key)]))
    keys = list(itertools.product(range(20), [1], [1]))
    assert [templates[key] for key in keys] == [str(key) for key in keys]
    assert len(templates) == 7


def test_slots_are_filled_with_addresses() -> None:
    """A literal % stays one, and a slot is padded to its width."""
    line = LineTemplate.of([START, "-", Slot("end", 12), "100 %"])
    assert line.slots == ("start", "end")
    assert line.text % (0x1000, 0x2000) == "0x1000-0x2000      100 %"
