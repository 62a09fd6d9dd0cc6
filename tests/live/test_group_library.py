"""The library functions for groups: the same results as the commands."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import pagescan
from tests import witness
from tests.conftest import Target, command

pytestmark = [pytest.mark.needs("tracking")]

Start = Callable[..., Target]


def found_in(made: Target, regions: list[tuple[int, pagescan.Region]]) -> set[int]:
    """Return the pages of a member's range "m" that are in a result."""
    low, high = made.ranges["m"]
    return {
        (address - low) // witness.PAGE
        for pid, region in regions
        if pid == made.pid
        for address in range(region.start, region.end, witness.PAGE)
        if low <= address < high
    }


def test_looks_at_a_tracked_group(target: Start, mkmem: Path) -> None:
    """Each look has exactly what each member wrote; who comes is tracked next time."""
    targets = [target("m=anon,pages=100,fill=1") for _ in range(3)]
    with pagescan.track_group(pagescan.Match(str(mkmem))) as tracking:
        for number in range(2):
            for index, made in enumerate(targets):
                made.write("m", {number, 10 * index + 20})
            look = tracking.look()
            regions = list(look.regions())
            for made in targets:
                assert found_in(made, regions) == made.expected.pop("m", set())
            assert look.number == number + 1
            assert look.untracked == ()
            each = [facts.summary.pages for facts, _ in look.members]
            assert look.summary.pages == sum(each)
        targets.append(target("m=anon,pages=100,fill=1"))
        assert len(tracking.look().members) == 4
        targets[3].write("m", {5})
        targets[0].write("m", {6})
        regions = list(tracking.written())
        assert found_in(targets[3], regions) == {5}
        assert found_in(targets[0], regions) == {6}
    assert not any(witness.registered(made.pid) for made in targets)
    assert not any(one["watches"] for one in [command("sessions", "--json").json()])
    tracking.close()  # a second time


def test_a_closed_tracking_arms_nothing(target: Start) -> None:
    """A look after the end is refused, of a group and of one process."""
    made = target("m=anon,pages=4,fill=1")
    tree = pagescan.Tree.of(made.pid)
    with pagescan.track_group(tree) as tracking:
        assert repr(tracking) == f"<GroupTracking of tree {made.pid}: 1 member>"
    assert repr(tracking) == f"<GroupTracking of tree {made.pid}: closed>"
    for call in (tracking.look, tracking.written):
        with pytest.raises(pagescan.UsageError, match="of this group is closed"):
            call()
    assert not witness.registered(made.pid)
    with pagescan.track(made.pid) as alone:
        assert repr(alone).startswith(f"<Tracking of {made.pid} (mkmem): since 20")
    assert repr(alone) == f"<Tracking of {made.pid} (mkmem): closed>"
    for also in (alone.look, alone.written):
        with pytest.raises(pagescan.UsageError, match=rf"of {made.pid} .* is closed"):
            also()
    assert not witness.registered(made.pid)


def test_a_range_is_a_string(target: Start) -> None:
    """One string is one RANGE and not a list of letters; others are refused."""
    made = target("m=anon,pages=4,fill=1")
    low, high = made.ranges["m"]
    where = f"{low:#x}-{high:#x}"
    batch = pagescan.scan(made.pid, where)
    assert list(batch.starts) == list(pagescan.scan(made.pid, [where]).starts) == [low]
    with pytest.raises(pagescan.UsageError, match="is no string"):
        pagescan.scan(made.pid, [pagescan.Range(low, high)])  # type: ignore[list-item]


def test_scan_and_maps_are_those_of_the_commands(target: Start, mkmem: Path) -> None:
    """The parts and the sum are what the commands print."""
    targets = [target("m=anon,pages=100,fill=1") for _ in range(3)]
    group = pagescan.Match(str(mkmem))
    query = pagescan.Query(require=pagescan.Category.PRESENT)
    with contextlib.ExitStack() as still:
        for made in targets:
            still.enter_context(witness.stopped(made.pid))
        scanned = pagescan.scan_group(group, ["[anon]"], query)
        listed = pagescan.maps_group(group, ["[anon]"])
        words = ("--match", group.name, "[anon]", "--json")
        printed = command("scan", *words, "--require", "present").json()
        table = command("maps", *words).json()
    assert scanned.summary.pages == printed["summary"]["pages"]
    assert len(list(scanned.regions())) == len(printed["regions"])
    assert str(scanned.group) == f"match {mkmem}"
    assert [facts.target.pid for facts, _ in scanned.parts] == [
        made.pid for made in targets
    ]
    assert listed.summary.categories == table["summary"]["categories"]
    assert sum(len(rows) for _, rows in listed.parts) == len(table["mappings"])


def test_a_session_of_a_group(target: Start, mkmem: Path) -> None:
    """The functions and the commands use the same session."""
    made = target("m=anon,pages=100,fill=1")
    group = pagescan.Match(str(mkmem))
    armed = pagescan.start_group_session(group)
    assert [facts.target.pid for facts, _ in armed.members] == [made.pid]
    assert armed.tracked_bytes > 100 * witness.PAGE
    with pytest.raises(pagescan.SessionError, match="is tracked already"):
        pagescan.start_group_session(group)
    (listed,) = pagescan.sessions()
    assert listed.group is not None
    assert listed.group.kind == "match"
    made.write("m", {1, 2})
    look = pagescan.look_at_group_session(group, rearm=True)
    assert found_in(made, list(look.regions())) == {1, 2}
    assert command("diff", "--match", group.name).code == 0
    pagescan.end_group_session(group)
    with pytest.raises(pagescan.SessionError, match="no session of match"):
        pagescan.look_at_group_session(group)


def test_a_tree_by_its_name(mkmem: Path, tmp_path: Path) -> None:
    """A name is the root's, as everywhere; a group without a process is an error."""
    only = tmp_path / f"only{os.getpid()}"
    shutil.copy(mkmem, only)
    with subprocess.Popen(
        [only, "m=anon,pages=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert pagescan.Tree.of(only.name).pid == process.pid
        process.kill()
    with pytest.raises(pagescan.NoSuchTargetError, match="no process is named"):
        pagescan.Tree.of("no-such-name")
    for function in (pagescan.scan_group, pagescan.maps_group, pagescan.track_group):
        with pytest.raises(pagescan.NoSuchTargetError, match="no process in unit"):
            function(pagescan.Unit("no-such-unit"))
