"""The result of a scan does not depend on its division: rows, slices, threads, ranges.

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
from hypothesis import HealthCheck, given, settings, strategies as st

import pagescan
from pagescan import native
from pagescan.model.memory import Category
from pagescan.native import (
    Masks,
    Meter,
    Pace,
    Rule,
    Spans,
    pace as native_pace,
    scan as native_scan,
)
from pagescan.scanner import spans as parallel
from pagescan.tracking.tracking import Tracking

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
        """Return the populated pages according to the kernel's pagemap words."""
        words = os.pread(self.pagemap, 8 * PAGES, self.start // PAGE * 8)
        return {
            page
            for page, (word,) in enumerate(struct.iter_unpack("<Q", words))
            if word >> 63
        }

    def written(self) -> set[int]:
        """Return the populated pages without the write-protect bit."""
        words = os.pread(self.pagemap, 8 * PAGES, self.start // PAGE * 8)
        return {
            page
            for page, (word,) in enumerate(struct.iter_unpack("<Q", words))
            if word >> 63 and not word >> 57 & 1
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
    return native.scan_once(
        arena.pagemap,
        spans,
        [Rule(kernel_masks=wanted, result_masks=wanted)],
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
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_cut_anywhere_it_is_the_same(
    arena: Arena, cuts: list[int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any division into ranges, any room for rows: the same pages, once each."""
    monkeypatch.setattr(native_scan, "_ROWS", rows)
    monkeypatch.setattr(native_scan, "_FEW_ROWS", rows)
    pages = _pages(arena, _scan(arena, cuts))
    assert pages == sorted(arena.present())


@pytest.mark.parametrize("slice_bytes", [PAGE, 2 << 20, 64 << 20])
def test_slices_do_not_show(
    arena: Arena, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short the calls are, neighbouring pages are one region."""
    monkeypatch.setattr(native_pace, "_FIRST_SLICE", slice_bytes)
    found = _scan(arena, [])
    assert sorted(arena.present()) == _pages(arena, found)
    assert all(
        high < low for high, low in zip(found.ends, found.starts[1:], strict=False)
    )


@given(limit=st.integers(1, PAGES))
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_limit_of_pages_is_exact(arena: Arena, limit: int) -> None:
    """With a limit, the result has exactly that many pages: the first ones."""
    assert (
        _pages(arena, _scan(arena, [], limit=limit)) == sorted(arena.present())[:limit]
    )


def test_near_neighbours_are_joined(arena: Arena) -> None:
    """With a gap allowed, all present pages are covered by fewer regions."""
    close = _scan(arena, [], gap=64 * PAGE)
    assert set(_pages(arena, close)) >= arena.present()
    assert len(close.starts) < len(_scan(arena, []).starts) / 4


ranges = st.lists(
    st.tuples(st.integers(0, PAGES - 1), st.integers(1, 400)), min_size=1, max_size=8
)


@given(chosen=ranges, rolled=st.randoms(use_true_random=False))
@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_order_of_ranges_does_not_show(
    arena: Arena, chosen: list[tuple[int, int]], rolled: random.Random
) -> None:
    """Ranges in any order, overlapping or repeated, give the pages that they cover."""
    covered = {
        page for low, length in chosen for page in range(low, min(PAGES, low + length))
    }
    query = pagescan.Query(require=Category.PRESENT, returned=Category.PRESENT)
    answers = []
    for _ in range(2):
        words = [
            f"{arena.start + low * PAGE}+{(min(PAGES, low + length) - low) * PAGE}"
            for low, length in chosen
        ]
        found = pagescan.scan(os.getpid(), words, query)
        answers.append((list(found.starts), list(found.ends)))
        rolled.shuffle(chosen)
    pages = [
        (address - arena.start) // PAGE
        for low, high in zip(*answers[0], strict=True)
        for address in range(low, high, PAGE)
    ]
    assert pages == sorted(arena.present() & covered)
    assert answers[0] == answers[1]


@pytest.fixture(scope="module")
def tracked() -> Iterator[tuple[Arena, Tracking]]:
    """Tracked memory of this process."""
    made = Arena()
    words = [f"{made.start}+{PAGES * PAGE}"]
    with pagescan.track(os.getpid(), words) as tracking:
        yield made, tracking
    made.close()


@pytest.mark.needs("tracking")
@given(
    stored=st.sets(st.integers(0, PAGES - 1), max_size=1500),
    runs=st.lists(st.integers(0, PAGES - 1), max_size=4),
    threads=st.integers(1, 4),
    rows=st.integers(1, 600),
    pages_a_slice=st.sampled_from([1, 7, 512, 513, 16384]),
)
@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_written_does_not_depend_on_the_way(
    tracked: tuple[Arena, Tracking],
    stored: set[int],
    runs: list[int],
    threads: int,
    rows: int,
    pages_a_slice: int,
) -> None:
    """Any threads, slices and room for rows: stored pages are found once each."""
    arena, tracking = tracked
    stored = stored | {
        page for low in runs for page in range(low, min(PAGES, low + 90))
    }
    tracking.scanner.threads = threads
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_scan, "_ROWS", rows)
        patch.setattr(native_scan, "_FEW_ROWS", rows)
        patch.setattr(native_pace, "_FIRST_SLICE", pages_a_slice * PAGE)
        patch.setattr(native_scan, "_WORTH_A_THREAD_NS", 0)
        patch.setattr(parallel, "_WORTH_IT", 1)
        for page in stored:
            arena.memory[page * PAGE + 8] = 1
        assert arena.written() == stored
        for rearm in (False, True):
            batch = tracking.look(rearm=rearm).batch
            found = native.Columns(batch.starts, batch.ends, batch.categories)
            assert _pages(arena, found) == sorted(stored)
        assert arena.written() == set()
        assert list(tracking.look().batch.starts) == []
