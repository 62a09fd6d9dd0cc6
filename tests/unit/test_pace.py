"""How long the first call of a scan may be."""

import pytest

from pagescan.model.memory import PAGE_SIZE
from pagescan.native import Pace
from pagescan.native.pace import MAX_STALL_NS, c_pace


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
