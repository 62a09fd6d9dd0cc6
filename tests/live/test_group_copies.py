"""`cow` of groups: each copy counts once, members come and go.

The second witness are the frames in /proc/PID/pagemap: at each address, the different
frames of all processes, less one, are the copies that exist.
"""

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.attribution.copies import CopyWatch
from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.group_copies import GroupCopyWatch
from pagescan.model.copies import CopyReport, ProcessCopies
from pagescan.model.errors import NoSuchTargetError
from pagescan.target.group import Match, Tree, Unit
from tests import servers, witness
from tests.conftest import command, run_as_stranger
from tests.forks import PAGES, Target, forks
from tests.live.test_copies import AREA, fork_of
from tests.live.test_cow import begin, documents, end, finished
from tests.live.test_exact_copies import FRAME
from tests.live.test_group_selectors import hierarchies

__all__ = ["forks", "hierarchies"]


def frames_of(pid: int) -> dict[int, int]:
    """Return the frame of each page of the area that all processes have."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if AREA in line:
            start, stop = (int(word, 16) for word in line.split()[0].split("-"))
            words = witness.words(pid, start, stop)
            return {at: word & FRAME for at, word in enumerate(words)}
    return {}


def copies_of_area(*pids: int) -> int:
    """Return how many copies of the area's pages exist."""
    frames = [frames_of(pid) for pid in pids]
    return sum(len({one[at] for one in frames}) - 1 for at in frames[0])


def row_of(report: CopyReport, pid: int) -> ProcessCopies:
    (row,) = (row for row in report.processes if row.pid == pid and row.end is None)
    return row


@pytest.mark.needs("root")
def test_a_copy_counts_once(forks: Target) -> None:
    """Three children and their parent, of which one, some or all write to a page."""
    chance = random.Random(17)
    with GroupCopyWatch(Tree.of(forks.pid)) as watch:
        before = watch.report().summary.copied
        children = []
        for _ in range(3):
            children += forks.say(f"f {chance.randrange(PAGES)}")
            forks.say(f"p {chance.randrange(PAGES)}")
            watch.pump()
        report = watch.report("mapping")
        expected = copies_of_area(forks.pid, *children)
        each = sum(row.copied for row in report.processes)
    counted = report.summary.copied - before
    assert expected <= counted < expected + 150  # libc and stacks of four processes
    assert counted <= each
    assert (before, report.summary.forks, report.target) == (0, 3, None)


@pytest.mark.needs("root")
def test_the_last_that_writes_copies_nothing(forks: Target) -> None:
    """All four write to the same pages: the last one has the page for itself."""
    with GroupCopyWatch(Tree.of(forks.pid)) as watch:
        children = [forks.say("f 2000")[0] for _ in range(3)]
        forks.say("p 2000")
        report = watch.report()
        assert copies_of_area(forks.pid, *children) == 3 * 2000
    each = sum(row.copied for row in report.processes)
    assert 3 * 2000 <= report.summary.copied < 3 * 2000 + 150
    assert each - report.summary.copied >= 2000


@pytest.mark.needs("root")
def test_older_copies_count_once(forks: Target) -> None:
    """The parent's copy is one, though two children have the page of before."""
    children = [forks.say("f 0")[0] for _ in range(2)]
    forks.say("p 1500")
    with GroupCopyWatch(Tree.of(forks.pid)) as watch:
        report = watch.report()
    assert copies_of_area(forks.pid, *children) == 1500
    assert 1500 <= report.summary.copied < 1500 + 100
    assert [row.role for row in report.processes] == ["parent", "child", "child"]
    assert {row.parent for row in report.processes} == {None, forks.pid}
    with CopyWatch(forks.pid) as one:
        assert 1500 <= one.report().summary.copied < 1500 + 100


def test_members_come_and_go(forks: Target) -> None:
    """A program that a member starts is a member; what has ended stays in the sum."""
    script = "import subprocess, sys; [subprocess.run(['sleep', '1000']) for _ in '12']"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            with GroupCopyWatch(Tree.of(process.pid)) as watch:
                assert watch.report().processes[0].role is None
                sleeper = wait_for_child(watch, process.pid)
                report = watch.report()
                row = row_of(report, sleeper)
                assert (row.name, row.role, row.parent) == ("sleep", None, None)
                assert report.vforks == 1 or report.summary.forks == 0
                os.kill(sleeper, signal.SIGTERM)
                other = wait_for_child(watch, process.pid, sleeper)
                rows = watch.report(end="interrupted").processes
                ends = {row.pid: row.end for row in rows}
                assert (ends[sleeper], ends[other]) == ("exited", None)
        finally:
            process.kill()
            for pid in (sleeper, other):
                if os.path.exists(f"/proc/{pid}"):
                    os.kill(pid, signal.SIGKILL)


def wait_for_child(watch: GroupCopyWatch, parent: int, before: int = 0) -> int:
    """Return the pid of a child that sleeps; it has a row."""
    found: list[int] = []

    def sleeps() -> bool:
        found[:] = [
            row.pid
            for row in watch.report().processes
            if row.name == "sleep" and row.pid != before
        ]
        return bool(found)

    witness.wait_for(sleeps)
    return found[0]


START = """
import os, subprocess, sys
print(os.getpid(), flush=True)
os.read(0, 1)
subprocess.call(sys.argv[1:])
"""


def test_forks_of_a_program_that_is_started(forks: Target) -> None:
    """Its functions have its own names, not those of the process that started it."""
    program = str(forks.process.args[0])  # type: ignore[index]
    starter = Target(sys.executable, "-c", START, program, str(PAGES))
    try:
        with GroupCopyWatch(Tree.of(starter.pid)) as watch:
            (pid,) = starter.say("")  # it runs the program, which tells its pid
            watch.report()
            (child,) = starter.say("f 700")
            report = watch.report("function")
        fork = fork_of(report, child)
        assert fork.parent == pid != starter.pid
        first = fork.sides[1].by[0]
        assert (first.function, first.pages) == ("store", 700)
        assert row_of(report, pid).role == "parent"
    finally:
        os.kill(pid, signal.SIGKILL)
        starter.process.communicate()


@pytest.mark.parametrize("how", ["s", "v"])
def test_vfork_is_told_apart(forks: Target, how: str) -> None:
    process = begin("--tree", forks.pid, "--json", "-i", "0.1")
    forks.say(how)
    (child,) = forks.say("f 50")
    result = end(process)
    last = documents(result)[-1]
    assert (last["vforks"], last["summary"]["forks"]) == (1, 1)
    assert [fork["child"] for fork in last["forks"]] == [child]
    assert "1 child made by vfork or posix_spawn" in result.stderr


@pytest.fixture
def two(forks: Target) -> Iterator[tuple[Target, Target]]:
    """Two programs that have nothing in common but their path."""
    other = Target(*forks.process.args)  # type: ignore[misc]
    yield forks, other
    other.process.kill()
    other.process.communicate()


def test_json_of_a_group(two: tuple[Target, Target]) -> None:
    """One document per interval, with all processes; the last one says the end."""
    one, other = two
    path = str(one.process.args[0])  # type: ignore[index]
    process = begin("--match", f"^{path}", "--json", "-i", "0.1", "--by", "mapping")
    children = [target.say("f 300")[0] for target in two]
    result = end(process)
    last = documents(result)[-1]
    assert (result.code, last["end"], last["target"]) == (0, "interrupted", None)
    assert last["group"] == {"kind": "match", "name": f"^{path}"}
    assert {fork["parent"] for fork in last["forks"]} == {one.pid, other.pid}
    rows = {row["pid"]: row for row in last["processes"]}
    assert {rows[pid]["role"] for pid in children} == {"child"}
    assert [rows[pid]["parent"] for pid in children] == [one.pid, other.pid]
    assert 600 <= last["summary"]["copied"] < 700
    assert last["summary"]["bytes"] == 4096 * last["summary"]["copied"]
    assert last["untracked"] == []
    assert "4 processes, 2 forks: " in result.stderr
    assert "copied, each once" in result.stderr


def test_next_fork_of_any_member(two: tuple[Target, Target]) -> None:
    _, other = two
    path = str(other.process.args[0])  # type: ignore[index]
    process = begin("--match", f"^{path}", "--next-fork", "--json", "-i", "0.05")
    (child,) = other.say("f 300")
    other.say("e")
    last = documents(finished(process))[-1]
    assert (last["end"], [fork["child"] for fork in last["forks"]]) == ("fork", [child])


def test_end_of_a_tree(forks: Target) -> None:
    process = begin("--tree", forks.pid, "--json", "-i", "0.05")
    forks.process.kill()
    forks.process.wait()
    result = finished(process)
    assert (result.code, documents(result)[-1]["end"]) == (0, "exited")


Refusal = tuple[tuple[str, ...], int, str]
REFUSALS: list[Refusal] = [
    (("--tree", "{pid}", "--exact"), 2, "--exact and --tree exclude each other"),
    (("--match", "forks", "--exact"), 2, "--exact and --match exclude each other"),
    (("--tree", "--match", "x", "{pid}"), 2, "exclude each other"),
    (("--match", "x", "{pid}"), 2, "--match and TARGET exclude each other"),
    (("--match", "("), 2, "malformed regular expression"),
    (("--cgroup", "no"), 2, "malformed cgroup"),
    (("--unit", "a/b"), 2, "malformed unit"),
    (("--container", "xyz"), 2, "malformed container id"),
    (("--match", "no-such-program-17"), 3, "no process in match"),
    (("--tree", "4194303"), 3, "no process with pid"),
    (("--tree",), 2, "TARGET is missing"),
    (("--tree", "{pid}", "[heap]"), 2, "takes one TARGET, and nothing behind it"),
]


@pytest.mark.parametrize(("words", "code", "text"), REFUSALS)
def test_refusals(forks: Target, words: tuple[str, ...], code: int, text: str) -> None:
    result = command("cow", *(word.format(pid=forks.pid) for word in words))
    assert (result.code, result.stdout) == (code, "")
    assert text in result.stderr


@pytest.mark.needs("stranger")
def test_all_of_another_user(forks: Target) -> None:
    """If no process can be followed, the message has a reason."""
    done = run_as_stranger("-m", "pagescan", "cow", "--tree", forks.pid)
    assert done.returncode == 1
    assert f"no process in tree {forks.pid} can be followed: " in done.stderr
    assert "another user" in done.stderr
    assert "hint: pagescan cow PID gives the details" in done.stderr


AS_ANOTHER_USER = """
import subprocess, sys
from pagescan.attribution.copy_counter import CopyCounter
from pagescan.attribution.group_copies import GroupCopyWatch
from pagescan.target.group import Match
words = [sys.argv[1], "4000"]
target = subprocess.Popen(words, stdin=-1, stdout=-1, text=True, bufsize=1)
pid = int(target.stdout.readline())
with GroupCopyWatch(Match("^" + sys.argv[1])) as watch:
    target.stdin.write("f 700\\n")
    target.stdout.readline()
    report = watch.report()
print(len(report.processes), report.processes[1].copied >= 700)
print(*((item.pid, item.part) for item in report.untracked))
target.kill()
"""


@pytest.mark.needs("stranger")
def test_one_of_another_user(forks: Target) -> None:
    """It is named with the reason, and does not end the others."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(str(forks.process.args[0]), folder)  # type: ignore[index]
        other = Target(program, str(PAGES))
        try:
            done = run_as_stranger("-c", AS_ANOTHER_USER, program)
        finally:
            other.process.kill()
            other.process.communicate()
    assert done.stdout == f"2 True\n({other.pid}, None)\n", done.stderr


def test_gone_before_it_begins(forks: Target) -> None:
    tree = Tree.of(forks.pid)
    forks.process.kill()
    forks.process.wait()
    with pytest.raises(NoSuchTargetError):
        GroupCopyWatch(tree)


def test_nothing_is_left(forks: Target) -> None:
    before = witness.descriptors(os.getpid())
    with GroupCopyWatch(Match("^" + str(forks.process.args[0]))) as watch:  # type: ignore[index]
        forks.say("f 10")
        watch.report()
    assert witness.descriptors(os.getpid()) == before


def pump_until(watch: CopyCounter, fact: Callable[[], object]) -> None:
    """Look at new forks until something is so."""

    def so() -> bool:
        watch.pump()
        return bool(fact())

    witness.wait_for(so, 60)


def private_dirty(pid: int) -> int:
    """Return the pages of private memory that a process has for itself."""
    private = set()
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, perms, *_ = line.split()
        if perms[3] == "p":
            private.add(int(place.partition("-")[0], 16))
    rows = witness.smaps(pid, "Private_Dirty").items()
    return sum(int(text.split()[0]) for start, text in rows if start in private) // 4


@pytest.mark.needs("postgres", "root")
def test_postgres_under_pgbench() -> None:
    """Each backend has copied what smaps says; it stands still for the comparison."""
    with servers.postgres(5) as (pid, load):
        before = servers.children(pid)
        with (
            GroupCopyWatch(Tree.of(pid)) as watch,
            subprocess.Popen(load, stdout=subprocess.DEVNULL) as bench,
        ):
            pump_until(watch, lambda: len(serving(watch, pid)) == 4)
            backends = serving(watch, pid)
            for one in backends:
                os.kill(one, signal.SIGSTOP)
            report = watch.report()
            for one in backends:
                row = row_of(report, one)
                assert abs(row.copied + row.new - private_dirty(one)) < 100
                assert (row.role, row.parent) == ("child", pid)
                os.kill(one, signal.SIGCONT)
            bench.wait()
            pump_until(watch, lambda: servers.children(pid) == before)
            last = watch.report(end="interrupted")
    labels = {row.label or "" for row in last.processes if row.pid in before}
    assert any("checkpointer" in label for label in labels)
    assert {row.end for row in last.processes if row.pid in backends} == {"exited"}
    assert last.summary.forks >= len(before) + 4
    assert last.lost == 0


def serving(watch: CopyCounter, pid: int) -> set[int]:
    """Return the new backends that have served a client."""
    return {
        fork.child.pid
        for fork in watch.living
        if fork.parent.pid == pid
        and fork.copied_before is None
        and fork.child.copied > 70
    }


@pytest.mark.needs("gunicorn", "root")
def test_gunicorn(tmp_path: Path) -> None:
    """The workers that exist are compared with their master; a new one is followed."""
    with servers.gunicorn(tmp_path) as (pid, port):
        old = servers.children(pid)
        with GroupCopyWatch(Tree.of(pid)) as watch:
            report = watch.report()
            roles = {row.pid: (row.role, row.parent) for row in report.processes}
            assert roles == {pid: ("parent", None)} | dict.fromkeys(old, ("child", pid))
            gone = min(old)
            os.kill(gone, signal.SIGTERM)
            pump_until(watch, lambda: servers.children(pid) - old)
            servers.load(port, 20)
            (new,) = servers.children(pid) - old
            report = watch.report()
            ours = fork_of(report, new).sides[1]
            assert abs(ours.copied + ours.new - private_dirty(new)) < 100
            last = watch.report(end="interrupted")
        ends = {row.pid: row.end for row in last.processes}
        assert (ends[gone], ends[new], ends[pid]) == ("exited", None, None)


@pytest.mark.needs("redis", "root")
def test_bgsave_inside_a_group(tmp_path: Path) -> None:
    """A shell that runs redis: the fork is named, and redis has the hint."""
    socket = str(tmp_path / "redis")
    words = (
        f"redis-server --port 0 --save '' --enable-debug-command yes --dir {tmp_path}"
    )
    shell = subprocess.Popen(
        ["sh", "-c", f"{words} --unixsocket {socket} > /dev/null; true"]
    )

    def say(*line: str) -> str:
        words = ["redis-cli", "-s", socket, *line]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    try:
        witness.wait_for(lambda: "PONG" in say("ping"))
        say("debug", "populate", "100000", "key", "1000")
        process = begin("--tree", shell.pid, "--next-fork", "--json", "-i", "0.1")
        bench = f"redis-benchmark -s {socket} -t set -r 100000 -d 1000 -n 9999999 -P 16"
        with subprocess.Popen(shlex.split(bench), stdout=subprocess.DEVNULL) as load:
            witness.wait_for(lambda: "cmdstat_set:" in say("info", "commandstats"))
            assert "started" in say("bgsave")
            result = finished(process)
            load.kill()
        rows = dict(line.split(":") for line in say("info", "persistence").split()[2:])
    finally:
        (server,) = servers.children(shell.pid)
        os.kill(server, signal.SIGKILL)
        shell.wait()
    last = documents(result)[-1]
    (fork,) = last["forks"]
    pages = int(rows["rdb_last_cow_size"]) // 4096
    assert pages > 500
    ours = fork["copied"] + fork["sides"][1]["new"]
    assert abs(ours - pages) <= max(0.03 * pages, 60)
    assert fork["parent"] == server
    assert any("for a snapshot" in hint for hint in last["hints"])
    assert last["summary"]["copied"] == fork["copied"]


@pytest.mark.needs("root")
def test_a_member_that_leaves(
    two: tuple[Target, Target], hierarchies: Callable[[str], list[Path]]
) -> None:
    """A process that moves to another cgroup is not followed any more."""
    one, other = two
    (folder, *_) = hierarchies("web.service")
    for target in two:
        (folder / "cgroup.procs").write_text(str(target.pid))
    with GroupCopyWatch(Unit("web")) as watch:
        assert {row.pid for row in watch.report().processes} == {one.pid, other.pid}
        (folder.parents[1] / "cgroup.procs").write_text(str(other.pid))
        witness.wait_for(lambda: other.pid not in pids_of(watch.report()))
        last = watch.report(end="interrupted")
    ends = {row.pid: row.end for row in last.processes}
    assert ends == {one.pid: None, other.pid: "left"}


def pids_of(report: CopyReport) -> set[int]:
    return {row.pid for row in report.processes}
