"""Units of memory: counting pages in them, and when two units count as the same."""

from array import array

from pagescan.model.memory import Mapping
from pagescan.native import Columns
from pagescan.tracking.sample_units import apart, count_pages, holes, within

PAGE = 4096


def pieces(*bounds: tuple[int, int]) -> list[Mapping]:
    """Return mappings, or pieces of mappings, given their pages."""
    return [
        Mapping(low * PAGE, high * PAGE, "rw-p", 0, (0, 0), 0, "")
        for low, high in bounds
    ]


def test_pages_are_counted_where_they_lie() -> None:
    units = pieces((512, 1024), (1024, 1536), (4096, 4608))
    regions = ((512, 513), (1000, 1030), (4600, 4608))
    found = Columns(
        array("Q", (low * PAGE for low, _ in regions)),
        array("Q", (high * PAGE for _, high in regions)),
        array("Q", (0, 0, 0)),
    )
    assert count_pages(found, units, page_size=PAGE) == [1 + 24, 6, 8]


def test_what_is_unmapped_is_no_unit_any_more() -> None:
    units = pieces((0, 512), (512, 600), (1024, 1536))
    assert within(units, pieces((0, 512), (1024, 4096))) == [units[0], units[2]]
    assert within(units, pieces((0, 550))) == units[:1]
    assert within(units, []) == []


def test_a_unit_that_grew_is_the_same() -> None:
    """A unit that has grown is the same: the stack downwards, the heap upwards."""
    before = pieces((100, 512), (512, 700))
    after = pieces((90, 512), (512, 800), (1024, 1030))
    assert apart(after, before) == after[2:]
    assert apart(before, after) == []
    assert apart(before, []) == before


def test_holes_are_what_no_unit_is_in() -> None:
    mappings = pieces((0, 1024), (2000, 3000), (4096, 4608))
    units = pieces((0, 512), (2048, 2560), (4096, 4608))
    assert holes(mappings, units) == pieces((512, 1024), (2000, 2048), (2560, 3000))
    assert holes(mappings, []) == mappings
