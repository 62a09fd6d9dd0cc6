"""Computes digests of a target's pages, which it reads and does not store."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pagescan.model.memory import DIGEST, PAGE_SIZE

if TYPE_CHECKING:
    from pagescan.native import Columns, Meter
    from pagescan.target.process import Target


_AT_ONCE = 64 << 10  # bytes per read: the lock is free between pages
_FRAME = (1 << 55) - 1  # bits of a pagemap word; 0 if hidden from this user
_PRESENT = 1 << 63


class PageDigests:
    """Reads pages of one target through /proc/PID/mem."""

    def __init__(self, target: Target) -> None:
        """Remember the target; read nothing yet."""
        self.target = target

    def can_read(self) -> bool:
        """Whether this process may read the target's memory."""
        with contextlib.suppress(OSError), self._memory():
            return True
        return False

    def read(self, populated: Columns, meter: Meter) -> Iterator[tuple[int, bytes]]:
        """Read regions; yield start addresses and digests of consecutive pages.

        The kernel takes the lock page by page.

        Args:
            populated: Populated pages only, because reading would populate others.
            meter: The cost is added to it.

        Raises:
            OSError: This process may not read the target's memory.
        """
        if not populated.starts:
            return
        buffer = memoryview(bytearray(_AT_ONCE))
        with self._memory() as memory:
            for low, high in zip(populated.starts, populated.ends, strict=True):
                start = low
                while start < high:
                    part = buffer[: min(_AT_ONCE, high - start)]
                    size = 0
                    with contextlib.suppress(OSError):
                        size = _read_into(part, memory, start, meter)
                    size -= size % PAGE_SIZE
                    pages = range(0, size, PAGE_SIZE)
                    if size:
                        yield (
                            start,
                            b"".join(
                                _digest(part[at : at + PAGE_SIZE]) for at in pages
                            ),
                        )
                    start += size
                    if size < len(part):  # the next page was unmapped since
                        start += PAGE_SIZE

    def page(self, address: int) -> tuple[bytes, bool]:
        """Return the digest of a page, and whether its bytes are not all equal."""
        with contextlib.suppress(OSError), self._memory() as memory:
            data = os.pread(memory, PAGE_SIZE, address)
            return _digest(data), data != data[:1] * len(data)
        return bytes(DIGEST), False

    def frames(self, start: int, count: int) -> tuple[int, ...]:
        """Return the page frames of some pages; 0: not populated, or hidden."""
        data = os.pread(self.target.pagemap, 8 * count, start // PAGE_SIZE * 8)
        words = (word for (word,) in struct.iter_unpack("=Q", data))
        return tuple(word & _FRAME if word & _PRESENT else 0 for word in words)

    @contextlib.contextmanager
    def _memory(self) -> Iterator[int]:
        memory = os.open(f"/proc/{self.target.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield memory
        finally:
            os.close(memory)


def _read_into(part: memoryview, memory: int, start: int, meter: Meter) -> int:
    """Read memory into a buffer, count the cost, and return the number of bytes."""
    from pagescan import native

    with native.keeping_the_processor(native.Pace()):
        size, taken = native.read_memory(memory, part, start)
    pages = size // PAGE_SIZE
    meter.scan_ns += taken
    # The lock is taken page by page, and is free while a page is copied.
    meter.max_wait_ns = max(meter.max_wait_ns, taken // max(1, pages))
    meter.pages_walked += pages
    return size


def _digest(page: bytes | memoryview) -> bytes:
    """Return a digest that differs for pages with different bytes."""
    import hashlib  # takes 3 ms; only for growing targets

    return hashlib.sha256(page).digest()[:DIGEST]
