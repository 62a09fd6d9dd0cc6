"""The copies of a family, counted from files that look like /proc/PID/pagemap."""

import os
import random
import tempfile
from array import array
from contextlib import ExitStack

import pytest

from pagescan import native
from pagescan.model.memory import PAGE_SIZE

PRESENT, OF_FILE, EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
PAGES = 700
"""More than one stretch that the shim reads at a time."""


def counted(words: list[list[int]]) -> int:
    """Return what the shim counts in the pagemaps of some processes."""
    with ExitStack() as undo:
        fds = []
        for row in words:
            file = undo.enter_context(tempfile.TemporaryFile())
            os.write(file.fileno(), array("Q", row).tobytes())
            fds.append(file.fileno())
        ends = array("Q", [300 * PAGE_SIZE, PAGES * PAGE_SIZE])
        starts = array("Q", [0, 310 * PAGE_SIZE])
        return native.count_copies(
            fds, native.Columns(starts, ends, array("Q", [0, 0]))
        )


def expected(words: list[list[int]]) -> int:
    """Return the different pages of each address, less one."""
    total = 0
    for page in (*range(300), *range(310, PAGES)):
        own = [row[page] for row in words if page < len(row)]
        own = [word for word in own if word & PRESENT and not word & OF_FILE]
        frames = {word % (1 << 55) for word in own} - {0}
        hidden = [word & EXCLUSIVE for word in own if not word % (1 << 55)]
        unlike = len(frames) + sum(map(bool, hidden)) + (0 in hidden)
        total += max(0, unlike - 1)
    return total


@pytest.mark.parametrize("frames", [1, 3, 1 << 40])
@pytest.mark.parametrize("processes", [1, 2, 3, 64, 257])
def test_each_copy_once(processes: int, frames: int) -> None:
    """Of few frames most are shared, of many each process has its own."""
    chance = random.Random(processes * frames)

    def word() -> int:
        kind = chance.choice([0, OF_FILE, PRESENT | OF_FILE, *[PRESENT] * 7])
        hidden = chance.random() < 0.2
        frame = 0 if hidden else chance.randrange(1, frames + 1)
        return kind | frame | (EXCLUSIVE if chance.random() < 0.3 else 0)

    words = [[word() for _ in range(PAGES)] for _ in range(processes)]
    words[-1] = words[-1][: PAGES - 100]  # it has less memory than the others
    assert counted(words) == expected(words)


def test_frames_that_collide() -> None:
    """Frames that differ only in their highest bits are different frames."""
    words = [[PRESENT | at << 45 | 7] * PAGES for at in range(1, 200)]
    assert counted(words) == expected(words) == 198 * 690
