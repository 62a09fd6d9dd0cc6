"""What a scan finds does not depend on how it is cut up: rows, slices, ranges.

The judge is /proc/self/pagemap, decoded here: bit 63 present, 62 swapped, 57 uffd-wp.
"""

import ctypes
import mmap
import os
import random
import struct
from array import array
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagescan import native
from pagescan.model import Category
from pagescan.native import Masks, Meter, Pace, Rule, Spans

PAGE = os.sysconf("SC_PAGE_SIZE")
PAGES = 3000


class Arena:
    """Private memory of this process, a random part of which is populated."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(
            -1, PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        )
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.anchor = ctypes.c_char.from_buffer(self.memory)
        self.start = ctypes.addressof(self.anchor)
        rolled = random.Random(7)
        for page in range(PAGES):
            if rolled.random() < 0.5:
                self.memory[page * PAGE] = 1
        self.pagemap = os.open("/proc/self/pagemap", os.O_RDONLY)

    def present(self) -> set[int]:
        """Return the populated pages as the kernel's pagemap words say."""
        words = os.pread(self.pagemap, 8 * PAGES, self.start // PAGE * 8)
        return {
            page
            for page, (word,) in enumerate(struct.iter_unpack("<Q", words))
            if word >> 63
        }

    def close(self) -> None:
        """Free the memory."""
        del self.anchor
        self.memory.close()
        os.close(self.pagemap)


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    made = Arena()
    yield made
    made.close()


def _scan(
    arena: Arena, cuts: list[int], gap: int = 0, limit: int = 0
) -> native.Columns:
    edges = sorted({0, PAGES, *cuts})
    spans = Spans(
        array("Q", (arena.start + low * PAGE for low in edges[:-1])),
        array("Q", (arena.start + high * PAGE for high in edges[1:])),
        array("Q", bytes(8 * (len(edges) - 1))),
    )
    wanted = Masks(mask=Category.PRESENT, returned=Category.PRESENT)
    return native.scan(
        arena.pagemap,
        spans,
        [Rule(asked=wanted, wanted=wanted)],
        join_gap=gap,
        max_pages=limit or native.ALL_PAGES,
        pace=Pace(pause_ns=0),
        meter=Meter(),
    )


def _pages(arena: Arena, found: native.Columns) -> list[int]:
    return [
        (address - arena.start) // PAGE
        for low, high in zip(found.starts, found.ends, strict=True)
        for address in range(low, high, PAGE)
    ]


@given(cuts=st.lists(st.integers(0, PAGES), max_size=20), rows=st.integers(1, 600))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_cut_anywhere_it_is_the_same(
    arena: Arena, cuts: list[int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any cutting into ranges and any room for rows gives the same pages, once each."""
    monkeypatch.setattr(native, "_ROWS", rows)
    pages = _pages(arena, _scan(arena, cuts))
    assert pages == sorted(arena.present())


@pytest.mark.parametrize("slice_bytes", [PAGE, 2 << 20, 64 << 20])
def test_slices_do_not_show(
    arena: Arena, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the calls are, neighbours come out as one region."""
    monkeypatch.setattr(native, "_FIRST_SLICE", slice_bytes)
    found = _scan(arena, [])
    assert sorted(arena.present()) == _pages(arena, found)
    assert all(
        high < low for high, low in zip(found.ends, found.starts[1:], strict=False)
    )


@given(limit=st.integers(1, PAGES))
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_limit_of_pages_is_exact(arena: Arena, limit: int) -> None:
    """The first pages come, as many as were asked for, and not one more."""
    assert (
        _pages(arena, _scan(arena, [], limit=limit)) == sorted(arena.present())[:limit]
    )


def test_near_neighbours_are_joined(arena: Arena) -> None:
    """With a gap allowed, all present pages are covered by fewer regions."""
    close = _scan(arena, [], gap=64 * PAGE)
    assert set(_pages(arena, close)) >= arena.present()
    assert len(close.starts) < len(_scan(arena, []).starts) / 4
