"""Measures what `report` takes for a busy day: its processor time beside a plain read.

The day has a look per second. Each look finds 480 regions of one page, at random places
in 24 mappings of 256 MiB: the worst case for packing, joining and drawing.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import random
import sys
from array import array
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.measure import PAGE, Bench, in_turn, run_checked, scratch
from pagescan.model.batch import Batch
from pagescan.model.looks import Look
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Mapping
from pagescan.model.results import Cost, TargetFacts
from pagescan.native import Columns
from pagescan.recording.output_file import OutputFile
from pagescan.recording.records import RecordingFacts

_BEGUN = datetime(2026, 1, 2, tzinfo=UTC)
_DAY, _HOUR = 86_400, 3600
_MAPPINGS, _PAGES, _WRITTEN = 24, 65_536, 20
_PATTERNS = 1000  # looks that are made: the day repeats them
_BASE = "sqlite3 and zlib read the regions"
_ANSWERS = {
    "summary": ("report", []),
    "timeline": ("report --view timeline", ["--view", "timeline"]),
    "heatmap": ("report --view heatmap", ["--view", "heatmap"]),
    "ages": ("report --view ages", ["--view", "ages"]),
    "working-set": ("report --view working-set", ["--view", "working-set"]),
    "migration": ("report --view migration", ["--view", "migration"]),
    "page": ("report --html", ["--html", "{folder}/day.html"]),
    "diff": ("diff DAY DAY", ["{day}"]),
}


def run(bench: Bench) -> None:
    """Make the recording, and ask it."""
    looks = _HOUR if bench.quick else _DAY
    folder = scratch()
    day = folder / "day.pagescan"
    _make(day, looks)
    plain = [sys.executable, "-c", _PLAIN, str(day)]
    for key, (what, words) in _ANSWERS.items():
        command = [sys.executable, "-m", "pagescan", what.split()[0], str(day)]
        command += [word.format(folder=folder, day=day) for word in words]

        def ours(command: list[str] = command) -> float:
            return run_checked(command).cpu

        def base() -> float:
            return run_checked(plain).cpu

        found = in_turn(bench.rounds(3, 1), {"ours": ours, "plain": base})
        bench.add(
            f"recordings.{key}",
            f"{what}, {looks:,} looks: processor time",
            found["ours"],
            "s",
            against=_BASE,
            base=found["plain"],
        )
    bench.add(
        "recordings.page.bytes", "its page", (folder / "day.html").stat().st_size, "B"
    )


_PLAIN = """
import sqlite3, sys, zlib
rows = sqlite3.connect(sys.argv[1]).execute("SELECT written FROM looks")
print(sum(len(zlib.decompress(packed)) for packed, in rows))
"""


def _make(path: Path, looks: int) -> None:
    """Write the recording."""
    facts = RecordingFacts("0", "6.18.0", "host", _BEGUN, 1.0)
    rolled = random.Random(1)
    mappings = MappingSet(
        Mapping(start, start + _PAGES * PAGE, "rw-p", 0, (0, 0), 0, name)
        for start, name in (
            (0x7F00_0000_0000 + (at << 30), f"/lib/{at}.so" if at % 2 else "")
            for at in range(_MAPPINGS)
        )
    )
    patterns = [_look(mappings, rolled) for _ in range(min(looks, _PATTERNS))]
    file = OutputFile(str(path), facts)
    target = TargetFacts(4242, "worker", None, 777, PAGE)
    file.add_process(
        0, target, {"armed_at": _BEGUN, "tracked_bytes": 0, "stopped_ns": 0}
    )
    for number in range(1, looks + 1):
        time = _BEGUN + timedelta(seconds=number)
        look = replace(patterns[number % len(patterns)], time=time)
        file.add(0, number, 1.0, look, resident=1 << 32)
    file.close("interrupted")


def _look(mappings: MappingSet, rolled: random.Random) -> Look:
    starts = array("Q")
    for one in mappings:
        first = one.start + rolled.randrange(_PAGES - 4000) * PAGE
        pages = sorted(rolled.sample(range(0, 4000, 2), _WRITTEN))
        starts.extend(first + page * PAGE for page in pages)
    ends = array("Q", (start + PAGE for start in starts))
    columns = Columns(starts, ends, array("Q", [10]) * len(starts))
    batch = Batch.join(columns, mappings, page_size=PAGE, new=frozenset())
    return Look(batch, (), _BEGUN, Cost(scan_ns=1000, ioctls=3, target_share=0.01))
