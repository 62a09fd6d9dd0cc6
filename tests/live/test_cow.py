"""The command `cow`: its forms, how it ends, and what it refuses."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import HERE, Result, checked, command, run_as_stranger
from tests.forks import PAGES, Target, forks

__all__ = ["forks"]

AREA = "/memfd:area (deleted)"


def begin(*words: object) -> subprocess.Popen[str]:
    """Start `pagescan cow WORDS…`; it follows its target when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "cow", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = [process.stderr.readline()]
    while "Ctrl-C to end" not in lines[-1]:
        assert lines[-1], lines
        lines.append(process.stderr.readline())
    return process


def end(process: subprocess.Popen[str]) -> Result:
    """Interrupt it, and return what it has written."""
    process.send_signal(signal.SIGINT)
    return finished(process)


def finished(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=60 * witness.PATIENCE)
    return Result(process.returncode, out, err)


def documents(result: Result) -> list[Any]:
    return [checked(line) for line in result.stdout.splitlines()]


def test_json(forks: Target) -> None:
    """A line per interval; the last says why it is the last, and has all forks."""
    process = begin(forks.pid, "--json", "-i", "0.1", "--by", "mapping")
    (child,) = forks.say("f 700")
    forks.say("p 1000")
    result = end(process)
    assert result.code == 0
    *others, last = documents(result)
    assert {document["end"] for document in others} <= {None}
    assert (last["kind"], last["end"], last["cost"]["lost"]) == (
        "cow",
        "interrupted",
        0,
    )
    (fork,) = last["forks"]
    assert (fork["parent"], fork["child"], fork["engine"]) == (forks.pid, child, "perf")
    copied = {
        side["role"]: sum(row["pages"] for row in side["by"] if row["mapping"] == AREA)
        for side in fork["sides"]
    }
    assert copied == {"parent": 1000, "child": 700}
    labels = {row["mapping"]: row["label"] for row in fork["sides"][0]["by"]}
    assert labels["[stack]"].startswith("[stack of ")
    assert labels[AREA] == "[memfd area]"
    assert 1000 <= fork["copied"] < 1030
    assert fork["reserve_bytes"] >= fork["copied"] * 4096
    assert fork["predicted"] > fork["copied"]
    assert {row["role"] for row in last["processes"]} == {"parent", "child"}
    assert f"fork #1 of {forks.pid}, child {child}" in result.stderr


def test_next_fork(forks: Target) -> None:
    """It leaves out older children, says nothing before the fork, and ends with it."""
    forks.say("f 10")
    process = begin(forks.pid, "--next-fork", "--json", "-i", "0.05")
    forks.say("v")
    (child,) = forks.say("f 300")
    forks.say("e")
    result = finished(process)
    last = documents(result)[-1]
    assert (result.code, last["end"], last["vforks"]) == (0, "fork", 1)
    assert [fork["child"] for fork in last["forks"]] == [child]
    assert last["forks"][0]["end"] == "exited"


def test_end_of_the_target(forks: Target) -> None:
    process = begin(forks.pid, "--json")
    forks.process.kill()
    forks.process.wait()
    result = finished(process)
    assert (result.code, documents(result)[-1]["end"]) == (0, "exited")


def test_existing_child(forks: Target) -> None:
    (child,) = forks.say("f 600")
    result = command("cow", forks.pid, "--duration", "0.2", "--json")
    (fork,) = result.json()["forks"]
    assert (fork["child"], fork["engine"], fork["shared_at_fork"]) == (
        child,
        "state",
        None,
    )
    assert 600 <= fork["copied"] < 640


def test_reserve_of_an_older_fork(forks: Target) -> None:
    """However fast the copies come, no more can be copied than was shared."""
    forks.say("f 0")
    process = begin(forks.pid, "--json", "-i", "0.05")
    forks.say("p 2000")
    (fork,) = documents(end(process))[-1]["forks"]
    assert fork["copied"] * 4096 <= fork["reserve_bytes"] < (PAGES + 300) * 4096


HEADS = {
    "process": "process pid role age shared copied bytes new rate function",
    "function": "pages bytes share fork role pid module function",
    "mapping": "pages bytes share fork role pid label mapping",
    "time": "at pages bytes share fork role pid",
}


@pytest.mark.parametrize("by", HEADS)
def test_columns(forks: Target, by: str) -> None:
    """In a pipe fixed columns, and CSV with the tick and the time."""
    processes = [
        begin(forks.pid, "--by", by, "-i", "60", *form)
        for form in ((), ("--csv",), ("--no-header", "--bytes"))
    ]
    forks.say("f 700")
    plain, table, bare = (end(process) for process in processes)
    assert [plain.code, table.code, bare.code] == [0, 0, 0]
    head, *rows = plain.stdout.splitlines()
    assert head.split() == HEADS[by].split()
    assert any("700" in row or "2.7 MiB" in row or "2.8 MiB" in row for row in rows)
    first, *cells = csv.reader(table.stdout.splitlines())
    assert first == ["tick", "time", *HEADS[by].split()]
    assert {len(row) for row in cells} == {len(first)}
    assert len(bare.stdout.splitlines()) == len(rows)
    assert "MiB" not in bare.stdout


def test_names(forks: Target) -> None:
    process = begin(forks.pid, "--by", "function", "-i", "60")
    forks.say("f 700")
    first = end(process).stdout.splitlines()[1].split()
    assert (first[0], first[-1]) == ("700", "store")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("4194303",), 3, "no process with pid"),
        (("0", "--duration", "1"), 3, "no process with pid 0"),
        (("{pid}", "-i", "0"), 2, "above zero"),
        (("{pid}", "--duration", "-1"), 2, "-1"),
        (("{pid}", "--by", "page"), 2, "page"),
        (("{pid}", "--jsonl"), 2, "jsonl"),
        (("{pid}", "--json", "--csv"), 2, "exclude each other"),
        ((), 2, "TARGET"),
    ],
)
def test_refusals(forks: Target, words: tuple[str, ...], code: int, text: str) -> None:
    result = command("cow", *(word.format(pid=forks.pid) for word in words))
    assert (result.code, result.stdout) == (code, "")
    assert text in result.stderr


@pytest.mark.parametrize(
    ("kernel", "code", "text"),
    [("no-perf", 4, "perf_event_paranoid"), ("unknown-perf", 5, "no software events")],
)
def test_refused_by_the_kernel(
    forks: Target, kernel: str, code: int, text: str
) -> None:
    words = [sys.executable, "-m", "tests.filtered", kernel]
    done = subprocess.run(
        [*words, "cow", str(forks.pid), "--json"],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        check=False,
    )
    error = json.loads(done.stderr.splitlines()[-1])
    assert (done.returncode, error["code"]) == (code, code)
    assert text in error["error"]
    assert error["hint"]
    doctor = subprocess.run(
        [*words, "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=HERE.parent,
        check=False,
    )
    rows = {row["name"]: row for row in json.loads(doctor.stdout)["checks"]}
    assert rows["page-fault-samples"]["ok"] is False
    assert rows["page-fault-samples"]["fix"]


@pytest.mark.needs("stranger")
def test_process_of_another_user(forks: Target) -> None:
    done = run_as_stranger("-m", "pagescan", "cow", forks.pid)
    assert done.returncode == 4
    assert "run as root" in done.stderr


@pytest.mark.needs("redis")
def test_bgsave_of_redis(tmp_path: Path) -> None:
    """What redis itself says of a BGSAVE under load: its figure has the new pages."""
    socket = str(tmp_path / "redis")
    words = f"--port 0 --save '' --enable-debug-command yes --unixsocket {socket}"
    server = subprocess.Popen(
        ["redis-server", *shlex.split(words), "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )

    def say(*line: str) -> str:
        words = ["redis-cli", "-s", socket, *line]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    load = None
    try:
        witness.wait_for(lambda: "PONG" in say("ping"))
        say("debug", "populate", "150000", "key", "1000")
        process = begin(server.pid, "--next-fork", "--json")
        words = f"redis-benchmark -s {socket} -t set -r 150000 -d 1000 -n 9999999 -P 16"
        load = subprocess.Popen(shlex.split(words), stdout=subprocess.DEVNULL)
        witness.wait_for(lambda: "cmdstat_set:" in say("info", "commandstats"))
        assert "started" in say("bgsave")
        result = finished(process)
        witness.wait_for(
            lambda: "rdb_bgsave_in_progress:0" in say("info", "persistence")
        )
        rows = dict(line.split(":") for line in say("info", "persistence").split()[2:])
    finally:
        for started in (load, server):
            if started is not None:
                started.kill()
                started.wait()
    (fork,) = documents(result)[-1]["forks"]
    pages = int(rows["rdb_last_cow_size"]) // 4096
    ours = fork["copied"] + fork["sides"][1]["new"]
    assert pages > 1000
    assert abs(ours - pages) <= max(0.001 * pages, 60)
    assert fork["lost"] == 0


def test_table_on_a_terminal(forks: Target) -> None:
    """Each report takes the place of the last one."""
    controller, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "cow", str(forks.pid), "-i", "0.1"],
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(terminal)
    seen = b""
    while seen.count(b"\x1b[3F\x1b[J") < 2:
        seen += os.read(controller, 4096)
    result = end(process)
    os.close(controller)
    assert result.code == 0
    assert seen.startswith(b"process")
    assert b"age: since the fork; shared, copied, new: pages" in seen
    assert result.stderr.count("hint: no child shares its memory: --next-fork") == 1
