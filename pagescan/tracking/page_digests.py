"""Digests of a target's pages, which are read through /proc/PID/mem and not kept."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pagescan.model.memory import DIGEST, PAGE_SIZE

if TYPE_CHECKING:
    from pagescan.native import Columns, Meter
    from pagescan.target.process import Target


_AT_ONCE = 64 << 10  # bytes of one read: the lock is free between its pages
_FRAME = (1 << 55) - 1  # of a pagemap word; 0 for who may not see it
_PRESENT = 1 << 63


class PageDigests:
    """Reads pages of one target."""

    def __init__(self, target: Target) -> None:
        """Read nothing yet."""
        self.target = target

    def can_read(self) -> bool:
        """Whether this process may read the target's memory."""
        with contextlib.suppress(OSError), self._memory():
            return True
        return False

    def read(self, populated: Columns, meter: Meter) -> Iterator[tuple[int, bytes]]:
        """Read regions, and yield addresses and the digests of the pages from there.

        The kernel takes the lock page by page.

        Args:
            populated: Populated pages alone: others would be populated by that.
            meter: What it costs is added here.

        Raises:
            OSError: This process may not read the target's memory.
        """
        if not populated.starts:
            return
        buffer = memoryview(bytearray(_AT_ONCE))
        with self._memory() as memory:
            for low, high in zip(populated.starts, populated.ends, strict=True):
                for start in range(low, high, _AT_ONCE):
                    part = buffer[: min(_AT_ONCE, high - start)]
                    begun = time.perf_counter_ns()
                    try:
                        size = os.preadv(memory, [part], start)
                    except OSError:  # unmapped meanwhile
                        continue
                    taken = time.perf_counter_ns() - begun
                    meter.scan_ns += taken
                    meter.max_wait_ns = max(meter.max_wait_ns, taken)
                    meter.pages_walked += size // PAGE_SIZE
                    yield (
                        start,
                        b"".join(
                            _digest(part[at : at + PAGE_SIZE])
                            for at in range(0, size - size % PAGE_SIZE, PAGE_SIZE)
                        ),
                    )

    def page(self, address: int) -> tuple[bytes, bool]:
        """Return the digest of one page, and whether it holds more than one byte."""
        with contextlib.suppress(OSError), self._memory() as memory:
            data = os.pread(memory, PAGE_SIZE, address)
            return _digest(data), data != data[:1] * len(data)
        return bytes(DIGEST), False

    def frames(self, start: int, count: int) -> tuple[int, ...]:
        """Return the page frames of some pages; 0: none, or not to be seen."""
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


def _digest(page: bytes | memoryview) -> bytes:
    """Return what two pages with different bytes never have in common."""
    import hashlib  # 3 ms, for targets that grow

    return hashlib.sha256(page).digest()[:DIGEST]
