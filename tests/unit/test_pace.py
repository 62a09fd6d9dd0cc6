"""How long the first call of a scan may be, and the lowest limit of a call."""

import ctypes
import os

import pytest

from pagescan.model.memory import PAGE_SIZE
from pagescan.native import Pace
from pagescan.native.pace import MAX_STALL_NS, c_pace
from tests.conftest import command


@pytest.mark.parametrize(
    ("part", "pages"),
    [(1, 2048), (1.00001, 2048), (2, 1024), (3, 512), (8, 512), (0.1, 2048)],
)
def test_the_first_call_is_as_short_as_the_limit(part: float, pages: int) -> None:
    """Half the limit makes half the first call, down to the shortest call."""
    pace = Pace(max_stall_ns=int(MAX_STALL_NS / part))
    slice_, shortest = c_pace(pace)[2:4]
    assert slice_ == pages * PAGE_SIZE
    assert shortest <= slice_
    assert not slice_ % shortest  # else it would never be walked whole, nor grow


def test_a_limit_that_no_call_keeps() -> None:
    """A reservation without a page costs few calls, however low the limit."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size, no_reserve = 1 << 40, 0x4022
    address = libc.mmap(None, ctypes.c_size_t(size), 3, no_reserve, -1, 0)
    assert address != ctypes.c_void_p(-1).value
    try:
        words = (f"{address:#x}+{size:#x}", "--max-stall", "1us", "--json")
        found = command("scan", os.getpid(), *words).json()
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    # The shortest slices would make 524,288 calls; a slow machine makes some of them.
    assert found["cost"]["ioctls"] < 200_000
    assert found["cost"]["pages_walked"] == size // PAGE_SIZE
