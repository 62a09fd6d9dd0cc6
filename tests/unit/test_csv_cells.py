"""Names in CSV: no cell that the target has named is a formula to a spreadsheet."""

import csv
import io

import pytest

from pagescan.render.csv_rows import shown_on


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("=cmd|1", "\\x3dcmd|1"),
        ("+1+cmd", "\\x2b1+cmd"),
        ("-2+3", "\\x2d2+3"),
        ("@SUM(A1)", "\\x40SUM(A1)"),
        ("\t=1", "\\x09=1"),
        ("\r=1", "\\x0d=1"),
        ("=", "\\x3d"),
        # These are no formulas.
        ("", ""),
        ("-", "-"),
        ("-4096", "-4096"),
        ("+1.5", "+1.5"),
        ("-1.0 MiB", "-1.0 MiB"),
        ("-1.5 %", "-1.5 %"),
        ("a=b", "a=b"),
        ("[heap]", "[heap]"),
        ("/usr/bin/x", "/usr/bin/x"),
        ("a,b", "a,b"),
    ],
)
def test_no_formula(name: str, cell: str) -> None:
    """A name that begins as a formula is escaped, a number is not."""
    stream = io.StringIO()
    csv.writer(stream).writerow([shown_on(stream)(name), "behind"])
    assert next(csv.reader(io.StringIO(stream.getvalue(), newline=""))) == [
        cell,
        "behind",
    ]
