"""Copy-on-write of targets that know which pages each side has written."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from pagescan.attribution import copy_counter
from pagescan.attribution.copies import CopyWatch
from pagescan.model.copies import CopyReport, ForkCopies
from pagescan.model.errors import NoSuchTargetError
from tests import witness
from tests.conftest import run_as_stranger
from tests.forks import PAGES, Target, forks

__all__ = ["forks"]

AREA = "/memfd:area (deleted)"


def in_area(fork: ForkCopies, role: str) -> int:
    """Return the pages of the area that one side has copied."""
    (side,) = (side for side in fork.sides if side.role == role)
    return sum(row.pages for row in side.by if row.mapping == AREA)


def fork_of(report: CopyReport, child: int) -> ForkCopies:
    (fork,) = (fork for fork in report.forks if fork.child == child)
    return fork


def test_both_sides(forks: Target) -> None:
    """Each side is told its own first writes; the fork, the pages that differ now."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("f 700")
        watch.pump()
        forks.say("p 1000")
        forks.say("p 1000")  # the pages are its own now
        report = watch.report("mapping")
    fork = fork_of(report, child)
    assert (in_area(fork, "child"), in_area(fork, "parent")) == (700, 1000)
    assert fork.shared_at_fork is not None
    assert PAGES <= fork.shared_at_fork < PAGES + 200
    assert 1000 <= fork.copied < 1030  # the child's 700 are among them
    assert (fork.engine, fork.lost, fork.end) == ("perf", 0, None)
    rows = {row.pid: row for row in report.processes}
    assert rows[child].role == "child"
    assert 0 <= rows[child].copied - 700 < 30
    assert PAGES - 1030 < rows[child].shared <= fork.shared_at_fork - 1000


def test_private_dirty_of_smaps(forks: Target) -> None:
    """The copied and new pages of a child are the private dirty pages of smaps."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("f 2500")
        report = watch.report()
        rows = witness.smaps(child, "Private_Dirty").values()
        dirty = sum(int(row.split()[0]) for row in rows) // 4
    side = fork_of(report, child).sides[1]
    assert abs(side.copied + side.new - dirty) < 20


def test_memory_that_the_parent_gives_back(forks: Target) -> None:
    """The child keeps these pages alone: smaps counts them with its copies."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("f 100")
        before = fork_of(watch.report(), child)
        forks.say("d 500")
        witness.wait_for(lambda: fork_of(watch.report(), child).kept)
        after = fork_of(watch.report(), child)
        assert after.kept == 400  # of the other pages the child has made copies
        assert 0 <= after.copied - before.copied < 10
        forks.say("p 300")  # to fresh pages, beside those that the child has
        last = fork_of(watch.report(), child)
        assert last.kept == 200
        assert 200 <= last.copied - after.copied < 210
        rows = witness.smaps(child, "Private_Dirty").values()
        dirty = sum(int(row.split()[0]) for row in rows) // 4
    assert abs(last.copied + last.kept + last.sides[1].new - dirty) < 20


def test_memory_that_the_child_gives_back(forks: Target) -> None:
    """A later write of the parent copies nothing."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("g 500")
        forks.say("p 700")
        witness.wait_for(lambda: fork_of(watch.report(), child).copied < 500)
        fork = fork_of(watch.report(), child)
        rows = witness.smaps(child, "Private_Dirty").values()
        dirty = sum(int(row.split()[0]) for row in rows) // 4
    assert (200 <= fork.copied < 230, fork.kept) == (True, 0)
    assert abs(fork.copied + fork.sides[1].new - dirty) < 20


def test_hole_that_is_only_read(forks: Target) -> None:
    """The zero page is no memory: only the pages that were written are new."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("r 3000")
        report = watch.report()
    assert 10 <= fork_of(report, child).sides[1].new < 40


def test_function_is_named(forks: Target) -> None:
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("f 700")
        report = watch.report("function")
    first = fork_of(report, child).sides[1].by[0]
    assert (first.function, first.pages) == ("store", 700)
    assert first.share > 0.9
    assert {row.function for row in report.processes if row.pid == child} == {"store"}


def test_counts_end_with_the_child(forks: Target) -> None:
    """Writes of the parent after the child's end are no copies."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("f 10")
        watch.pump()
        forks.say("p 300")
        forks.say("e")
        forks.say("p 4000")
        report = watch.report("mapping")
        fork = fork_of(report, child)
        assert (in_area(fork, "parent"), fork.end) == (300, "exited")
        assert fork.predicted is None
        assert watch.living == []
        again = watch.report("mapping")
        assert again.forks == ()  # told once
        assert [f.child for f in watch.report(end="interrupted").forks] == [child]


def test_nested_fork(forks: Target) -> None:
    with CopyWatch(forks.pid) as watch:
        grandchild, child = forks.say("n 500")
        report = watch.report("mapping")
    inner, outer = fork_of(report, grandchild), fork_of(report, child)
    assert inner.parent == child
    assert (in_area(inner, "child"), in_area(inner, "parent")) == (500, 0)
    assert (in_area(outer, "child"), in_area(outer, "parent")) == (0, 0)


@pytest.mark.parametrize("how", ["s", "v", "w"])
def test_vfork_is_no_fork(forks: Target, how: str) -> None:
    """A child with its parent's memory copies nothing; the next real fork does."""
    with CopyWatch(forks.pid) as watch:
        forks.say(how)
        forks.say(how)
        (child,) = forks.say("f 50")
        report = watch.report("mapping", "interrupted")
    assert [fork.child for fork in report.forks] == [child]
    assert report.vforks == 2


@pytest.mark.parametrize("how", ["s", "v"])
def test_vforked_children_are_forgotten(forks: Target, how: str) -> None:
    """After its exec a child has memory of its own: nothing is kept or counted."""
    with CopyWatch(forks.pid) as watch:
        forks.say("f 50")
        watch.pump()
        for _ in range(20):
            forks.say(how)
            watch.pump()
        report = watch.report("mapping", "interrupted")
        assert report.vforks == 20
        assert [fork.parent.guests for fork in watch.forks] == [{}]


USED_AGAIN = """
import os, signal, subprocess, sys
from pagescan.attribution.copies import CopyWatch

FORKER = '''
import os, signal, sys
for line in sys.stdin:
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write("999")
    pid = os.fork()
    if not pid:
        signal.pause()
    print(pid, flush=True)
    sys.stdin.readline()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print(flush=True)
'''
pipe = subprocess.PIPE
words = [sys.executable, "-c", FORKER]
with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, bufsize=1) as forker:
    def say():
        forker.stdin.write("go\\n")
        return forker.stdout.readline().strip()

    with CopyWatch(forker.pid) as watch:
        for _ in range(2):
            assert say() == "1000"
            watch.pump()
            say()
            watch.report()
        watch.report(end="interrupted")
        print([fork.child.pid for fork in watch.forks])
"""


@pytest.mark.needs("root", "unshare")
def test_a_pid_is_used_again() -> None:
    """Pids come round: another child with the number of one that has ended counts.

    In a namespace of its own the test may choose the next pid.
    """
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    done = subprocess.run(
        [*words, USED_AGAIN], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[1000, 1000]\n"


def test_exec_ends_a_fork(forks: Target) -> None:
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("x")
        forks.say("p 4000")
        report = watch.report("mapping", "interrupted")
    fork = fork_of(report, child)
    assert in_area(fork, "parent") == 0
    assert fork.end in {"exec", "exited"}


def test_another_program_before_the_first_look(forks: Target) -> None:
    """The child's copies count, although only another program can be looked at."""
    with CopyWatch(forks.pid) as watch:
        (child,) = forks.say("l 70")
        comm = Path(f"/proc/{child}/comm")
        witness.wait_for(lambda: comm.read_text() == "sleep\n")
        report = watch.report("function", "interrupted")
    fork = fork_of(report, child)
    (side,) = (side for side in fork.sides if side.role == "child")
    stored = sum(part.pages for part in side.by if part.function == "store")
    assert (stored, fork.end) == (70, "exec")
    assert report.vforks == 0


def test_middle_of_a_double_fork_has_ended(forks: Target) -> None:
    """What its child shares with the oldest process counts as copied."""
    with CopyWatch(forks.pid) as watch:
        grandchild, child = forks.say("b 300")
        report = watch.report("mapping", "interrupted")
    inner, outer = fork_of(report, grandchild), fork_of(report, child)
    assert (inner.parent, outer.end) == (child, "exited")
    assert in_area(inner, "child") == 300
    assert in_area(outer, "child") == 0


def test_two_hundred_short_children(forks: Target) -> None:
    """Each has copied its 100 pages, and ended before it could be looked at."""
    with CopyWatch(forks.pid) as watch:
        forks.say("q 200")
        report = watch.report("mapping")
    assert len(report.forks) == 200
    assert {in_area(fork, "child") for fork in report.forks} == {100}
    assert {fork.end for fork in report.forks} == {"exited"}
    assert report.lost == 0


def test_processes_that_have_ended_are_forgotten(
    forks: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run keeps the last children, and no trace of the others."""
    monkeypatch.setattr(copy_counter, "ENDED_FORKS", 10)
    with CopyWatch(forks.pid) as watch:
        for _ in range(4):
            forks.say("q 20")
            report = watch.report("mapping")
            watch.pump()
        assert len(watch.processes) == 11
        assert len(watch.forks) == 10
        report = watch.report("mapping", "interrupted")
        reporter = watch.reporter
        assert len(reporter.mappings) <= 11
        assert len(reporter.reported) <= 10
        assert watch.processes[forks.pid].lives
    assert {in_area(fork, "child") for fork in report.forks} == {100}


@pytest.mark.needs("root")
def test_state_of_an_existing_child(forks: Target) -> None:
    """Earlier copies are counted by frames, later ones by samples."""
    (child,) = forks.say("f 600")
    forks.say("p 900")
    with CopyWatch(forks.pid) as watch:
        before = fork_of(watch.report("mapping"), child)
        forks.say("p 1200")
        after = fork_of(watch.report("mapping"), child)
        rows = {row.pid: row for row in watch.report().processes}
    assert (before.engine, before.shared_at_fork) == ("state", None)
    assert 900 <= before.copied < 930
    assert in_area(after, "parent") == 300
    assert after.copied - before.copied == 300
    assert rows[child].age is not None
    assert PAGES - 1200 - 30 < rows[child].shared < PAGES - 1200 + 200


COMPARE = """
import sys
from pagescan import native
from pagescan.attribution.forks import both
from pagescan.target.process import Target
one, other = (Target.open(int(word)) for word in sys.argv[1:])
print(*native.compare_copies(one.pagemap, other.pagemap, both(one, other))[1:])
"""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


@pytest.mark.needs("root")
def test_state_without_frames(forks: Target) -> None:
    """Where frames are hidden, the exclusive bit is exact for one child."""
    program = forks.process.args
    plain = Target(*WITHOUT_RIGHTS, *program)  # type: ignore[misc]
    try:
        (child,) = plain.say("f 600")
        plain.say("p 900")
        pids = [str(plain.pid), str(child)]
        answers = [
            subprocess.run(
                [*words, sys.executable, "-c", COMPARE, *pids],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            for words in ([], WITHOUT_RIGHTS)
        ]
    finally:
        plain.process.kill()
        plain.process.communicate()
    assert answers[0] == answers[1]
    assert int(answers[0].split()[1]) >= 900


AS_ANOTHER_USER = """
import subprocess, sys
from pagescan.attribution.copies import CopyWatch
words = [sys.argv[1], "4000"]
target = subprocess.Popen(words, stdin=-1, stdout=-1, text=True, bufsize=1)
pid = int(target.stdout.readline())
with CopyWatch(pid) as watch:
    for line in ("f 700", "p 1000"):
        target.stdin.write(line + "\\n")
        target.stdout.readline()
    (fork,) = watch.report("mapping").forks
    for side in fork.sides:
        print(side.role, *(row.pages for row in side.by if "area" in row.mapping))
target.kill()
"""


@pytest.mark.needs("stranger")
def test_without_privileges(forks: Target) -> None:
    """A user sees the copies of its own processes: all that user mode makes."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(str(forks.process.args[0]), folder)  # type: ignore[index]
        done = run_as_stranger("-c", AS_ANOTHER_USER, program)
    assert done.stdout == "parent 1000\nchild 700\n", done.stderr


PREFORK = """
import gc, os, sys
gc.disable()
data = [{"id": i, "tags": (str(i), i)} for i in range(60_000)]
if sys.argv[1] == "freeze":
    gc.collect()
    gc.freeze()
print(os.getpid(), flush=True)
sys.stdin.readline()
for work in (
    "",
    "gc.collect()",
    "sum(1 for d in data if d['id'] & 1)",
    "for d in data: d['tags']",
):
    if not os.fork():
        exec(work)
        with open("/proc/self/smaps_rollup") as file:
            rows = dict(line.split(":") for line in file if ":" in line)
        print(os.getpid(), int(rows["Private_Dirty"].split()[0]) // 4, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize("freeze", ["freeze", "thaw"])
def test_forked_workers_of_python(freeze: str) -> None:
    """Idle, a collection, one field of each object, a walk: as smaps counts them."""
    process = subprocess.Popen(
        [sys.executable, "-c", PREFORK, freeze],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    dirty: dict[int, int] = {}

    def read() -> None:
        for line in process.stdout or ():
            worker, pages = map(int, line.split())
            dirty[worker] = pages

    reader = threading.Thread(target=read)
    with CopyWatch(pid) as watch:
        process.stdin.write("\n")
        process.stdin.flush()
        reader.start()
        while process.poll() is None:
            watch.pump()
        reader.join()
        report = watch.report(end="exited")
    process.communicate()
    assert len(dirty) == len(report.forks) == 4
    for fork in report.forks:
        side = fork.sides[1]
        assert abs(side.copied + side.new - dirty[fork.child]) < 100
    idle, collect, *readers = (fork.sides[1].copied for fork in report.forks)
    assert idle < 1000 < min(readers)
    assert (collect < 1000) == (freeze == "freeze")
    assert any("gc.freeze()" in hint for hint in report.hints) == (freeze == "thaw")
    assert any("reference counts" in hint for hint in report.hints)


def test_nothing_is_left(forks: Target) -> None:
    before = witness.descriptors(os.getpid())
    with CopyWatch(forks.pid) as watch:
        forks.say("f 10")
        watch.report()
    assert witness.descriptors(os.getpid()) == before


def test_gone(forks: Target) -> None:
    forks.process.kill()
    forks.process.wait()
    with pytest.raises(NoSuchTargetError):
        CopyWatch(forks.pid)
