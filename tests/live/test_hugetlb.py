"""hugetlb: the huge page is the unit, and `written` is exact for it."""

from collections.abc import Callable, Iterator

import pytest

from tests import machine
from tests.conftest import Result, Target

pytestmark = pytest.mark.needs("tracking", "hugetlb")
Start = Callable[..., Target]
Run = Callable[..., Result]
HUGE = 512  # pages


@pytest.fixture(autouse=True, scope="module")
def reserved() -> Iterator[None]:
    """Reserved huge pages."""
    with machine.huge_pages(16):
        yield


def huge(*numbers: int) -> set[int]:
    """Return the small pages of some huge pages."""
    return {
        page for number in numbers for page in range(number * HUGE, (number + 1) * HUGE)
    }


@pytest.mark.parametrize("shared", ["", ",shared=1"])
@pytest.mark.parametrize("fill", ["", ",fill=1"])
def test_the_huge_page_is_the_unit(
    shared: str, fill: str, armed: Start, pagescan: Run
) -> None:
    made = armed(f"m=hugetlb,pages={4 * HUGE}{shared}{fill}")
    made.write("m", {5, 3 * HUGE + 7})
    made.tell("read m 600")
    for rearm in ((), ("--rearm",)):
        look = pagescan("diff", made.pid, "--json", *rearm).json()
        assert made.pages(look, "m") == huge(0, 3)
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()
    made.write("m", {HUGE})
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == huge(1)


def test_later_ones_are_new(armed: Start, pagescan: Run) -> None:
    made = armed("a=anon,pages=8")
    made.tell(f"map m=hugetlb,pages={2 * HUGE}")
    made.where("m")
    made.write("m", {HUGE + 1})
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == huge(1)
    assert made.pages(pagescan("diff", made.pid, "--json").json(), "m") == set()


def test_no_part_of_one_is_protected(armed: Start, pagescan: Run) -> None:
    """--wp --max-pages could end inside a huge page, so it is refused."""
    made = armed(f"m=hugetlb,pages={2 * HUGE},fill=1")
    low, high = made.ranges["m"]
    words = (f"{low}-{high}", "--require", "written", "--wp", "--max-pages", "7")
    result = pagescan("scan", made.pid, *words)
    assert result.code == 2
    assert "hugetlb" in result.stderr
