"""Repeated readings of maps: unchanged lines are the same objects, changes are seen."""

import mmap
import os
import random
import sys
import threading
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from pagescan import native
from pagescan.model.mapping_set import Covers, MappingSet, bounds_of
from pagescan.model.memory import PAGE_SIZE, Kind, Mapping, Untracked
from pagescan.scanner.spans import spans_of
from pagescan.target import maps as reader
from pagescan.target.maps import Reader
from pagescan.target.process import Target
from pagescan.target.smaps import smaps_fields
from pagescan.tracking.page_digests import PageDigests


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A list of texts; the file contains the last one."""
    said = [b""]
    monkeypatch.setattr(reader, "_text", lambda *_: said[-1])
    return said


def line(start: int, end: int, name: str = "") -> bytes:
    """Return a line of /proc/PID/maps."""
    text = f"{start:x}-{end:x} rw-p 00000000 00:00 0 "
    return f"{text}{'  ' + name if name else ''}\n".encode()


def by_hand(text: bytes) -> list[tuple[int, int, str]]:
    """Return the mappings, parsed by Python alone, cut where they overlap."""
    found = []
    last = 0
    for row in text.decode().splitlines():
        span, _, _, _, _, *name = row.split(None, 5)
        start, end = (int(word, 16) for word in span.split("-"))
        if end > last:
            found.append((max(start, last), end, name[0] if name else ""))
            last = end
    return found


def test_any_change_is_seen(texts: list[bytes]) -> None:
    """After lines come, go, change and overlap, a reading equals a new reader's."""
    rng = random.Random(11)
    with Target.open(os.getpid()) as target:
        one = Reader(target)
        spans = []
        for number in range(600):
            if number % 4 == 0:
                spans = [(n << 16, (n << 16) + 0x4000, "") for n in range(1, 40)]
            for _ in range(rng.choice([0, 1, 1, 2, 5])):
                at = rng.randrange(len(spans))
                start, end, _ = spans[at]
                match rng.randrange(5):
                    case 0 if len(spans) > 3:
                        del spans[at]
                    case 1:
                        spans[at] = (start, end, rng.choice(["", "[heap]", "/a b"]))
                    case 2:
                        spans[at] = (start, end + 0x1000 * rng.randrange(1, 20), "")
                    case 3:
                        spans.insert(at, (start - 0x3000, start - 0x1000, "/x"))
                    case _:
                        spans[at] = (start, start + 0x2000, "")
            texts.append(b"".join(line(*span) for span in spans))
            found = one.read()
            assert [(m.start, m.end, m.name) for m in found] == by_hand(texts[-1])
            assert found == Reader(target).read()


def test_what_stayed_is_the_same_object(texts: list[bytes]) -> None:
    """If one line of many changes, only one new object is made."""
    lines = [line(n << 16, (n << 16) + 0x4000) for n in range(1, 1001)]
    with Target.open(os.getpid()) as target:
        one = Reader(target)
        texts.append(b"".join(lines))
        before = one.read()
        assert one.read() is before
        lines[500] = line(501 << 16, (501 << 16) + 0x8000)
        lines.insert(701, line(0x2BD_8000, 0x2BD_9000))
        texts.append(b"".join(lines))
        after = one.read()
    assert len(after) == 1001
    kept = {id(mapping) for mapping in before}
    assert sum(id(mapping) not in kept for mapping in after) <= 202
    assert all(one is other for one, other in zip(before[:500], after, strict=False))
    assert all(
        one is other for one, other in zip(before[-299:], after[-299:], strict=True)
    )


@pytest.mark.parametrize("count", [3, 3000], ids=["few", "many"])
def test_unchanged_mappings_are_told_and_not_returned(
    texts: list[bytes], count: int
) -> None:
    """Few mappings are not kept, but a change is seen all the same."""
    lines = [line(at << 16, (at << 16) + 0x4000) for at in range(1, count + 1)]
    texts.append(b"".join(lines))
    with Target.open(os.getpid()) as target:
        one = Reader(target)
        first = one.read_changed()
        assert first is not None
        assert len(first) == count
        assert one.read_changed() is None
        lines[1] = line(2 << 16, (2 << 16) + 0x8000)
        texts.append(b"".join(lines))
        second = one.read_changed()
        assert second == Reader(target).read()
        assert second != first
        assert (second[0] is first[0]) == (count > 2000)
        assert one.read_changed() is None
        one.forget()
        assert one.read_changed() == second


def test_own_mappings_without_vsyscall() -> None:
    """The line of [vsyscall] at the end of the file is left out."""
    with Target.open(os.getpid()) as target:
        found = Reader(target).read()
    assert not any(mapping.start >> 63 for mapping in found)
    assert "[stack]" in {mapping.name for mapping in found}
    text = Path("/proc/self/maps").read_text()
    assert abs(len(found) - text.count("\n")) <= 3


def _maps(meter: native.Meter) -> None:
    with open("/proc/self/maps", "rb", buffering=0) as maps:
        native.read_maps(maps.fileno(), meter)


def _smaps(meter: native.Meter) -> None:
    assert smaps_fields(os.getpid(), [b"Rss"], native.Pace(), meter)


def _memory(meter: native.Meter) -> None:
    memory = mmap.mmap(-1, PAGE_SIZE)
    memory[0] = 1
    start = native.address_of(memory)
    rows = ([start], [start + PAGE_SIZE], [1])
    columns = native.Columns(*(array("Q", row) for row in rows))
    with Target.open(os.getpid()) as target:
        assert list(PageDigests(target).read(columns, meter))


def _is_of(meter: native.Meter) -> None:
    memory = mmap.mmap(-1, PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = native.address_of(memory)
    end = start + PAGE_SIZE
    uffd = native.uffd_open()
    try:
        native.uffd_api(uffd)
        with Target.open(os.getpid()) as target:
            # A part of a mapping, which may have been merged with its neighbour.
            assert native.uffd_is_of(uffd, target.pagemap, start, end, meter)
    finally:
        os.close(uffd)


def _held_less_than_half(call: Callable[[native.Meter], None]) -> bool:
    """Whether a call waited for the interpreter, and the meter has not counted it."""
    meter = native.Meter()
    begun = time.monotonic()
    call(meter)
    taken = time.monotonic() - begun
    assert meter.scan_ns >= meter.max_wait_ns > 0
    return taken > 0.1 and meter.scan_ns / 1e9 < taken / 2


@pytest.mark.parametrize(
    "call",
    [
        _maps,
        _smaps,
        _memory,
        pytest.param(_is_of, marks=pytest.mark.needs("tracking")),
    ],
)
def test_waiting_for_the_interpreter_is_no_hold(
    call: Callable[[native.Meter], None],
) -> None:
    """A call is timed where it is made: another thread of Python does not count."""
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            pass

    before = sys.getswitchinterval()
    sys.setswitchinterval(0.2)
    spinning = threading.Thread(target=spin)
    spinning.start()
    try:
        assert any(_held_less_than_half(call) for _ in range(50))
    finally:
        over.set()
        sys.setswitchinterval(before)
        spinning.join()


def test_what_is_made_of_chosen_mappings_is_made_once() -> None:
    """A repeated question returns the same object, equal to that for a plain list."""
    plain = [
        Mapping(0x1000, 0x3000, "rw-p", 0, (0, 0), 0, ""),
        Mapping(0x3000, 0x4000, "r--p", 0, (0, 0), 0, "[heap]"),
        Mapping(0x4000, 0x6000, "rw-s", 0, (0, 1), 7, "/dev/shm/a"),
        Mapping(0x8000, 0x9000, "rw-p", 0, (0, 0), 0, ""),
    ]
    selected = MappingSet(plain)
    rules = {(Kind.ANON, 0): 4}
    assert selected.bounds is selected.bounds
    assert selected.bounds == bounds_of(plain)
    assert selected.kinds == ((Kind.ANON, 0), (Kind.SHARED, 0))
    spans = spans_of(selected, rules)
    assert spans is spans_of(selected, rules)
    assert list(zip(*spans, strict=True)) == [(0x1000, 0x4000, 4), (0x8000, 0x9000, 4)]
    more = {**rules, (Kind.SHARED, 0): 4}
    assert list(zip(*spans_of(selected, more), strict=True)) == [
        (0x1000, 0x6000, 4),
        (0x8000, 0x9000, 4),
    ]


def test_covers_agrees_with_a_look_at_each() -> None:
    """Covers is right for ranges that overlap, nest, and are in no order."""
    rng = random.Random(2)
    for _ in range(300):
        spans = [
            (start, start + rng.randrange(1, 30))
            for start in (rng.randrange(100) for _ in range(rng.randrange(8)))
        ]
        covers = Covers([Untracked(*span, "", "") for span in spans])
        for start in range(0, 120, 3):
            one = Mapping(start, start + rng.randrange(1, 20), "rw-p", 0, (0, 0), 0, "")
            expected = any(low <= start and one.end <= high for low, high in spans)
            assert (one in covers) == expected
