"""Makes the text of a batch's regions from its columns, without one object per region.

Except for its addresses, a line depends only on the length, the categories and the
mapping of its region. So each such combination is made into a template once, and the
addresses of many lines are filled in at once. Measured for a million regions to JSON:
0.33 s; one f-string per region 0.91 s, orjson 3.13 with one dict per region 0.75 s,
json 2.34 s.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

from pagescan.model.batch import Batch
from pagescan.model.memory import Category, Region
from pagescan.native import Progress

START, END = "start", "end"
ADDRESS = "%#x"
"""The placeholder of an address in a template."""

PLACES = (START, END)
"""The columns with addresses: they differ from line to line."""

_ROWS = 250
_KEPT = 10_000  # cached templates at most: in the worst case every line needs its own

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
    """Yield the text of a batch in chunks of many lines; the first comes at once.

    Args:
        batch: The regions.
        make: Returns the template of a line; a literal % must be doubled in it.
        addresses: The column of each placeholder of a template, in order.
        by_page: Make one line per page instead of one per region.
        between: Text between two lines; the caller adds it between two chunks.
        progress: Told the number of lines of each chunk once it has been consumed.
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
    """A cache of templates by key; missing ones are made."""

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
        keys = zip(lengths, batch.bits[part], batch.owners[part], strict=True)
        yield starts, ends, keys


def _by_page(batch: Batch) -> Iterator[_Rows]:
    size = batch.page_size
    pages = (
        (page, (size, bits, owner))
        for start, end, bits, owner in zip(
            batch.starts, batch.ends, batch.bits, batch.owners, strict=True
        )
        for page in range(start, end, size)
    )
    while rows := list(islice(pages, _ROWS)):
        starts, keys = zip(*rows, strict=True)
        yield starts, [start + size for start in starts], keys


def region_of(batch: Batch, key: Key) -> Region:
    """Return a region with the facts of a key; its addresses are placeholders."""
    length, bits, owner = key
    mapping = batch.mappings[owner] if owner >= 0 else None
    pages = length // batch.page_size
    return Region(0, length, pages, Category(bits), mapping, owner in batch.new)
