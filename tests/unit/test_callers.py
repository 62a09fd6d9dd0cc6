"""Which frames of a chain count as callers."""

import pytest

from pagescan.attribution.callers import trusted
from pagescan.attribution.symbols import Name

STORE, FILL, MAIN, START = 0x1000, 0x2000, 0x3000, 0x4000
FUNCTIONS = {STORE: "store", FILL: "fill", MAIN: "main", START: "start"}


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ({}, []),  # no call stands before the return address
        ({FILL: STORE, MAIN: FILL, START: 0}, ["fill", "main", "start"]),
        ({FILL: STORE}, ["fill"]),  # the second one is in doubt
        ({FILL: 0, MAIN: FILL}, []),  # an indirect call proves no caller of a leaf
        ({FILL: START, MAIN: FILL}, ["start", "fill", "main"]),  # a hidden caller
    ],
)
def test_callers_end_at_the_first_in_doubt(
    calls: dict[int, int], expected: list[str]
) -> None:
    names = {
        place: Name(function, "program", 0)
        for address, function in FUNCTIONS.items()
        for place in (address, address - 1)
    }
    assert [*trusted([STORE, FILL, MAIN, START], names, calls)] == expected
