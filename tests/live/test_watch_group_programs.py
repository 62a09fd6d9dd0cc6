"""`watch`, `maps`, `scan` of servers and cgroups: nothing ends, no sum is wrong."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import servers, witness
from tests.conftest import Target, command
from tests.live.test_group_selectors import ID, MARK, hierarchies
from tests.live.test_watch_group import Watching, process_in, watching

__all__ = ["hierarchies", "watching"]

pytestmark = pytest.mark.needs("tracking")

Start = Callable[..., Target]
Watch = Callable[..., Watching]
HEAP = "[heap]"  # private to each process


def check_sums(group: Iterable[object], pids: set[int], words: str = HEAP) -> None:
    """Stop a group, and compare the sum with what each member has alone."""
    with contextlib.ExitStack() as still:
        for pid in pids:
            still.enter_context(witness.stopped(pid))
        for verb, *options in (("maps",), ("scan", "--require", "present")):
            rows = "mappings" if verb == "maps" else "regions"
            whole = command(verb, *group, words, *options, "--json").json()
            assert {item["target"]["pid"] for item in whole["processes"]} == pids
            pages = present = 0
            for pid in pids:
                alone = command(verb, pid, words, *options, "--json").json()
                own = [row for row in whole[rows] if row["pid"] == pid]
                assert own == [{**row, "pid": pid} for row in alone[rows]]
                pages += alone["summary"]["pages"]
                present += alone["summary"]["categories"]["present"]
                bounds = (
                    (int(row["start"], 16), int(row["end"], 16)) for row in alone[rows]
                )
                seen = sum(len(witness.present(pid, *bound)) for bound in bounds)
                assert alone["summary"]["categories"]["present"] == seen
            assert whole["summary"]["pages"] == pages > 0
            assert whole["summary"]["categories"]["present"] == present


def check_watched(watch: Watching) -> Any:
    """End it; compare the sums in all lines with the rows, and return the last line."""
    last = watch.end()
    totals: dict[int, int] = {}
    for line in watch.lines:
        pages = 0
        for process in line["processes"]:
            pid, own = process["target"]["pid"], process["summary"]["pages"]
            assert own == sum(
                (int(row["end"], 16) - int(row["start"], 16)) // 4096
                for row in line["regions"]
                if row["pid"] == pid
            )
            totals[pid] = totals.get(pid, 0) + own
            assert process["totals"]["pages"] == totals[pid]
            pages += own
        assert line["summary"]["pages"] == pages  # of memory that is not shared
    assert last["totals"]["pages"] == sum(totals.values())
    return last


def all_tracked(*pids: int) -> Callable[[Any], bool]:
    """Return whether a line has all these processes, each tracked."""
    return lambda line: all(
        (process_in(line, pid) or {}).get("joined_at") for pid in pids
    )


# ---- servers -----------------------------------------------------------------------


@pytest.mark.needs("postgres")
def test_postgres_under_pgbench(watching: Watch) -> None:
    """Backends come, write and go; no transaction fails, and every sum is right."""
    with servers.postgres(2) as (pid, load):
        check_sums(("--tree", pid), {pid, *servers.children(pid)})
        watch = watching("--tree", pid, HEAP, "-i", "0.2")
        watch.until(all_tracked(pid, *servers.children(pid)))
        before = set(servers.children(pid))
        bench = subprocess.Popen(
            load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        watch.until(lambda line: len(line["processes"]) >= len(before) + 5)
        output, _ = bench.communicate(timeout=60 * witness.PATIENCE)
        assert bench.returncode == 0, output
        assert "number of failed transactions: 0" in output
        watch.until(lambda line: line["gone"] >= 4)
        last = check_watched(watch)
        assert last["end"] == "interrupted"
        assert last["totals"]["pages"] > 0
        labels = {item["label"] for line in watch.lines for item in line["processes"]}
        assert any("checkpointer" in label for label in labels if label)
        of_one: dict[int, set[str]] = {}
        for item in [item for line in watch.lines for item in line["processes"]]:
            of_one.setdefault(item["target"]["pid"], set()).update(
                {item["label"]} - {None}
            )
        assert max(map(len, of_one.values())) == 1, of_one
        backends = {
            item["target"]["pid"]
            for line in watch.lines
            for item in line["processes"]
            if item["end"] == "exited"
        }
        assert len(backends - before) >= 4
        assert all(not witness.registered(one) for one in servers.children(pid))


@pytest.mark.needs("nginx", "root")
def test_nginx_and_its_workers(watching: Watch, tmp_path: Path) -> None:
    """A reload replaces all workers: the old ones are gone, the new ones tracked."""
    with servers.nginx(tmp_path) as (pid, port):
        old = servers.children(pid)
        check_sums(("--tree", pid), {pid, *old})
        watch = watching("--tree", pid, HEAP, "-i", "0.2")
        watch.until(all_tracked(pid, *old))
        servers.load(port, 30)
        os.kill(pid, signal.SIGHUP)
        watch.until(lambda line: line["gone"] >= 3)
        new = servers.children(pid)
        assert len(new) == 3
        assert not new & old
        watch.until(all_tracked(pid, *new))
        servers.load(port, 30)
        last = check_watched(watch)
        assert last["totals"]["pages"] > 0
        assert servers.serves(port)


@pytest.mark.needs("gunicorn")
def test_gunicorn_and_its_workers(watching: Watch, tmp_path: Path) -> None:
    """A worker is killed: it is gone, its successor is tracked, requests go on."""
    with servers.gunicorn(tmp_path) as (pid, port):
        before = servers.children(pid)
        check_sums(("--tree", pid), {pid, *before})
        watch = watching("--tree", pid, HEAP, "-i", "0.2")
        watch.until(all_tracked(pid, *before))
        servers.load(port, 10)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        line = watch.until(lambda line: line["gone"])
        assert process_in(line, victim)["end"] == "exited"
        witness.wait_for(lambda: servers.children(pid) - before, 60)
        (new,) = servers.children(pid) - before
        watch.until(all_tracked(pid, new))
        servers.load(port, 10)
        last = check_watched(watch)
        assert process_in(last, new)["totals"]["pages"] > 0
        assert process_in(last, pid)["label"].endswith(" (parent)")
        assert process_in(last, new)["label"] is None
        assert servers.serves(port)


# ---- cgroups -----------------------------------------------------------------------


@pytest.mark.needs("root")
def test_a_cgroup_of_each_version(
    target: Start, watching: Watch, hierarchies: Callable[[str], list[Path]]
) -> None:
    """By cgroup, by unit, by container: a member in each hierarchy that is here."""
    name = f"web.service/docker-{ID}.scope"
    folders = hierarchies(name)
    made = [target("m=anon,pages=60,fill=1") for _ in folders]
    for folder, one in zip(folders, made, strict=True):
        (folder / "cgroup.procs").write_text(str(one.pid))
    ranges = {one.pid: one.ranges["m"] for one in made}
    for group in (
        ("--cgroup", f"/{MARK}"),
        ("--unit", "web"),
        ("--container", ID[:12]),
    ):
        check_sums(group, set(ranges), "[anon]")
        watch = watching(*group, "[anon]", "-i", "0.1")
        watch.until(all_tracked(*ranges))
        for index, one in enumerate(made):
            one.tell(f"write m {index}-{20 + index}")

        def found(_: object, watch: Watching = watch) -> bool:
            return all(
                watch.pages_of(one, "m") == set(range(index, 21 + index))
                for index, one in enumerate(made)
            )

        watch.until(found)
        check_watched(watch)


@pytest.mark.needs("root")
def test_a_member_that_leaves_its_cgroup(
    target: Start, watching: Watch, hierarchies: Callable[[str], list[Path]]
) -> None:
    """It is let go within ten seconds, and is not said to have ended."""
    (folder, *_) = hierarchies("web.service")
    stays, leaves = (target("m=anon,pages=20,fill=1") for _ in range(2))
    for one in (stays, leaves):
        (folder / "cgroup.procs").write_text(str(one.pid))
    watch = watching("--unit", "web", "[anon]", "-i", "0.2")
    watch.until(all_tracked(stays.pid, leaves.pid))
    (folder.parents[1] / "cgroup.procs").write_text(str(leaves.pid))
    line = watch.until(lambda line: line["gone"])
    assert process_in(line, leaves.pid)["end"] == "left"
    assert not witness.registered(leaves.pid)
    stays.write("m", {3})
    watch.until(lambda _: watch.pages_of(stays, "m") == {3})
    check_watched(watch)
