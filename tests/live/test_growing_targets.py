"""Targets that grow: how many mappings tracking leaves, according to maps."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pagescan.target.process import Target as Process
from pagescan.target.selection import Selection
from pagescan.tracking import mapping_count
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Result, Target, checked

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]


def mappings_in(pid: int, low: int = 0, high: int = 1 << 64) -> int:
    """Return how many lines of /proc/PID/maps lie within [low, high)."""
    count = 0
    for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
        start, end = (int(word, 16) for word in line.split(None, 1)[0].split("-"))
        count += low <= start and end <= high
    return count


def test_reservation_turned_writable_step_by_step(target: Start) -> None:
    """An arena's newly writable part is one mapping with the earlier part."""
    made = target("m=reserve,gb=1")
    low, high = made.ranges["m"]
    made.tell("rw m 0-15")
    made.write("m", set(range(16)))
    assert mappings_in(made.pid, low, high) == 2
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        for first in range(16, 16 * 40, 16):
            pages = set(range(first, first + 16))
            made.tell(f"rw m {first}-{first + 15}")
            made.write("m", pages)
            batch = tracking.look(rearm=True).batch
            found = {(page.start - low) // witness.PAGE for page in batch.pages()}
            assert {page for page in found if 0 <= page < 1 << 18} == pages
        assert mappings_in(made.pid, low, high) == 2
        assert tracking.mappings.added() == 0
    assert mappings_in(made.pid, low, high) == 2


def test_reservation_that_came_later(target: Start) -> None:
    """It is registered when its first part is used."""
    made = target("other=anon,pages=16,fill=1")
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        made.tell("map m=reserve,gb=1")
        low, high = made.where("m")
        for first in range(0, 16 * 40, 16):
            made.tell(f"rw m {first}-{first + 15}")
            made.write("m", set(range(first, first + 16)))
            tracking.look(rearm=True)
        assert mappings_in(made.pid, low, high) == 2
    assert mappings_in(made.pid, low, high) == 2


def test_near_the_limit(target: Start, pagescan: Run) -> None:
    """Nothing is registered in a target that has 95 % of what it may have."""
    most = mapping_count.most_mappings()
    if most > 100_000:
        pytest.skip("vm.max_map_count is large here")
    made = target(f"m=many,pages={most + 10}")
    result = pagescan("arm", made.pid, "--json")
    assert result.code == 1
    assert "vm.max_map_count" in result.error()["error"]
    assert witness.registered(made.pid) == 0


def test_growth_near_the_limit(target: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracked memory stays exact; one message says that newer is untracked."""
    made = target("m=anon,pages=64,fill=1")
    low, _ = made.ranges["m"]
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        registered = witness.registered(made.pid)
        monkeypatch.setattr("pagescan.tracking.arm.most_mappings", lambda: 1)
        for turn in range(5):
            made.write("m", {turn})
            made.tell("brk 4")
            made.write("brk", {0, 1})
            look = tracking.look(rearm=True)
            found = {(page.start - low) // witness.PAGE for page in look.batch.pages()}
            assert {page for page in found if 0 <= page < 64} == {turn}
            (said,) = [item for item in look.untracked if item.mapping == "[heap]"]
            assert "vm.max_map_count" in said.why
            assert said.end - said.start >= 4 * (turn + 1) * witness.PAGE
        assert witness.registered(made.pid) == registered


def test_mappings_added_is_said(armed: Start, pagescan: Run) -> None:
    """Commands that start or end tracking report it; others do not."""
    made = armed("m=anon,pages=64,fill=1")
    before = mappings_in(made.pid)
    made.tell("brk 4")
    made.write("brk", {0})
    look = pagescan("diff", made.pid, "--json").json()
    assert look["cost"]["mappings_added"] is None
    look = pagescan("diff", made.pid, "--json", "--rearm").json()
    assert look["cost"]["mappings_added"] == mappings_in(made.pid) - before > 0
    assert pagescan("scan", made.pid, "--json").json()["cost"]["mappings_added"] is None
    (ended,) = pagescan("disarm", made.pid, "--json").json()["sessions"]
    assert ended["cost"]["mappings_added"] == mappings_in(made.pid) - before


@pytest.mark.parametrize("grows", [True, False])
def test_the_end_of_watch_says_what_stays(
    target: Start, pagescan: Run, grows: bool
) -> None:
    """The last document has the number, and a message if it is not 0."""
    made = target("m=anon,pages=64,fill=1")
    before = mappings_in(made.pid)
    words = ["watch", str(made.pid), "-i", "0.2", "-n", "3", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "pagescan", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        if grows:
            made.tell("brk 4")
            made.write("brk", {0, 3})
        out, said = watch.communicate(timeout=60)
    last = checked(out.splitlines()[-1])
    stays = mappings_in(made.pid) - before
    assert stays == grows
    assert last["end"] == "count"
    assert last["cost"]["mappings_added"] == stays
    assert ("tracking left 1 more mapping" in said) is grows


def test_selection_that_is_cut_adds_mappings(target: Start) -> None:
    """A range within a mapping adds two borders."""
    made = target("m=anon,pages=64,fill=1")
    low, _ = made.ranges["m"]
    before = mappings_in(made.pid)
    words = [f"{low + (16 << 12)}-{low + (32 << 12)}"]
    with (
        Process.open(made.pid) as process,
        Tracking.start(process, Selection.parse(words)) as tracking,
    ):
        assert mappings_in(made.pid) - before == 2
        assert tracking.cost.mappings_added == 2
    assert mappings_in(made.pid) == before
