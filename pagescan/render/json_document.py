"""Writes one JSON document: the keys of the report, and one line per region."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO, cast

from pagescan.model.batch import Batch
from pagescan.model.report import Report
from pagescan.model.results import MappingCounts, Output
from pagescan.render.columns import (
    MAPPING_COLUMNS,
    MAPS_COLUMNS,
    PLAN_KEYS,
    REGION_COLUMNS,
    WATCHED_MAPPING_COLUMNS,
    Column,
    RegionRow,
    facts_of_mapping,
    json_value,
)
from pagescan.render.document import (
    any_untracked_keys,
    cost_keys,
    document,
    estimate_keys,
    group_keys,
    process_keys,
    session_keys,
    share_key,
    summary_keys,
    target_keys,
    untracked_keys,
)
from pagescan.render.line_template import (
    END,
    START,
    Key,
    LineTemplate,
    batch_lines,
    plain,
)

if TYPE_CHECKING:
    from pagescan.render.group_rows import GroupRows
    from pagescan.render.rows import Rows


def write(report: Report, rows: "Rows", output: Output, stream: TextIO) -> None:
    """Write one document: in watch as one line, elsewhere one line per region."""
    one_line = report.tick is not None
    between = ", " if one_line else ",\n    "
    head = json.dumps(header_keys(report))
    key, texts = row_texts(report, rows, output, Surround(between=between))
    first = next(texts, None)
    stream.write(head[:-1] + ("," if one_line else ",\n "))
    stream.write(f' "{key}": ')
    if first is None:
        stream.write("[]")
    else:
        stream.write(("[" if one_line else "[\n    ") + first)
        stream.writelines(between + text for text in texts)
        stream.write("]" if one_line else "\n  ]")
    tail = json.dumps(trailer_keys(report))
    stream.write(", " + tail[1:] + "\n")


def header_keys(report: Report) -> dict[str, Any]:
    """Return the keys before the rows."""
    keys = document(
        report.kind,
        time=report.time,
        target=target_keys(report.target),
        group=group_keys(report.group),
        session=session_keys(report.session),
        summary=summary_keys(report.summary),
    )
    if report.group is not None:
        keys["processes"] = [process_keys(process) for process in report.processes]
        keys["gone"] = report.gone
        keys["short_lived"] = report.short_lived
    if report.tick is not None:
        totals = report.totals
        keys["tick"] = report.tick
        keys["interval_ns"] = report.interval_ns
        keys["end"] = report.end
        keys["totals"] = (
            {
                **summary_keys(totals),
                "estimated": report.estimated,
                "target_share": share_key(report.total_share),
                "target_ns": report.total_ns,
            }
            if totals is not None
            else None
        )
        keys["memory"] = report.memory._asdict() if report.memory else None
        keys["unseen_ns"] = report.unseen_ns
        keys["estimated"] = estimate_keys(report.estimate)
    if report.plan is not None:
        keys["epoch"] = report.plan.epoch
        keys["parent"] = report.plan.parent
        keys["plan"] = dict(report.plan.pages)
        keys["left_out"] = [untracked_keys(item) for item in report.plan.left_out]
    return keys


def trailer_keys(report: Report) -> dict[str, Any]:
    """Return the keys behind the rows."""
    return {
        "untracked": [any_untracked_keys(item) for item in report.untracked],
        "cost": cost_keys(report.cost),
    }


class Surround(NamedTuple):
    """The texts around the objects of the rows.

    Attributes:
        before: The text in front of the first key of each object.
        behind: The text behind each object.
        between: The text between two objects; the caller adds it between two chunks.
    """

    before: str = ""
    behind: str = ""
    between: str = ""


def row_texts(
    report: Report, rows: "Rows | GroupRows", output: Output, frame: Surround
) -> tuple[str, Iterator[str]]:
    """Return the key of the rows, and the text of their objects in chunks."""
    if report.group is not None and report.target is None:
        return _group_texts(report, cast("GroupRows", rows), output, frame)
    rows = cast("Rows", rows)
    if isinstance(rows, Batch):
        columns = list(REGION_COLUMNS.values())
        objects = _RegionObjects(rows, PLAN_KEYS if report.plan else columns, frame)
        return "regions", batch_lines(rows, objects.template, output, frame.between)
    of_maps = report.kind == "maps"
    known = _OF_KIND.get(report.kind, MAPPING_COLUMNS)
    texts = _mapping_texts(rows, known, frame)
    return "mappings" if of_maps or output.by == "mapping" else "regions", texts


_OF_KIND = {"maps": MAPS_COLUMNS, "watch": WATCHED_MAPPING_COLUMNS}
"""The columns of mappings, where a kind of document has more than the others."""


def _group_texts(
    report: Report, group: "GroupRows", output: Output, frame: Surround
) -> tuple[str, Iterator[str]]:
    """Return the texts of the rows of all processes: each object begins with a pid."""

    def texts() -> Iterator[str]:
        for process, rows in group.parts:
            before = f'{frame.before}"pid": {process.target.pid}, '
            of_one = replace(report, target=process.target)
            inner = frame._replace(before=before)
            yield from row_texts(of_one, rows, output, inner)[1]

    of_maps = report.kind == "maps" or output.by == "mapping"
    return "mappings" if of_maps else "regions", texts()


_BY_LENGTH = ("start", "end", "pages", "bytes")
"""The first columns of regions: the values of the others do not depend on a length."""


class _RegionObjects:
    """The objects of a batch's regions; the ends of objects are cached."""

    def __init__(
        self, batch: Batch, columns: Sequence[Column[RegionRow]], frame: Surround
    ) -> None:
        self._batch = batch
        self._columns = [
            column for column in columns if column.json and column.key not in _BY_LENGTH
        ]
        self._frame = frame
        self._page_size = batch.page_size
        self._ends: dict[tuple[int, int], str] = {}
        self._head = LineTemplate.of(
            (f'{{{frame.before}"start": "', START, '", "end": "', END, '", "pages": ')
        )

    def template(self, key: Key) -> LineTemplate:
        """Return the object of a region, with slots for its addresses."""
        length, bits, owner = key
        end = self._ends.get((bits, owner))
        if end is None:
            end = self._ends[bits, owner] = plain(self._end(bits, owner))
        head = self._head
        text = f'{head.text}{length // self._page_size}, "bytes": {length}{end}'
        return LineTemplate(text, head.slots)

    def _end(self, bits: int, owner: int) -> str:
        batch = self._batch
        of_mapping = facts_of_mapping(batch, owner)
        row = RegionRow(0, 0, 0, bits, *of_mapping)
        keys = {
            column.json: json_value(column.value(row), column)
            for column in self._columns
        }
        return f", {json.dumps(keys)[1:]}{self._frame.behind}"


def _mapping_texts(
    rows: Sequence[MappingCounts],
    known: Mapping[str, Column[MappingCounts]],
    frame: Surround,
) -> Iterator[str]:
    columns = [column for column in known.values() if column.json]
    for row in rows:
        keys: dict[str, Any] = {}
        for column in columns:
            outer, _, inner = column.json.partition(".")
            value = json_value(column.value(row), column)
            if inner:
                keys.setdefault(outer, {})[inner] = value
            else:
                keys[outer] = value
        yield f"{{{frame.before}{json.dumps(keys)[1:]}{frame.behind}"
