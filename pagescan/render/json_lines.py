"""Writes JSON Lines: a header, one object per region, and a summary at the end.

A reader that finds no summary knows that the stream was cut off.
"""

import json
from typing import TYPE_CHECKING, TextIO

from pagescan.model.batch import Batch
from pagescan.model.report import Report
from pagescan.model.results import Output
from pagescan.render.json_document import Surround, header_keys, row_texts, trailer_keys

if TYPE_CHECKING:
    from pagescan.render.rows import Rows

_IN_SUMMARY = (
    "summary",
    "processes",
    "gone",
    "short_lived",
    "interval_ns",
    "end",
    "totals",
    "memory",
    "unseen_ns",
    "estimated",
    "plan",
    "left_out",
)


def write(report: Report, rows: "Rows", output: Output, stream: TextIO) -> None:
    """Write the lines of one result."""
    keys = header_keys(report)
    summary = {key: keys.pop(key) for key in _IN_SUMMARY if key in keys}
    stream.write(json.dumps({"line": "header", **keys}) + "\n")
    stream.flush()
    of_regions = isinstance(rows, Batch) or output.by == "region"
    kind = "region" if of_regions and report.kind != "maps" else "mapping"
    look = {key: keys[key] for key in ("tick", "time") if report.tick is not None}
    before = json.dumps({"line": kind, **look})[1:-1]
    frame = Surround(before=f"{before}, ", behind="\n")
    stream.writelines(row_texts(report, rows, output, frame)[1])
    last = {"line": "summary", **look, **summary, **trailer_keys(report)}
    stream.write(json.dumps(last) + "\n")
