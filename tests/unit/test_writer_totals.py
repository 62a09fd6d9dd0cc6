"""The sums of writers: a mapping whose label comes late is one place."""

from array import array

from pagescan.attribution.writer_totals import MOST_UNLABELLED, Era, Place, Places
from pagescan.model.batch import Batch
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Category, Mapping
from pagescan.native import Columns, Writers

PAGE = 4096


def anonymous(first: int, pages: int, name: str = "") -> Mapping:
    """Return a mapping without a file; addresses are counted in pages."""
    return Mapping(first * PAGE, (first + pages) * PAGE, "rw-p", 0, (0, 0), 0, name)


STACK, OTHER = anonymous(100, 10), anonymous(200, 10)
FILE = Mapping(300 * PAGE, 310 * PAGE, "rw-p", 0, (8, 1), 7, "/usr/lib/libc.so.6")


def wrote(era: Era, labels: dict[int, str], *pages: int) -> None:
    """Add a look in which one thread wrote some pages."""
    columns = Columns(
        array("Q", (page * PAGE for page in pages)),
        array("Q", ((page + 1) * PAGE for page in pages)),
        array("Q", [Category.WRITTEN] * len(pages)),
    )
    batch = Batch.join(columns, MappingSet([STACK, OTHER, FILE]), page_size=PAGE)
    batch.labels = labels
    count = len(batch)
    ips, threads, origins = ([one] * count for one in (0x1000, 7, 0))
    values = (batch.starts, batch.ends, ips, threads, origins, range(count))
    joined = Writers([array("Q", column) for column in values], count, 0)
    era.add(batch, joined, runs=True)


def places_of(era: Era) -> dict[Place, int]:
    """Return the pages by place."""
    found: dict[Place, int] = {}
    for (_, _, place, _), pages in era.pages.items():
        found[era.places[place]] = found.get(era.places[place], 0) + pages
    return found


def test_a_label_that_comes_late_is_that_of_all_writes() -> None:
    """Also if the mapping is not written in the look that knows it."""
    era = Era(None)  # type: ignore[arg-type]
    wrote(era, {}, 100, 101, 200, 300)
    assert places_of(era) == {Place("[anon]"): 3, Place(FILE.name): 1}
    wrote(era, {STACK.start: "[stack of a 7]"}, 200)
    stack = Place("[anon]", "[stack of a 7]")
    assert places_of(era) == {stack: 2, Place("[anon]"): 2, Place(FILE.name): 1}
    wrote(era, {STACK.start: "[stack of a 7]"}, 100)
    wrote(era, {}, 100)
    assert places_of(era)[stack] == 4
    # The stack of a later thread in the same memory: its own writes only.
    wrote(era, {STACK.start: "[stack of b 8]"}, 100)
    assert places_of(era)[stack] == 4
    assert places_of(era)[Place("[anon]", "[stack of b 8]")] == 1


def test_another_mapping_at_the_same_address() -> None:
    """Its label is not that of what was written before."""
    places = Places()
    first = places.number_of(STACK, None)
    later = STACK._replace(name="/memfd:queue", inode=9)
    second = places.number_of(later, "[memfd queue]")
    assert (places[first], places[second]) == (
        Place("[anon]"),
        Place("/memfd:queue", "[memfd queue]"),
    )


def test_many_mappings_without_a_label_share_a_number() -> None:
    """So that a target with a hundred thousand mappings costs no memory for each."""
    places = Places()
    numbers = {places.number_of(anonymous(at * 20, 1), None) for at in range(9000)}
    assert len(numbers) == MOST_UNLABELLED + 1
