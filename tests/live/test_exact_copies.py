"""`cow --exact`: the write bits of both sides, and forks that wait for a reader.

The second witness is /proc/PID/pagemap: a page of which both sides have a frame, and
not the same one, was copied.
"""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pagescan.attribution import exact_copies
from pagescan.attribution.copies import CopyWatch
from pagescan.attribution.exact_copies import ExactCopies
from pagescan.attribution.fork_reader import refuse_copies
from pagescan.attribution.forks import Fork
from pagescan.model.errors import (
    AccessDeniedError,
    KernelUnsupportedError,
    PagescanError,
    SessionError,
    from_oserror,
)
from pagescan.target.process import Target as Process
from tests import witness
from tests.conftest import HERE, STRANGER, command, python_of_all
from tests.forks import PAGES, Target, forks
from tests.live.test_copies import AREA, fork_of, in_area
from tests.live.test_cow import begin, documents, end
from tests.refusal.test_older_kernels import under

__all__ = ["forks"]

pytestmark = pytest.mark.needs("tracking", "root")

ROUNDS = int(os.environ.get("PAGESCAN_ROUNDS", "3"))
FRAME = (1 << 55) - 1


def private(pid: int) -> list[tuple[int, int]]:
    """Return the private mappings of a process."""
    found = []
    with open(f"/proc/{pid}/maps") as file:
        for line in file:
            words = line.split()
            if words[1][3] == "p" and not words[-1].startswith("[v"):
                start, stop = (int(word, 16) for word in words[0].split("-"))
                found.append((start, stop))
    return found


def copied_by_frames(parent: int, child: int) -> set[int]:
    """Return the pages of which each of two processes has a frame of its own."""
    found = set()
    for start, stop in private(child):
        pairs = zip(
            witness.words(parent, start, stop),
            witness.words(child, start, stop),
            strict=True,
        )
        for index, (one, other) in enumerate(pairs):
            both = one & other & witness.PRESENT and not (one | other) & witness.FILE
            if both and one & FRAME != other & FRAME:
                found.add(start // witness.PAGE + index)
    return found


def found_pages(fork: Fork) -> set[int]:
    """Return the pages that pagescan takes for copied."""
    addresses = [*fork.parent.addresses, *fork.child.addresses]
    return {address // witness.PAGE for address in addresses}


def last_fork(watch: CopyWatch, child: int) -> Fork:
    (fork,) = (fork for fork in watch.forks if fork.child.pid == child)
    return fork


def test_exact_by_frames(forks: Target) -> None:
    """No page is missed and none is extra, fork after fork, at random numbers."""
    chance = random.Random(17)
    with CopyWatch(forks.pid, exact=True) as watch:
        for _ in range(2 * ROUNDS):
            (child,) = forks.say(f"f {chance.randrange(PAGES)}")
            watch.pump()
            forks.say(f"p {chance.randrange(PAGES)}")
            report = watch.report()
            expected = copied_by_frames(forks.pid, child)
            found = found_pages(last_fork(watch, child))
            assert (len(expected - found), len(found - expected)) == (0, 0)
            fork = fork_of(report, child)
            assert (fork.engine, fork.copied) == ("exact", len(expected))
            forks.say("e")
    assert witness.registered(forks.pid) == 0


@pytest.mark.parametrize("exact", [True, False])
def test_writer_without_a_page_fault(forks: Target, exact: bool) -> None:
    """Another process writes to both sides: only the bits tell it."""
    with CopyWatch(forks.pid, exact=exact) as watch:
        (child,) = forks.say("f 0")
        watch.pump()
        lines = Path(f"/proc/{forks.pid}/maps").read_text().splitlines()
        (start,) = (int(line.split("-")[0], 16) for line in lines if AREA in line)
        for pid, first, pages in ((forks.pid, 100, 30), (child, 200, 50)):
            with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
                for page in range(first, first + pages):
                    memory.seek(start + page * witness.PAGE)
                    memory.write(b"x")
        report = watch.report("mapping")
        expected = copied_by_frames(forks.pid, child)
        found = found_pages(last_fork(watch, child))
    fork = fork_of(report, child)
    seen = (in_area(fork, "parent"), in_area(fork, "child"))
    assert seen == ((30, 50) if exact else (0, 0))
    assert len(expected - found) == (0 if exact else 80)
    assert not found - expected


def fails_once(monkeypatch: pytest.MonkeyPatch, method: str, pids: set[int]) -> None:
    """Let one call of a method of `ArmedSide` find no descriptor, but not for some."""
    whole = getattr(exact_copies.ArmedSide, method)
    failed: list[str] = []

    def failing(self: Any, *arguments: Any) -> Any:
        if self.target.pid not in pids and not failed:
            failed.append(method)
            error = OSError(errno.EMFILE, "no descriptor")
            raise from_oserror(error, doing="read the mappings", call="open")
        return whole(self, *arguments)

    monkeypatch.setattr(exact_copies.ArmedSide, method, failing)


@pytest.mark.parametrize(
    ("method", "engine"),
    [
        ("before", "perf"),  # the parent's bits, at the fork
        ("noted", "perf"),  # the child's bits, there
        ("written", "exact"),  # one look: the next one reads them
    ],
)
def test_bits_that_cannot_be_read(
    forks: Target, monkeypatch: pytest.MonkeyPatch, method: str, engine: str
) -> None:
    """Nothing has ended: samples alone count the copies, and the cause is told."""
    with CopyWatch(forks.pid, exact=True) as watch:
        (old,) = forks.say("f 100")
        assert [fork.engine for fork in watch.report().forks] == ["exact"]
        if method != "written":
            others = set() if method == "before" else {forks.pid, old}
            fails_once(monkeypatch, method, others)
        (new,) = forks.say("f 200")
        for _ in range(3):
            watch.pump()
        if method == "written":
            fails_once(monkeypatch, method, {forks.pid, old})
        report = watch.report()
        assert fork_of(report, new).engine == "perf"
        lost = {"before": "perf"}.get(method, "exact")  # the parent's bits are lost
        assert fork_of(report, old).engine == lost
        cause = "read the mappings: this process has reached its limit of descriptors"
        (note,) = watch.notes
        assert note.startswith("copies of ")
        assert f"were counted by samples alone: cannot {cause}" in note
        forks.say("p 300")
        report = watch.report("mapping", "interrupted")
        assert fork_of(report, new).engine == engine
        assert in_area(fork_of(report, new), "child") == 200
        assert in_area(fork_of(report, new), "parent") == 300
        assert {row.pid for row in report.processes} == {forks.pid, old, new}
        assert all(row.end is None for row in report.processes)
        assert watch.notes == ([] if engine == "exact" else [note])
        expected = copied_by_frames(forks.pid, new)
        assert found_pages(last_fork(watch, new)) == expected
    assert witness.registered(forks.pid) == 0


def test_forks_of_children(forks: Target) -> None:
    """Each level of a tree has its own copies; vfork and posix_spawn are no fork."""
    with CopyWatch(forks.pid, exact=True) as watch:
        forks.say("v")
        grandchild, child = forks.say("n 500")
        forks.say("s")
        forks.say("p 300")
        report = watch.report("mapping", "interrupted")
        inner, outer = fork_of(report, grandchild), fork_of(report, child)
        expected = copied_by_frames(child, grandchild)
        assert found_pages(last_fork(watch, grandchild)) == expected
    assert (inner.engine, outer.engine, report.vforks) == ("exact", "exact", 2)
    assert (in_area(inner, "child"), in_area(inner, "parent")) == (500, 0)
    assert (in_area(outer, "child"), in_area(outer, "parent")) == (0, 300)


def test_older_children_keep_their_copies(forks: Target) -> None:
    """The next fork protects the parent again; what it wrote before still counts."""
    with CopyWatch(forks.pid, exact=True) as watch:
        (one,) = forks.say("f 0")
        watch.pump()
        forks.say("p 400")
        (other,) = forks.say("f 10")
        watch.pump()
        forks.say("p 1000")
        report = watch.report("mapping")
        for child in (one, other):
            expected = copied_by_frames(forks.pid, child)
            assert found_pages(last_fork(watch, child)) >= expected
    assert in_area(fork_of(report, one), "parent") == 1000
    assert in_area(fork_of(report, other), "parent") == 1000


def test_children_that_end_at_once(forks: Target) -> None:
    """Their userfaultfds are closed again, though these do not tell of the end."""
    with CopyWatch(forks.pid, exact=True) as watch:
        assert watch.exact is not None
        reader = f"/proc/{watch.exact.events.reader_pid}/fd"
        before = len(os.listdir(reader))
        forks.say("q 200")
        report = watch.report(end="interrupted")
        assert len(report.forks) == 200
        witness.wait_for(lambda: len(os.listdir(reader)) <= before + 1)
        assert watch.exact.lost is None


@pytest.mark.parametrize("exact", [True, False])
def test_a_parent_with_threads(tmp_path: Path, exact: bool) -> None:
    """Threads write at full speed while another one forks: nearly no page is missed.

    Without the samples of the time in which the fork waits, 3 to 9 % would be.
    """
    program = tmp_path / "threaded_forks"
    source = str(HERE / "targets/threaded_forks.c")
    words = ["cc", "-O1", "-w", "-pthread", "-o", str(program), source]
    subprocess.run(words, check=True)
    target = Target(str(program), "65536", "2")
    try:
        with CopyWatch(target.pid, exact=exact) as watch:
            for _ in range(ROUNDS):
                target.say("r")
                (child,) = target.say("f")
                target.say("s")
                watch.report()
                watch.report()
                expected = copied_by_frames(target.pid, child)
                found = found_pages(last_fork(watch, child))
                assert len(expected) > 1000
                assert not found - expected
                assert len(expected - found) <= max(3, len(expected) // 100)
                target.say("e")
            assert watch.lost == 0
    finally:
        target.process.kill()
        target.process.communicate()


def fork_while(forks: Target, harm: "threading.Thread | None" = None) -> float:
    """Return how many seconds a fork took, while a thread does harm."""
    if harm is not None:
        harm.start()
    begun = time.monotonic()
    forks.say("f 1")
    taken = time.monotonic() - begun
    if harm is not None:
        harm.join()
    return taken


@pytest.mark.parametrize("harm", ["stopped", "stopped and killed", "killed", "full"])
def test_reader_in_trouble(forks: Target, harm: str) -> None:
    """The target's fork goes on, and nothing stays armed."""
    for _ in range(ROUNDS):
        with CopyWatch(forks.pid, existing=False, exact=True) as watch:
            assert watch.exact is not None
            pid = watch.exact.events.reader_pid
            thread = None
            if harm == "full":
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
            elif harm == "killed":
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGSTOP)
                if harm == "stopped and killed":
                    thread = threading.Thread(
                        target=kill_in_the_fork, args=(forks, pid)
                    )
            assert fork_while(forks, thread) < 60, "it waits for ever"
            watch.report()
            witness.wait_for(lambda: reported(watch))
            forks.say("f 5")
            (fork,) = watch.report().forks[-1:]
            assert fork.engine == "perf"
        witness.wait_for(lambda: witness.registered(forks.pid) == 0)


def reported(watch: CopyWatch) -> bool:
    assert watch.exact is not None
    watch.report()
    return watch.exact.lost is not None


def kill_in_the_fork(forks: Target, pid: int) -> None:
    """Kill the reader when the target sleeps in its fork."""
    witness.wait_for(lambda: witness.status(forks.pid, "State")[0] == "D")
    os.kill(pid, signal.SIGKILL)


def test_pagescan_is_killed(forks: Target) -> None:
    """The reader notices, disarms, and ends."""
    process = begin(forks.pid, "--exact", "--json")
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        (reader,) = (int(word) for word in file.read().split())
    process.kill()
    process.communicate()
    forks.say("f 1")
    witness.wait_for(lambda: not os.path.exists(f"/proc/{reader}"))
    assert witness.registered(forks.pid) == 0
    rows = command("sessions", "--json").json()["watches"]  # it removes the lock file
    assert forks.pid not in [row["target"]["pid"] for row in rows]


def test_command(forks: Target) -> None:
    """Stderr says what it risks; JSON names the engine."""
    process = begin(forks.pid, "--exact", "--json", "-i", "0.1")
    forks.say("f 700")
    result = end(process)
    (fork,) = documents(result)[-1]["forks"]
    assert (result.code, fork["engine"]) == (0, "exact")
    assert "a fork waited for at most" in result.stderr


def test_risk_is_said(forks: Target) -> None:
    result = command("cow", forks.pid, "--exact", "--duration", "0.1")
    assert result.code == 0
    assert "each fork of the target waits" in result.stderr


def test_lost_reader_is_said(forks: Target) -> None:
    process = begin(forks.pid, "--exact", "--json")
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        os.kill(int(file.read()), signal.SIGKILL)
    forks.say("f 1")
    result = end(process)
    assert result.code == 1
    assert "the reader of forks is gone: it was ended by signal 9" in result.stderr


def test_refused_where_it_is_tracked_already(forks: Target) -> None:
    with ExactCopies(forks.pid):  # the class below those that take the lock
        result = command("cow", forks.pid, "--exact", "--duration", "0.1")
    assert result.code == 1
    assert "another userfaultfd has it" in result.stderr


def test_sessions_lists_it(forks: Target) -> None:
    """A running `cow --exact` holds the target: no other command arms it."""
    process = begin(forks.pid, "--exact", "--json")
    (listed,) = (
        row
        for row in command("sessions", "--json").json()["watches"]
        if row["target"]["pid"] == forks.pid
    )
    assert (listed["holder"], listed["holder_pid"]) == ("cow", process.pid)
    assert listed["tracked_bytes"] >= PAGES * witness.PAGE
    for words in (("arm",), ("cow", "--exact")):
        refused = command(*words, forks.pid)
        assert refused.code == 1
        assert f"is tracked already: by cow, pid {process.pid}" in refused.stderr
    assert end(process).code == 0
    rows = command("sessions", "--json").json()["watches"]
    assert forks.pid not in [row["target"]["pid"] for row in rows]


def test_sessions_lists_it_of_the_library(forks: Target) -> None:
    """It holds the target like the command; two of one process exclude each other."""
    with CopyWatch(forks.pid, exact=True) as watch:
        rows = command("sessions", "--json").json()["watches"]
        (listed,) = (row for row in rows if row["target"]["pid"] == forks.pid)
        assert (listed["holder"], listed["holder_pid"]) == ("cow", os.getpid())
        assert watch.exact is not None
        assert listed["tracked_bytes"] == watch.exact.events.tracked_bytes
        with pytest.raises(SessionError, match="is tracked already: by cow"):
            CopyWatch(forks.pid, exact=True)
        refused = command("arm", forks.pid)
        assert refused.code == 1
        assert f"is tracked already: by cow, pid {os.getpid()}" in refused.stderr
    rows = command("sessions", "--json").json()["watches"]
    assert forks.pid not in [row["target"]["pid"] for row in rows]
    assert witness.registered(forks.pid) == 0


def test_unknown_to_the_kernel(forks: Target) -> None:
    result = under("no-async", "cow", forks.pid, "--exact")
    assert result.code == KernelUnsupportedError.code
    assert "no events of forks" in result.stderr


@pytest.mark.needs("stranger")
def test_refused_to_another_user() -> None:
    """Fork events need CAP_SYS_PTRACE, also for an own process; doctor has a row."""
    words = [str(python_of_all()), "-m", "pagescan"]
    code = (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '60']);"
        f"done = [subprocess.run([*{words!r}, *more], capture_output=True, text=True)"
        " for more in (['cow', str(child.pid), '--exact', '--json'],"
        " ['doctor', '--json'])]; child.kill();"
        "print(done[0].stderr.splitlines()[-1]); print(done[1].stdout)"
    )
    path = os.pathsep.join([str(HERE.parent), *filter(None, map(str, sys.path))])
    done = subprocess.run(
        [str(python_of_all()), "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        env={**os.environ, "PYTHONPATH": path},
    )
    first, _, rest = done.stdout.partition("\n")
    error = json.loads(first)
    assert (error["code"], error["hint"]) == (
        AccessDeniedError.code,
        "run as root, or leave out --exact",
    )
    assert "CAP_SYS_PTRACE" in error["error"]
    rows = {row["name"]: row for row in json.loads(rest)["checks"]}
    assert rows["fork-events"]["ok"] is False
    assert rows["fork-events"]["fix"]


def test_a_copy_of_the_userfaultfd_is_found() -> None:
    """A child that was forked within the attach; an older one has its own."""
    code = (
        "import os, sys, time\n"
        "from pagescan import native\n"
        "begun = time.clock_gettime(time.CLOCK_BOOTTIME)\n"
        "os.set_inheritable(native.uffd_open(), True)\n"
        "if os.fork():\n"
        "    print(begun, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        begun = float(process.stdout.readline())
        with Process.open(process.pid) as target:
            with pytest.raises(PagescanError, match="has a copy of the userfaultfd"):
                refuse_copies(target, begun)
            refuse_copies(target, begun + 10)
