"""`pagescan exporter` beside Prometheus, PostgreSQL, servers, and in cgroups."""

import contextlib
import json
import os
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import servers, witness
from tests.conftest import Target
from tests.exporting import Exporter, exporting, prometheus, value, values
from tests.servers import NAME

pytestmark = pytest.mark.needs("prometheus_client")

Start = Callable[..., Target]
SHARE = Path(__file__).parents[2] / "share"
CONTAINER = "0123456789abcdef" * 4
POD = "01234567-89ab-cdef-0123-456789abcdef"


def ask(port: int, path: str, **query: str) -> Any:
    """Return the answer of Prometheus' API, or None while it does not answer."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(url, timeout=60) as answer,
    ):
        return json.load(answer)["data"]
    return None


def result(port: int, query: str) -> list[Any]:
    """Return the rows of a query."""
    data = ask(port, "query", query=query)
    return list(data["result"]) if data else []


# ---- Prometheus --------------------------------------------------------------------


@pytest.mark.needs("prometheus", "yaml", "bcrypt")
def test_prometheus(target: Start, tmp_path: Path) -> None:
    """Two jobs scrape at once, one lacks the password; every panel has an answer."""
    import bcrypt

    config = tmp_path / "web.yml"
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    config.write_text(f"basic_auth_users: {{ann: {hashed}}}\n")
    made = target("m=shmem,pages=100,fill=1")
    words = ("--tree", made.pid, "--track", "-i", "0.2", "--web-config", config)
    with exporting(*words) as exporter:
        where = f"static_configs: [{{targets: ['127.0.0.1:{exporter.port}']}}]"
        auth = "basic_auth: {username: ann, password: secret}"
        jobs = [f"- {{job_name: {name}, {where}, {auth}}}\n" for name in ("one", "two")]
        jobs.append(f"- {{job_name: none, {where}}}\n")
        with prometheus(tmp_path, *jobs) as port:
            witness.wait_for(lambda: len(result(port, "pagescan_up == 1")) == 2, 60)
            made.tell("write m 0-99")
            total = 'pagescan_written_bytes_total{kind="shmem"}'
            witness.wait_for(
                lambda: (
                    [row["value"][1] for row in result(port, total) if row["value"]]
                    == [str(100 * 4096)] * 2
                ),
                60,
            )
            targets = ask(port, "targets")["activeTargets"]
            health = {row["labels"]["job"]: row["health"] for row in targets}
            assert health == {"one": "up", "two": "up", "none": "down"}
            rules = ask(port, "rules")["groups"][0]["rules"]
            witness.wait_for(lambda: _evaluated(port), 60)
            assert len(rules) >= 6
            _check_panels(port)


def _evaluated(port: int) -> bool:
    rules = ask(port, "rules")["groups"][0]["rules"]
    return all(rule["health"] == "ok" for rule in rules)


def _check_panels(port: int) -> None:
    """Ask what the dashboard asks; where there is no swap, that panel is empty."""
    board = json.loads((SHARE / "pagescan-dashboard.json").read_text())
    for panel in board["panels"]:
        for one in panel.get("targets", ()):
            query = one["expr"].replace("$__rate_interval", "1m")
            for name in ("job", "instance", "group"):
                query = query.replace(f"${name}", ".*")
            may_be_empty = "swapped" in query or "untracked" in query
            if not may_be_empty:
                witness.wait_for(partial(result, port, query), 60)
            assert ask(port, "query", query=query) is not None, query


# ---- servers -----------------------------------------------------------------------


@pytest.mark.needs("postgres")
def test_postgres_under_pgbench() -> None:
    """Its backends come and go, shared buffers count once, no transaction fails."""
    with (
        servers.postgres(3) as (pid, load),
        exporting("--tree", pid, "--track", "-i", "0.2") as exporter,
    ):
        witness.wait_for(lambda: exporter.ticks() > 1, 60)
        idle = exporter.scrape()
        bench = subprocess.Popen(
            load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        processes = value(idle, "pagescan_processes")
        witness.wait_for(
            lambda: value(exporter.scrape(), "pagescan_processes") > processes, 60
        )
        busy = exporter.scrape()
        output, _ = bench.communicate(timeout=120)
        assert bench.returncode == 0, output
        assert "number of failed transactions: 0" in output
        last = exporter.ticks() + 2
        witness.wait_for(lambda: exporter.ticks() > last, 60)
        after = exporter.scrape()
        name = "pagescan_written_bytes_total"
        assert value(after, name, kind="shmem") > value(idle, name, kind="shmem")
        shared = values(busy, "pagescan_memory_bytes", kind="shmem")
        assert 0 < sum(shared) < 80 << 20  # 32 MiB of buffers, and some MiB beside them
        assert value(after, "pagescan_unread_processes") == 0
        assert value(after, "pagescan_processes") <= value(busy, "pagescan_processes")


def _wait_for_workers(exporter: Exporter, least: int) -> None:
    witness.wait_for(
        lambda: value(exporter.scrape(), "pagescan_processes") >= least, 60
    )
    last = exporter.ticks() + 1
    witness.wait_for(lambda: exporter.ticks() > last, 60)


@pytest.mark.needs("nginx", "root")
def test_nginx_and_its_workers(tmp_path: Path) -> None:
    """Requests are answered while it is tracked, also after a reload."""
    with servers.nginx(tmp_path) as (pid, port):
        with exporting("--tree", pid, "--track", "-i", "0.2") as exporter:
            _wait_for_workers(exporter, 4)
            servers.load(port, 50)
            os.kill(pid, signal.SIGHUP)
            servers.load(port, 50)
            _wait_for_workers(exporter, 4)
            samples = exporter.scrape()
            assert sum(values(samples, "pagescan_written_bytes_total")) > 0
            assert value(samples, "pagescan_unread_processes") == 0
        assert servers.serves(port)


@pytest.mark.needs("gunicorn")
def test_gunicorn_and_its_workers(tmp_path: Path) -> None:
    """A killed worker is replaced; the new one is attached at the next tick."""
    with servers.gunicorn(tmp_path) as (pid, port):
        with exporting("--tree", pid, "--track", "-i", "0.2") as exporter:
            _wait_for_workers(exporter, 4)
            servers.load(port, 50)
            before = servers.children(pid)
            os.kill(min(before), signal.SIGKILL)
            witness.wait_for(lambda: servers.children(pid) - before, 60)
            (new,) = servers.children(pid) - before
            witness.wait_for(lambda: witness.registered(new), 60)
            servers.load(port, 50)
            assert value(exporter.scrape(), "pagescan_unread_processes") == 0
        assert servers.serves(port)


# ---- cgroups -----------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Make cgroups below one of the test's own; all are removed at the end."""
    top = tmp_path / "unified"
    top.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(top)], check=True)
    made: list[Path] = []

    def make(path: str) -> Path:
        folder = top / NAME
        for name in ("", *path.split("/")):
            folder = folder / name
            if folder not in made:
                folder.mkdir()
                made.append(folder)
        return folder

    try:
        yield make
    finally:
        for folder in reversed(made):
            for pid in (folder / "cgroup.procs").read_text().split():
                (top / "cgroup.procs").write_text(pid)
            folder.rmdir()
        subprocess.run(["umount", "-l", str(top)], check=True)


@pytest.mark.needs("root")
def test_groups_by_cgroup(target: Start, tree: Callable[[str], Path]) -> None:
    """By unit, by cgroup and by container, with the labels that the path tells."""
    slices = f"kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice"
    folders = [
        f"{slices}/cri-containerd-{CONTAINER}.scope",
        "system.slice/web.service",
    ]
    pids = []
    for folder in folders:
        made = target("m=anon,pages=10,fill=1")
        (tree(folder) / "cgroup.procs").write_text(str(made.pid))
        pids.append(made.pid)
    top = ("--cgroup", f"/{NAME}")
    with exporting(*top, "--by", "container") as exporter:
        samples = exporter.scrape()
        labels = {"container_id": CONTAINER, "pod_uid": POD, "group": CONTAINER[:12]}
        assert value(samples, "pagescan_processes", **labels) == 1
        assert value(samples, "pagescan_processes", group="other") == 1
    with exporting(*top, "--by", "unit") as exporter:
        samples = exporter.scrape()
        assert value(samples, "pagescan_processes", group="web.service") == 1
    with exporting(*top, "--by", "cgroup") as exporter:
        samples = exporter.scrape()
        for folder in folders:
            group = f"/{NAME}/{folder}"
            assert value(samples, "pagescan_processes", group=group) == 1
    with exporting("--container", CONTAINER[:12], "--unit", "web") as exporter:
        samples = exporter.scrape()
        assert value(samples, "pagescan_processes", container_id=CONTAINER) == 1
        assert value(samples, "pagescan_processes", group="web.service") >= 1


# ---- many --------------------------------------------------------------------------


def test_many_processes_in_little_memory() -> None:
    """A hundred groups and the rest; no group has more than 25 series."""
    short = f"pgs{os.getpid() % 10000}"  # a name has 15 bytes
    many = [
        subprocess.Popen(
            [
                "sh",
                "-c",
                f"echo {short}-{n} >/proc/$$/comm; printf .; read x",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for n in range(103)
    ]
    try:
        for process in many:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"."
        with exporting("--match", f"^{short}-", "--by", "name") as exporter:
            samples = exporter.scrape()
            assert value(samples, "pagescan_folded_groups") == 3
            assert value(samples, "pagescan_processes", group="other") == 3
            assert len(values(samples, "pagescan_processes")) == 101
            exporter.wait_until_said("more than 100 groups: 3 groups are in 'other'")
            per_group: dict[str, int] = {}
            for _, labels in samples:
                if group := dict(labels).get("group"):
                    per_group[group] = per_group.get(group, 0) + 1
            assert max(per_group.values()) <= 25
            assert int(witness.status(exporter.pid, "VmRSS").split()[0]) < 40 << 10
    finally:
        for process in many:
            process.kill()
            process.communicate()
