"""Text made from columns equals text made from objects, in every format."""

import csv
import io
import itertools
import json
import random
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from pagescan.model.batch import Batch
from pagescan.model.memory import Category, Mapping, Region
from pagescan.model.results import Output, Report, Summary
from pagescan.model.units import exactly
from pagescan.render import batch_text, write_result
from pagescan.render.cells import elide_middle
from pagescan.render.columns import REGION_COLUMNS, Value, region_value, show

PAGE = 4096
NAMES = ["", "[heap]", "/a%d,b", 'say "100 %"', "%#-18x", "/tmp/\x1b[31m", "/é\udcff"]
ORDERS = [
    None,
    "mapping,end,start",
    "pages",
    "start,categories,end",
    "end",
    "start,start,mapping,bytes,new,perms",
    "mapping",
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
    report = Report("scan", datetime.now(UTC), None, Summary(0, 0, 0, {}))
    write_result(report, batch, output, stream)
    return stream.getvalue()


def rows(batch: Batch, columns: str | None, by: str) -> list[list[Value]]:
    """Return the values, computed from the objects."""
    keys = (columns or "start,end,pages,written,file,present,swapped,mapping").split(
        ","
    )
    regions = batch.pages() if by == "page" else batch.regions()
    return [[region_value(region, key) for key in keys] for region in regions]


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
        return "" if value is None else exactly(str(value), "utf-8")

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
            width = max(column.width, len(column.header))
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
    made: list[Region] = []
    values = rows(batch, columns, "region")
    counting = CountingBatch(*(getattr(batch, name) for name in batch.__slots__))
    monkeypatch.setattr(CountingBatch, "made", made)
    found = text_of(counting, Output(format="table", columns=columns, color=False))
    assert len(made) <= 501
    keys = (columns or "start,end,pages,written,file,present,swapped,mapping").split(
        ","
    )
    chosen = [REGION_COLUMNS[key] for key in keys]
    texts = [
        [
            show(value, column, exact=False)
            for value, column in zip(row, chosen, strict=True)
        ]
        for row in values
    ]
    heads = [column.header for column in chosen]
    widths = [max(map(len, cells)) for cells in zip(heads, *texts[:500], strict=True)]
    room = max(8, int(window) - sum(widths[:-1]) - 2 * (len(chosen) - 1))
    for line, row in zip(found.splitlines()[1:], texts, strict=True):
        padded = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, column, width in zip(row, chosen, widths, strict=True)
        ]
        if chosen[-1].unit == "text":
            padded[-1] = elide_middle(row[-1], room)
        assert line == "  ".join(padded).rstrip()


class CountingBatch(Batch):
    """A batch that counts the objects that it makes."""

    made: ClassVar[list[Region]] = []

    def regions(self) -> Iterator[Region]:
        """Yield the regions as usual."""
        for region in super().regions():
            self.made.append(region)
            yield region


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
            "perms": mapping.perms if mapping else None,
            "new": region.new,
        }

    line = {"line": "region"} if form == "jsonl" else {}
    assert found == [{**line, **keys(region)} for region in batch.regions()]


def test_the_first_lines_wait_for_no_other() -> None:
    """Reading ten lines costs the work for a thousand lines, not for all."""
    made = []

    def template(key: batch_text.Key) -> str:
        made.append(key)
        return "%#x %#x\n"

    batch = some_batch(5000)
    first = next(batch_text.chunks(batch, template))
    assert first.count("\n") == len(made) == 1000 or len(made) < 1000
    assert first.startswith(f"{batch.starts[0]:#x} {batch.ends[0]:#x}\n")


def test_templates_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all lines differ, memory does not grow with their number."""
    monkeypatch.setattr(batch_text, "_KEPT", 7)
    templates = batch_text._Templates(str)
    keys = list(itertools.product(range(20), [1], [1]))
    assert [templates[key] for key in keys] == [str(key) for key in keys]
    assert len(templates) == 7
