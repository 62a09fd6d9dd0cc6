"""WriteWatch against a model: 100,000 operations, drawn at random.

PAGESCAN_OPERATIONS sets how many; the seed is that of pytest-randomly. The model is a
set of page numbers and the bytes that should be there; it shares no code with pagescan.
"""

import mmap
import os
import random
import sys
from dataclasses import dataclass, field

import pytest

from pagescan.writewatch import WriteWatch

PAGE = os.sysconf("SC_PAGE_SIZE")
OPERATIONS = int(os.environ.get("PAGESCAN_OPERATIONS", "100000"))
SIZES = (1, PAGE - 1, PAGE, PAGE + 1, 7 * PAGE, 33 * PAGE + 5, 700 * PAGE)
MOST = 12

pytestmark = pytest.mark.needs("tracking")


@dataclass
class Model:
    size: int
    content: bytearray
    written: set[int] = field(default_factory=set)

    def store(self, start: int, data: bytes) -> None:
        self.content[start : start + len(data)] = data
        self.written |= set(pages(start, len(data)))

    def expected(self, start: int, size: int, count: int | None) -> list[int]:
        return sorted(self.written & set(pages(start, size)))[:count]


def pages(start: int, size: int) -> range:
    return range(start // PAGE, (start + size - 1) // PAGE + 1) if size else range(0)


@dataclass
class Pair:
    """A watch and its model; each operation is done to both."""

    watch: WriteWatch
    model: Model
    zeros: int
    """A file to read from, of more bytes than any watch."""

    def part(self, draw: random.Random) -> tuple[int, int]:
        start = draw.randrange(self.model.size)
        most = self.model.size - start
        return start, draw.choice((1, most, draw.randint(1, min(most, 3 * PAGE))))

    def store(self, draw: random.Random) -> None:
        start = draw.randrange(self.model.size)
        value = draw.randrange(256)
        self.watch.buffer[start] = value
        self.model.store(start, bytes([value]))

    def store_range(self, draw: random.Random) -> None:
        start, size = self.part(draw)
        data = draw.randbytes(min(size, 5 * PAGE))
        self.watch.buffer[start : start + len(data)] = data
        self.model.store(start, data)

    def read(self, draw: random.Random) -> None:
        start, size = self.part(draw)
        expected = self.model.content[start : start + size]
        assert self.watch.buffer[start : start + size] == expected

    def kernel_stores(self, draw: random.Random) -> None:
        start, size = self.part(draw)
        half = size // 2
        parts = [
            self.watch.buffer[start : start + half],
            self.watch.buffer[start + half : start + size],
        ]
        os.lseek(self.zeros, draw.randrange(PAGE), os.SEEK_SET)
        at = os.lseek(self.zeros, 0, os.SEEK_CUR)
        assert os.readv(self.zeros, parts) == size
        self.model.store(start, os.pread(self.zeros, size, at))

    def drop(self, draw: random.Random) -> None:
        """Drop pages: they are zeros again, and no longer written."""
        first = draw.randrange(self.model.size) // PAGE
        last = min(first + draw.randrange(4), (self.model.size - 1) // PAGE)
        length = (last - first + 1) * PAGE
        self.watch._memory.madvise(mmap.MADV_DONTNEED, first * PAGE, length)
        stop = min((last + 1) * PAGE, self.model.size)
        self.model.content[first * PAGE : stop] = bytes(stop - first * PAGE)
        self.model.written -= set(range(first, last + 1))

    def get(self, draw: random.Random) -> None:
        start, size = self.part(draw)
        count = draw.choice((None, None, 1, 2, 5, 64, 100_000))
        reset = draw.random() < 0.5
        if draw.random() < 0.3:
            start, size = 0, self.model.size
        found, granularity = self.watch.get(start, size, count, reset=reset)
        expected = self.model.expected(start, size, count)
        assert granularity == PAGE
        assert [at - self.watch.address for at in found] == [n * PAGE for n in expected]
        if reset:
            self.model.written -= set(expected)

    def reset(self, draw: random.Random) -> None:
        start, size = self.part(draw)
        self.watch.reset(start, size)
        self.model.written -= set(pages(start, size))

    def check(self) -> None:
        found, _ = self.watch.get()
        expected = sorted(self.model.written)
        assert [(at - self.watch.address) // PAGE for at in found] == expected
        assert self.watch.buffer == self.model.content


def test_operations_agree_with_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Several watches at once; a difference is reported with its operation."""
    draw = random.Random(random.getrandbits(64))
    source = os.memfd_create("source")
    os.write(source, draw.randbytes(701 * PAGE))
    pairs: list[Pair] = []
    kinds = {
        Pair.store: 30,
        Pair.store_range: 14,
        Pair.read: 12,
        Pair.kernel_stores: 10,
        Pair.drop: 4,
        Pair.get: 22,
        Pair.reset: 6,
    }
    made = 0
    try:
        for operation in range(OPERATIONS):
            if not pairs or draw.random() < 0.01:
                size = draw.choice(SIZES)
                pairs.append(
                    Pair(WriteWatch(size), Model(size, bytearray(size)), source)
                )
                made += 1
            if len(pairs) > MOST:
                gone = pairs.pop(draw.randrange(len(pairs)))
                gone.check()
                gone.watch.close()
            (kind,) = draw.choices(list(kinds), list(kinds.values()))
            try:
                kind(draw.choice(pairs), draw)
            except AssertionError as error:
                error.add_note(f"operation {operation}: {kind.__name__}")
                raise
        for pair in pairs:
            pair.check()
            pair.watch.close()
    finally:
        os.close(source)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{OPERATIONS} operations on {made} write watches: all as the model\n"
        )
