"""Makes the text of a batch's regions from its columns, without one object per region.

Except for its addresses, a line depends only on the length, the bits and the mapping of
its region. So each such combination is made into a template once, and the addresses of
many lines are filled in at once. Measured for a million regions to JSON: 0.33 s; one
f-string per region 0.91 s, orjson 3.13 with one dict per region 0.75 s, json 2.34 s.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

from pagescan.model.batch import Batch
from pagescan.model.results import Output

_ROWS = 250
_MOST_TEMPLATES = 10_000  # in the worst case every line needs its own


class Slot(NamedTuple):
    """A place in a line for an address of its region.

    Attributes:
        name: "start" or "end".
        width: Characters, padded with blanks; 0: as many as the address has.
    """

    name: str
    width: int = 0


START, END = Slot("start"), Slot("end")
Part = str | Slot
"""A part of a line."""


class LineTemplate(NamedTuple):
    """A line with slots for its addresses: for all regions that differ in them alone.

    Attributes:
        text: The line for the operator %, which takes the addresses.
        slots: The names of the slots, in order.

    Examples:
        >>> line = LineTemplate.of([START, "-", Slot("end", 12), "100 %"])
        >>> line.text, line.slots
        ('%#x-%#-12x100 %%', ('start', 'end'))
        >>> line.text % (0x1000, 0x2000)
        '0x1000-0x2000      100 %'
    """

    text: str
    slots: tuple[str, ...]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> "LineTemplate":
        """Make a template of the parts of a line."""
        texts, slots = [], []
        for part in parts:
            if isinstance(part, str):
                texts.append(plain(part))
            else:
                texts.append(f"%#-{part.width}x" if part.width else "%#x")
                slots.append(part.name)
        return cls("".join(texts), tuple(slots))


def plain(text: str) -> str:
    """Return text as a template's text has it where there is no slot."""
    return text.replace("%", "%%")


Key = tuple[int, int, int]
"""The facts that decide about a line's template: length in bytes, bits, owner."""


def batch_lines(
    batch: Batch,
    template: Callable[[Key], LineTemplate],
    output: Output,
    between: str = "",
) -> Iterator[str]:
    """Yield the text of a batch in chunks of many lines; the first comes at once.

    Args:
        batch: The regions.
        template: Returns the line for a key; all lines have the same slots.
        output: The kind of a row, and the receiver of the progress.
        between: Text between two lines; the caller adds it between two chunks.
    """
    templates = _Templates(template)
    parts = _by_page(batch) if output.by == "page" else _by_region(batch)
    for starts, ends, keys in parts:
        text = between.join([templates[key] for key in keys])
        columns = {"start": starts, "end": ends}
        values = zip(*(columns[slot] for slot in templates.slots), strict=True)
        yield text % tuple(chain.from_iterable(values))
        if output.progress is not None:
            output.progress.advance(len(starts))


class _Templates(dict[Key, str]):
    """A cache of the templates' texts by key; missing ones are made."""

    def __init__(self, template: Callable[[Key], LineTemplate]) -> None:
        super().__init__()
        self.slots: tuple[str, ...] = ()
        self._template = template

    def __missing__(self, key: Key) -> str:
        template = self._template(key)
        self.slots = template.slots
        if len(self) < _MOST_TEMPLATES:
            self[key] = template.text
        return template.text


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
