"""Contents of pages whose truth is known, because a test makes them."""

import random
from array import array
from collections.abc import Iterable, Sequence

from pagescan.native import Columns, pack
from pagescan.render.html.records import (
    PageContents,
    PageLook,
    PageMapping,
    PageProcess,
)

PAGE = 4096
BEGUN = 1_795_780_984_000_000_000
"""2026-11-27 12:03:04 UTC."""
HEAP, ANON, STACK = 0x5555_0000_0, 0x7F00_0000_0, 0x7FFF_FFF0_0
"""Numbers of pages."""


def columns_of(pages: Iterable[int]) -> Columns:
    """Return the regions of some pages."""
    starts, ends = array("Q"), array("Q")
    for page in sorted(pages):
        if ends and ends[-1] == page * PAGE:
            ends[-1] += PAGE
        else:
            starts.append(page * PAGE)
            ends.append((page + 1) * PAGE)
    return Columns(starts, ends, array("Q", bytes(8 * len(starts))))


def contents_of(
    written: Sequence[set[int]],
    mappings: Sequence[PageMapping],
    *,
    interval: float = 1.0,
    name: str = "worker",
    notes: Sequence[str] = (),
) -> PageContents:
    """Return the contents of a page about one process.

    Args:
        written: The numbers of the pages that each look found.
        mappings: The mappings.
        interval: Seconds between two looks.
        name: The name of the process.
        notes: Notes for the page.
    """
    looks = []
    step = round(interval * 1e9)
    for at, pages in enumerate(written):
        counts = [
            sum(one.start <= page * PAGE < one.end for page in pages)
            if one.first <= at <= one.last
            else 0
            for one in mappings
        ]
        known = [index for index, count in enumerate(counts) if count]
        looks.append(
            PageLook(
                process=0,
                from_ns=BEGUN + at * step,
                to_ns=BEGUN + (at + 1) * step,
                pages=len(pages),
                resident=(1 << 28) + at * PAGE,
                share=len(pages) * 3e-7,
                used_ns=step // 2,
                mappings=known,
                counts=[counts[index] for index in known],
            )
        )
    all_columns = [columns_of(pages) for pages in written]
    return PageContents(
        host="host",
        kernel="6.18.0",
        version="0.1.0",
        page_size=PAGE,
        budget=None,
        processes=[PageProcess(4242, name)],
        mappings=mappings,
        looks=looks,
        columns=all_columns.__getitem__,
        packed=lambda group: [
            (len(columns.starts), pack(columns, PAGE))
            for columns in map(all_columns.__getitem__, group)
        ],
        notes=notes,
    )


def mapping(
    start: int, pages: int, name: str, first: int = 0, last: int = 1 << 20
) -> PageMapping:
    """Return a mapping of that many pages at the page `start`."""
    return PageMapping(0, start * PAGE, (start + pages) * PAGE, name, first, last)


def random_looks(looks: int, seed: int = 1, scale: int = 1) -> list[set[int]]:
    """Return looks at a heap that grows, a large mapping and a stack."""
    rolled = random.Random(seed)
    return [
        {
            *(HEAP + rolled.randrange(heap_pages(at, looks)) for _ in range(60)),
            *(ANON + rolled.randrange(60_000) for _ in range(150 * scale)),
            *(ANON + at * 100 + page for page in range(80)),
            STACK + 10,
        }
        for at in range(looks)
    ]


def heap_pages(look: int, looks: int) -> int:
    """Return the size of the heap at a look: it grows after half of the looks."""
    return 900 if look < looks // 2 else 2000


def random_contents(looks: int, seed: int = 1, scale: int = 1) -> PageContents:
    """Return the contents of a page about random looks."""
    half = looks // 2
    mappings = [
        mapping(HEAP, 900, "[heap]", 0, half - 1),
        mapping(HEAP, 2000, "[heap]", half, looks - 1),
        mapping(ANON, 65_536, "[anon]", 0, looks - 1),
        mapping(ANON + 100_000, 10, "/usr/lib/libidle.so", 0, looks - 1),
        mapping(STACK, 33, "[stack]", 0, looks - 1),
    ]
    return contents_of(random_looks(looks, seed, scale), mappings)
