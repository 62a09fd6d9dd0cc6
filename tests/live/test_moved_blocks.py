"""A target moves its blocks amid a look: no block gets a border, mremap(2) works."""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from pagescan import native
from pagescan.model.errors import PagescanError, TargetError
from pagescan.target import maps
from pagescan.target.process import Target as Process
from pagescan.tracking.arm import Armer
from pagescan.tracking.growing_ends import GrowingEnds
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Target

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
SMALL, LARGE = 16, 40


def put_larger(made: Target) -> None:
    """Replace a block by a larger one, which covers all its addresses."""
    low, high = made.where("small")
    made.tell("drop small")
    made.tell(f"map large=anon,pages={LARGE}")
    start, end = made.where("large")
    assert start < low < high <= end, "the block lies elsewhere"
    made.write("large", set(range(LARGE)))


def can_grow(made: Target) -> None:
    """Let the target change the block's size: with a border in it, mremap(2) fails."""
    made.tell(f"mremap large size {LARGE + 1}")
    made.where("large")


def once_before(function: Callable[..., Any], act: Callable[[], None]) -> Any:
    """Return the function, which first does something at its first call."""
    waiting = [act]

    def called(*words: Any, **more: Any) -> Any:
        if waiting:
            waiting.pop()()
        return function(*words, **more)

    return called


@pytest.mark.parametrize("below", [False, True])
def test_between_maps_and_registering(
    target: Start, monkeypatch: pytest.MonkeyPatch, below: bool
) -> None:
    """A larger block is registered whole, and each later store to it is found."""
    made = target("above=anon,pages=8,fill=1", "small=anon,pages=16,fill=1")
    replace = once_before(Armer.stale, lambda: put_larger(made))
    with Process.open(made.pid) as process:
        if below:  # a look registers it, and not the arming
            made.tell("drop small")
            tracking = Tracking.start(process)
            made.tell(f"map small=anon,pages={SMALL}")
            made.write("small", set(range(SMALL)))
            tracking.unregistered.register_growth()
            monkeypatch.setattr(Armer, "stale", replace)
            tracking.look(rearm=True)
        else:
            monkeypatch.setattr(Armer, "stale", replace)
            tracking = Tracking.start(process)
        with tracking:
            can_grow(made)
            tracking.look(rearm=True)
            made.write("large", {3, LARGE - 1})
            low, high = made.ranges["large"]
            found = [
                (address - low) // witness.PAGE
                for region in tracking.written()
                for address in range(region.start, region.end, witness.PAGE)
                if low <= address < high
            ]
            assert found == [3, LARGE - 1]
    assert witness.registered(made.pid) == 0


def test_between_maps_and_frames(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages of a larger block do not prove a border in its middle."""
    made = target("above=anon,pages=8,fill=1")
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        made.tell(f"map small=anon,pages={SMALL}")
        made.where("small")
        made.write("small", set(range(SMALL)))
        replace = once_before(GrowingEnds.frames, lambda: put_larger(made))
        monkeypatch.setattr(GrowingEnds, "frames", replace)
        tracking.look(rearm=True)
        assert "large" in made.ranges, "the growing end was not compared"
        tracking.look(rearm=True)
        can_grow(made)


@pytest.mark.parametrize("asked", [True, False])
def test_where_a_mapping_begins(
    target: Start, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """The kernel is asked; before Linux 6.11 the text of maps is read."""

    def refuse(*_: object) -> bool:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    if not asked:
        monkeypatch.setattr(native, "mapping_begins", refuse)
    made = target("m=anon,pages=16,fill=1")
    made.tell("munmap m 4")
    low, _ = made.ranges["m"]
    with Process.open(made.pid) as process:
        found = [maps.begins(process, low + page * witness.PAGE) for page in (4, 5, 6)]
        assert found == [False, True, False]
        assert not maps.begins(process, (1 << 47) - witness.PAGE)  # above the stack


def test_maps_that_cannot_be_opened(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process lives and runs the same program: the cause is another one."""

    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    made = target("m=anon,pages=16,fill=1")
    monkeypatch.setattr(maps, "open_maps", refuse)
    with Process.open(made.pid) as process:
        with pytest.raises(PagescanError, match="limit of descriptors") as caught:
            maps.begins(process, made.ranges["m"][0])
        assert not isinstance(caught.value, TargetError)
