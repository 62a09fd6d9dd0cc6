"""A group of idle processes: what it does not write is not stored, nor missing."""

import functools
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagescan.model.groups import GroupFacts, GroupTick, MemberLook, ProcessFacts
from pagescan.model.mapping_set import MappingSet
from pagescan.model.results import Cost, Summary
from pagescan.recording import programs, recorder, store, views
from pagescan.recording.excerpt import Excerpt
from pagescan.recording.page_contents import page_contents
from pagescan.recording.quiet_looks import with_quiet_looks
from pagescan.recording.recorder import Keeping, Recorder
from pagescan.recording.store import open_recording
from pagescan.render.report_json import value_of
from tests.synthetic import BEGUN, PAGE, TARGET, look_of, mapping

MAPPINGS = MappingSet([mapping(0x5555_0000_0000, 100, "[heap]")])
PROCESSES, TICKS = 40, 200
IDLE = Cost(scan_ns=1000, max_wait_ns=70, ioctls=3, pages_walked=5)


class NoLabels:
    """Labels nothing."""

    def __init__(self, _: object) -> None:
        """Take a target."""

    def cover(self, _: object) -> dict[int, str]:
        return {}


def tracking_of(number: int) -> Any:
    facts = TARGET._replace(pid=1000 + number, start_time=number)
    return SimpleNamespace(
        target=SimpleNamespace(facts=facts, pid=facts.pid),
        armed_at=BEGUN,
        armed=SimpleNamespace(tracked_bytes=1 << 20),
        cost=Cost(stopped_ns=1000),
    )


def look_at(number: int, tick: int) -> Any:
    """Return the look at a process in a tick; None: it has not run.

    Process 0 writes at every seventh tick; the others never do, and are looked at every
    tenth tick all the same, as `WatchedMember` does.
    """
    writes = number == 0 and tick % 7 == 3
    if not writes and tick != 1 and (tick + number) % 10:
        return None
    pages = [MAPPINGS[0].start + PAGE * at for at in range(tick % 5 + 1)]
    look = look_of(pages if writes else [], MAPPINGS, second=float(tick))
    return look if writes or tick == 1 else replace(look, cost=IDLE)


def record(path: Path, look: Callable[[int, int], Any] = look_at) -> None:
    """Record all ticks."""
    made = Recorder(
        Keeping(str(path)), None, interval=1.0, group=GroupFacts("match", "x")
    )
    trackings = {(1000 + at, at): tracking_of(at) for at in range(PROCESSES)}
    made.meet(trackings)
    for tick in range(1, TICKS + 1):
        members = tuple(
            MemberLook(
                ProcessFacts(one.target.facts, None, Summary.none()),
                look(number, tick),
            )
            for number, one in enumerate(trackings.values())
        )
        moment = BEGUN + timedelta(seconds=tick)
        made.add_group(
            GroupTick(
                *(tick, members, moment, moment, 1.0, Summary.none(), Summary.none()),
                *((), Cost(), None, 0, 0, BEGUN),
            ),
            trackings,
        )
    made.end("count")


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as file:
        return int(file.execute("SELECT count(*) FROM looks").fetchone()[0])


def answers(path: Path) -> dict[str, Any]:
    """Return all that the views and the page say."""
    with open_recording(str(path)) as recording:
        excerpt = Excerpt(recording)
        names = ("summary", "timeline", "heatmap", "ages", "working_set", "phases")
        found = {
            name: value_of(getattr(views, name)(excerpt))
            for name in (*names, "migration", "processes", "mappings")
        }
        found["summary"].pop("recorder_ns")
        found["page"] = sorted(
            (one.to_ns, one.process, one.pages, one.resident, list(one.counts))
            for one in page_contents(excerpt).looks
        )
        assert recording.damage == []
        return found


@pytest.fixture
def resident(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """The resident bytes of processes; others have a megabyte."""
    sizes: dict[int, int] = {}
    for module in (programs, recorder):
        monkeypatch.setattr(
            module, "resident_bytes", lambda pid: sizes.get(pid, 1 << 20)
        )
    monkeypatch.setattr(recorder, "Labels", NoLabels)
    return sizes


def test_answers_are_those_of_all_looks(
    resident: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row per tick is stored, and not one per look at an idle process."""
    few, all_ = tmp_path / "few.pagescan", tmp_path / "all.pagescan"
    record(few)
    monkeypatch.setattr(programs.Program, "is_quiet", lambda *_: False)
    record(all_)
    assert rows(few) == TICKS + PROCESSES - 1  # each has its first look
    assert rows(all_) > 3 * rows(few)
    assert os.path.getsize(few) < 0.6 * os.path.getsize(all_)
    assert answers(few) == answers(all_)


def test_what_is_not_quiet_is_stored(resident: dict[int, int], tmp_path: Path) -> None:
    """A process whose memory another one has changed has a look of its own."""
    path = tmp_path / "a.pagescan"

    def look(number: int, tick: int) -> Any:
        if tick == 100:
            resident[1005] = 1 << 19
        return look_at(number, tick)

    record(path, look)
    with open_recording(str(path)) as recording:
        sizes = [
            look.resident
            for look in recording.looks
            if recording.processes[look.process].target.pid == 1005
        ]
    assert sizes == [1 << 20] * 104 + [1 << 19] * 96


def test_a_large_group_fits_into_memory(
    resident: dict[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number of empty looks each stands for several; only counts differ."""
    path = tmp_path / "a.pagescan"
    record(path)
    whole = answers(path)
    few = functools.partial(with_quiet_looks, most=500)
    monkeypatch.setattr(store, "with_quiet_looks", few)
    with open_recording(str(path)) as recording:
        step = recording.quiet_step
        assert step == -(-(PROCESSES * TICKS - rows(path)) // 500)
        assert len(recording.looks) < rows(path) + 1.1 * 500 + TICKS
        times = Counter[int]()
        for look in recording.looks:
            times[look.process] += look.interval_ns
        assert set(times.values()) == {TICKS * 10**9}
    found = answers(path)
    same = ("mappings", "working_set", "migration", "processes")
    for name in same:
        assert found[name] == whole[name], name
    for key, value in whole["summary"].items():
        if key not in ("looks", "timeline", "phases"):
            assert found["summary"][key] == value, key
    for one, other in zip(found["timeline"], whole["timeline"], strict=True):
        assert {**one, "looks": 0} == {**other, "looks": 0}
