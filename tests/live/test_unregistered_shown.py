"""`scan` and `maps` of a process with a session: memory that it tracks unregistered.

That is new memory since the last look, and the growing ends. `diff` tells which pages
of it were written, and `scan` and `maps` have to agree.
"""

from collections.abc import Callable
from typing import Any

import pytest

import pagescan as library
from tests.conftest import Result, Target

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]
NAMES = ("m", "heap", "block")


def grown(armed: Start, pagescan: Run) -> Target:
    """Arm a target, and make it grow twice, with a look in between."""
    made = armed("m=anon,pages=16,fill=1")
    for heap, block in (("h0", "b0"), ("heap", "block")):
        made.tell(f"brk 8 {heap}")
        made.tell(f"map {block}=anon,pages=8")
        made.where(heap)
        made.where(block)
        made.write(heap, {0, 6, 7})
        made.write(block, {0, 3})
        if heap == "h0":
            pagescan("diff", made.pid, "--json", "--rearm")
    return made


def by_diff(made: Target, pagescan: Run) -> list[set[int]]:
    """Return the pages of each range according to `diff`."""
    look = pagescan("diff", made.pid, "--json").json()
    return [made.pages(look, name) for name in NAMES]


def by_scan(made: Target, pagescan: Run, *words: object) -> list[set[int]]:
    """Return the pages of each range that a scan lists."""
    document = pagescan("scan", made.pid, "--json", *words).json()
    return [made.pages(document, name) for name in NAMES]


def counted(made: Target, rows: list[dict[str, Any]], name: str) -> int:
    """Return the written pages of the mappings in a range and beside it."""
    low, high = made.ranges[name]
    return sum(
        row["counts"]["written"] or 0
        for row in rows
        if int(row["start"], 16) < high and low < int(row["end"], 16)
    )


def test_scan_agrees_with_diff(armed: Start, pagescan: Run) -> None:
    """They agree before and after a rearming look, and after more stores."""
    made = grown(armed, pagescan)
    expected = [set(), {0, 6, 7}, {0, 3}]
    for stored in ((), (("heap", {7}), ("block", {0}), ("m", {2}))):
        for name, pages in stored:
            made.write(name, pages)
        if stored:
            expected = [{2}, {7}, {0}]
        assert by_diff(made, pagescan) == expected
        assert by_scan(made, pagescan, "--require", "written") == expected
        assert by_scan(made, pagescan, "--any", "written,guard") == expected
        pagescan("diff", made.pid, "--rearm")
        assert by_scan(made, pagescan, "--require", "written") == [set()] * 3


def test_categories_of_what_is_not_registered(armed: Start, pagescan: Run) -> None:
    """`written` can be required, excluded, returned and limited as for other pages."""
    made = grown(armed, pagescan)
    pagescan("diff", made.pid, "--rearm")
    made.write("heap", {7})
    low, high = made.ranges["heap"]
    words = ["scan", made.pid, f"{low}-{high}", "--json"]
    both = [*words, "--require", "written,present", "--return", "written,wpallowed"]
    (region,) = pagescan(*both).json()["regions"]
    assert int(region["end"], 16) == high
    assert region["categories"] == ["written"]
    (region,) = pagescan(*words, "--require", "written", "--return", "present").json()[
        "regions"
    ]
    assert region["categories"] == ["present"]
    others = pagescan(*words, "--require", "present", "--exclude", "written").json()
    assert made.pages(others, "heap") == {0, 6}
    made.write("heap", {0, 6})
    limited = pagescan(*words, "--require", "written", "--max-pages", 2).json()
    assert made.pages(limited, "heap") == {0, 6}
    assert limited["summary"]["pages"] == 2
    batch = library.scan(
        made.pid,
        [f"{low}-{high}"],
        library.Query(require=library.Category.WRITTEN),
    )
    assert batch.summary().pages == 3


def test_maps_agrees_with_diff(armed: Start, pagescan: Run) -> None:
    """The command and the function agree; a new mapping is counted, too."""
    made = grown(armed, pagescan)
    rows = pagescan("maps", made.pid, "--json").json()["mappings"]
    assert [counted(made, rows, name) for name in NAMES] == [0, 3, 2]
    pagescan("diff", made.pid, "--rearm")
    rows = pagescan("maps", made.pid, "--json").json()["mappings"]
    assert [counted(made, rows, name) for name in NAMES] == [0, 0, 0]
    edges = [row for row in rows if int(row["end"], 16) == made.ranges["heap"][1]]
    assert [row["counts"]["written"] for row in edges] == [0]
    made.write("heap", {6, 7})
    made.write("block", {0, 5})
    look = pagescan("diff", made.pid, "--json").json()
    document = pagescan("maps", made.pid, "--json").json()
    rows = document["mappings"]
    assert [counted(made, rows, name) for name in NAMES] == [0, 2, 2]
    assert (
        sum(row["counts"]["written"] or 0 for row in rows) == look["summary"]["pages"]
    )
    counts = [row.counts["written"] or 0 for row in library.maps(made.pid)]
    assert sum(counts) == look["summary"]["pages"]


def test_what_is_not_selected_has_no_written(target: Start, pagescan: Run) -> None:
    """A session of a RANGE tells nothing about other memory."""
    made = target("m=anon,pages=16,fill=1")
    low, high = made.ranges["m"]
    assert pagescan("arm", made.pid, f"{low}-{high}").code == 0
    made.tell("brk 8 heap")
    made.where("heap")
    made.write("heap", {0})
    rows = pagescan("maps", made.pid, "[heap]", "--json").json()["mappings"]
    assert {row["counts"]["written"] for row in rows} == {None}
    words = ["scan", made.pid, "[heap]", "--require", "written", "--json"]
    assert not pagescan(*words).json()["regions"]
    assert pagescan("disarm", made.pid).code == 0
