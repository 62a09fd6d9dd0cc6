"""JSON, a line an object: a header, the regions, and a summary that ends the stream.

A reader without the summary knows that its stream was cut.
"""

import json
from typing import TextIO

from pagescan.model import Output, Report
from pagescan.render import Rows
from pagescan.render.json_document import (
    chunks,
    header_keys,
    row_lines,
    trailer_keys,
)

_IN_SUMMARY = ("summary", "end", "totals", "estimated")


def write(report: Report, rows: Rows, output: Output, stream: TextIO) -> None:
    """Write the lines of one result."""
    keys = header_keys(report)
    summary = {key: keys.pop(key) for key in _IN_SUMMARY if key in keys}
    stream.write(json.dumps({"line": "header", **keys}) + "\n")
    stream.flush()
    key, lines = row_lines(report, rows, output)
    kind = "mapping" if key == "mappings" else "region"
    begin = f'{{"line": "{kind}", '
    stream.writelines(
        "".join(f"{begin}{line[1:]}\n" for line in chunk) for chunk in chunks(lines)
    )
    last = {"line": "summary", **summary, **trailer_keys(report)}
    stream.write(json.dumps(last) + "\n")
