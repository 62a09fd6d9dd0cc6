"""The state that the scanner keeps between looks, and interruptions of its work."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from pagescan import Category, Query
from pagescan.model.mapping_set import MappingSet
from pagescan.native import Columns, scan as native_scan
from pagescan.scanner.protect import protect
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps as mappings
from pagescan.target.process import Target as Process
from pagescan.tracking.tracking import Tracking
from tests.conftest import Target, command

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
PAGES = 20_400
STORED = set(range(0, PAGES, 34))  # more regions than the initial room


def regions_in(tracking: Tracking, made: Target) -> int:
    low, high = made.ranges["m"]
    return sum(low <= start < high for start in tracking.look().batch.starts)


def test_two_threads_look_at_once(target: Start) -> None:
    """Each scan has its own cursors and its own room."""
    made = target(f"m=anon,pages={PAGES},fill=1")
    found: Counter[int] = Counter()
    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        made.write("m", STORED)

        def look() -> None:
            for _ in range(100):
                found[regions_in(tracking, made)] += 1

        both = [threading.Thread(target=look) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
    assert found == {len(STORED): 200}


def test_what_was_interrupted_is_not_used_again(
    target: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come while the shim's rows are only half replaced."""
    made = target(f"m=anon,pages={PAGES},fill=1")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Process.open(made.pid) as process, Tracking.start(process) as tracking:
        assert regions_in(tracking, made) == 0
        before = list(tracking.mappings.trackable().scans.values())
        assert len(before) == 2  # the scans for new and for written pages
        made.write("m", STORED)
        with monkeypatch.context() as patch:
            patch.setattr(native_scan, "_make_room", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tracking.look()
        left = list(tracking.mappings.trackable().scans.values())
        assert len(left) == 1
        assert left[0] in before
        assert regions_in(tracking, made) == len(STORED)
        assert left[0] in tracking.mappings.trackable().scans.values()


@pytest.mark.parametrize("written_before", [set(), {3}])
def test_written_between_listing_and_protecting(
    target: Start, monkeypatch: pytest.MonkeyPatch, written_before: set[int]
) -> None:
    """A page that matches before and after is returned, whatever the others are."""
    made = target("m=anon,pages=256,fill=1")
    low, high = made.ranges["m"]
    with Process.open(made.pid) as process, Tracking.start(process):
        scanner = Scanner(process)
        scan_ranges = scanner.scan_ranges
        made.write("m", written_before)

        def disturbed(*args: Any, **kwargs: Any) -> Columns:
            found = scan_ranges(*args, **kwargs)
            monkeypatch.setattr(scanner, "scan_ranges", scan_ranges)
            made.write("m", {100})
            return found

        monkeypatch.setattr(scanner, "scan_ranges", disturbed)
        there = [one for one in mappings.read(process) if low <= one.start < high]
        found = protect(scanner, MappingSet(there), Query(require=Category.PRESENT))
        assert sum(found.ends) - sum(found.starts) >= high - low
        written = {
            (start - low) // 4096
            for start, bits in zip(found.starts, found.categories, strict=True)
            if bits & Category.WRITTEN
        }
        assert written == written_before | {100}


SPARSE = """
import mmap, sys
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000  # MAP_NORESERVE
memory = mmap.mmap(-1, 1 << 40, flags=flags)
memory[1 << 39] = 1
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stall", [(), ("--max-stall", "66us"), ("--max-stall", "1ms")])
def test_a_sparse_mapping_takes_few_calls(stall: tuple[str, ...]) -> None:
    """Slices grow in 1 TiB that is next to empty, whatever the limit of a call."""
    words = [sys.executable, "-c", SPARSE]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        found = command("scan", process.pid, "--require", "present", "--json", *stall)
        process.kill()
    cost = found.json()["cost"]
    assert cost["pages_walked"] > 1 << 28
    # Slices as long as the first would make 131,072 calls, with a shorter one for each
    # time that a slow machine interrupts it.
    assert cost["ioctls"] < 100_000
