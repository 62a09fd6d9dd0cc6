"""The text of a batch's regions, made from its columns: no object a region.

All that a line says, its addresses excepted, depends on the length, the categories and
the mapping. So a line is made once for each such combination, as a template, and the
addresses of a thousand lines are filled in at once. Measured for a million regions to
JSON: 0.33 s; an f-string a region 0.91 s, orjson 3.13 with a dict a region 0.75 s, json
2.34 s.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from pagescan.model import Category, Region
from pagescan.native import Progress
from pagescan.regions import Batch

START, END = "start", "end"
ADDRESS = "%#x"
"""The place of an address in a template."""

PLACES = (START, END)
"""The columns that are addresses, and differ from line to line."""

_ROWS = 250
_KEPT = 10_000  # templates: as many may be different as there are lines

Key = tuple[int, int, int]
"""Length in bytes, categories, owner."""


def chunks(
    batch: Batch,
    make: Callable[[Key], str],
    addresses: tuple[str, ...] = PLACES,
    *,
    by_page: bool = False,
    between: str = "",
    progress: Progress | None = None,
) -> Iterator[str]:
    """Yield the text of many lines at a time; the first are there at once.

    Args:
        batch: The regions.
        make: Returns the template of a line: a % of its own is doubled in it.
        addresses: Which address stands in each place that the templates have.
        by_page: A line a page.
        between: Stands between two lines, and is left out between two chunks.
        progress: Is told of the lines of each chunk when the next one is asked for.
    """
    templates = _Templates(make)
    for starts, ends, keys in _by_page(batch) if by_page else _by_region(batch):
        columns = {START: starts, END: ends}
        values = zip(*(columns[which] for which in addresses), strict=True)
        filled = tuple(chain.from_iterable(values))
        yield between.join([templates[key] for key in keys]) % filled
        if progress is not None:
            progress.advance(len(starts))


class _Templates(dict[Key, str]):
    """Templates by their keys, made when they are missing."""

    def __init__(self, make: Callable[[Key], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: Key) -> str:
        made = self._make(key)
        if len(self) < _KEPT:
            self[key] = made
        return made


_Rows = tuple[Sequence[int], Sequence[int], Iterable[Key]]


def _by_region(batch: Batch) -> Iterator[_Rows]:
    for at in range(0, len(batch), _ROWS):
        part = slice(at, at + _ROWS)
        starts, ends = batch.starts[part], batch.ends[part]
        lengths = map(int.__sub__, ends, starts)
        keys = zip(lengths, batch.categories[part], batch.owners[part], strict=True)
        yield starts, ends, keys


def _by_page(batch: Batch) -> Iterator[_Rows]:
    size = batch.page_size
    pages = (
        (page, (size, bits, owner))
        for start, end, bits, owner in zip(
            batch.starts, batch.ends, batch.categories, batch.owners, strict=True
        )
        for page in range(start, end, size)
    )
    while rows := list(islice(pages, _ROWS)):
        starts, keys = zip(*rows, strict=True)
        yield starts, [start + size for start in starts], keys


def region_of(batch: Batch, key: Key) -> Region:
    """Return a region with all that a key says; its addresses are not true."""
    length, bits, owner = key
    mapping = batch.mappings[owner] if owner >= 0 else None
    pages = length // batch.page_size
    return Region(0, length, pages, Category(bits), mapping, owner in batch.new)
