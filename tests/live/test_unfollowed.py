"""A process that cannot be followed is named with the reason, and the others go on.

Each number of free descriptors is tried: a call that finds none may not take a process
for one that has ended, and may not leave a descriptor of its own behind.
"""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pagescan.attribution import copy_counter, families, forks as forks_of, symbols
from pagescan.attribution.copies import CopyWatch
from pagescan.attribution.group_copies import GroupCopyWatch
from pagescan.attribution.thread_names import ThreadNames
from pagescan.model.errors import PagescanError, TargetError
from pagescan.model.mapping_set import MappingSet
from pagescan.target import find, forked_memory, maps
from pagescan.target.group import Tree
from pagescan.target.labels import Labels
from pagescan.target.process import Target as Process
from tests import witness
from tests.conftest import STRANGER, run_as_stranger
from tests.forks import Target, forks
from tests.refusal.test_older_kernels import under

__all__ = ["forks"]

EACH_NUMBER = """
import errno, os, resource, sys
import pagescan
from pagescan.attribution.fork_events import ForkEvents

pid = int(sys.argv[2])
tree = pagescan.Tree.of(pid)

def copies(make):
    with make() as watch:
        report = watch.report()
        assert all(row.end is None for row in report.processes), report.processes
        whys = [item.why for item in report.untracked]
        assert all("(EMFILE)" in why for why in whys), whys
        assert len(report.processes) + len(whys) >= 3
        return len(report.forks) == 2 and not whys

def writers(**options):
    with pagescan.WriterWatch(pid, **options) as watch, pagescan.track(pid) as tracking:
        watch.follow(tracking)
        watch.look()
        watch.report()
    return True

def reader():
    with ForkEvents(pid):
        return True

KINDS = {
    "group": lambda: copies(lambda: pagescan.GroupCopyWatch(tree)),
    "process": lambda: copies(lambda: pagescan.CopyWatch(pid)),
    "writers": writers,
    "python": lambda: writers(python=True),
    "reader": reader,
}

def descriptors():
    return {
        (fd, os.readlink(f"/proc/self/fd/{fd}"))
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    }

def within(free, call):
    taken = []
    try:
        while True:
            taken.append(os.dup(2))
    except OSError:
        pass
    for fd in taken[:free]:
        os.close(fd)
    try:
        return call()
    finally:
        for fd in taken[free:]:
            os.close(fd)

call = KINDS[sys.argv[1]]
assert call()
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
before = descriptors()
failed = whole = free = 0
while whole < 20:
    try:
        done = within(free, call)
    except pagescan.PagescanError as error:
        assert error.errno == errno.EMFILE, (free, repr(error))
        assert error.call, (free, repr(error))
        failed, done = failed + 1, False
    whole = whole + 1 if done else 0
    left = descriptors() ^ before
    assert not left, (free, left)
    free += 1
print(failed)
"""


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["group", "process", "writers", "python", "reader"])
def test_each_number_of_free_descriptors(forks: Target, kind: str) -> None:
    """Errors name the limit, nothing has ended, and nothing is left open."""
    for _ in range(2):
        forks.say("f 10")
    words = [sys.executable, "-c", EACH_NUMBER, kind, str(forks.pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1


@contextmanager
def without_descriptors() -> Iterator[None]:
    """Let this process have no descriptor left."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(2)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def _watch(kind: str, pid: int) -> GroupCopyWatch | CopyWatch:
    return GroupCopyWatch(Tree.of(pid)) if kind == "group" else CopyWatch(pid)


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["group", "process"])
def test_no_descriptor_for_a_new_child(forks: Target, kind: str) -> None:
    """The child is told with its reason; the others go on; later it is followed."""
    with _watch(kind, forks.pid) as watch:
        (old,) = forks.say("f 100")
        watch.report()
        (new,) = forks.say("f 200")
        with without_descriptors():
            watch.pump()
        assert [item.pid for item in watch.untracked] == [new]
        assert "(EMFILE)" in watch.untracked[0].why
        assert {watch.processes[pid].end for pid in (forks.pid, old)} == {None}
        if kind == "group":
            report = watch.report()
            assert {row.pid for row in report.processes} == {forks.pid, old, new}
            assert report.untracked == ()


def name_of(pid: int) -> str:
    """Return the kernel's name of a process."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.needs("root")
def test_no_descriptor_for_a_new_program() -> None:
    """The process is told with the new name, and then followed again."""
    words = ["sh", "-c", "read line; exec sleep 1000"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        try:
            with GroupCopyWatch(Tree.of(process.pid)) as watch:
                assert watch.processes[process.pid].name == "sh"
                assert process.stdin is not None
                process.stdin.write(b"go\n")
                process.stdin.flush()
                witness.wait_for(lambda: name_of(process.pid) == "sleep")
                with without_descriptors():
                    watch.pump()
                (item,) = watch.untracked
                assert (item.pid, item.name) == (process.pid, "sleep")
                watch.report()
                assert watch.untracked == ()
        finally:
            process.kill()


SPAWNS = """
import os, sys
sys.stdin.readline()
pid = os.posix_spawn("/bin/sleep", ["sleep", "1000"], os.environ)
print(pid, flush=True)
sys.stdin.readline()
os.kill(pid, 9)
"""


@pytest.mark.needs("root")
def test_no_descriptor_for_a_spawned_program() -> None:
    """A child that had its parent's memory is told with its name, not with none."""
    words = [sys.executable, "-c", SPAWNS]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with GroupCopyWatch(Tree.of(process.pid)) as watch:
                print("go", file=process.stdin, flush=True)
                child = int(process.stdout.readline())
                witness.wait_for(lambda: name_of(child) == "sleep")
                with without_descriptors():
                    for _ in range(3):
                        watch.pump()
                (item,) = watch.untracked
                assert (item.pid, item.name) == (child, "sleep")
                assert "(EMFILE)" in item.why
                rows = {row.pid: row.name for row in watch.report().processes}
                assert rows[child] == "sleep"
                assert watch.untracked == ()
        finally:
            process.communicate("end\n")


NAMELESS = """
import ctypes, os, threading
def wait():
    ctypes.CDLL(None).prctl(15, b"")
    os.write(1, b"%d\\n" % threading.get_native_id())
    threading.Event().wait()
threading.Thread(target=wait).start()
wait()
"""


def test_a_process_without_a_name() -> None:
    """It has the name of its program, and its threads have their numbers."""
    words = [sys.executable, "-c", NAMELESS]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            tids = {int(process.stdout.readline()) for _ in range(2)}
            assert name_of(process.pid) == ""
            program = Path(f"/proc/{process.pid}/exe").resolve().name
            (member,) = Tree.of(process.pid).members()
            assert member.name == program
            with Process.open(process.pid) as target:
                assert target.facts.name == program
                labels = Labels(target).of(maps.read(target))
                texts = [label.text for label in labels if label is not None]
            names = ThreadNames(process.pid)
            assert {names.of(tid) for tid in tids} == {*map(str, tids)}
            (thread,) = tids - {process.pid}
            assert f"[stack of {thread}]" in texts
        finally:
            process.kill()


@pytest.mark.needs("root")
def test_no_descriptor_for_what_is_given_back(forks: Target) -> None:
    """A note says that memory which a side gives back is not seen."""
    with CopyWatch(forks.pid) as watch:
        forks.say("f 100")
        watch.report()
        drops = watch._drops
        drops.close()
        drops._due = 0
        with without_descriptors():
            watch.pump()
        assert any("counts as copied" in note for note in watch.notes)
        assert watch.processes[forks.pid].lives


def test_a_limit_is_no_end(forks: Target) -> None:
    with without_descriptors():
        assert families.lives(forks.pid)
        with pytest.raises(PagescanError, match="EMFILE"):
            forked_memory.sharing_parent(forks.pid)
        with pytest.raises(PagescanError, match="EMFILE"):
            find.named_processes()
    forks.process.kill()
    forks.process.wait()
    assert not families.lives(forks.pid)
    assert forked_memory.sharing_parent(forks.pid) is None


FAMILY = """
import mmap, os, signal
area = mmap.mmap(-1, 100 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area[:] = bytes([1]) * len(area)
for _ in range(2):
    if os.fork() == 0:
        area[:] = bytes([2]) * len(area)
        os.write(1, b"%d\\n" % os.getpid())
        signal.pause()
signal.pause()
"""


@pytest.mark.needs("root")
def test_the_oldest_ends_while_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The family is counted from the next process on."""
    words = [sys.executable, "-c", FAMILY]
    with ExitStack() as undo:
        process = undo.enter_context(
            subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        )
        undo.callback(process.kill)
        assert process.stdout is not None
        children = [int(process.stdout.readline()) for _ in range(2)]
        for pid in children:
            undo.callback(os.kill, pid, signal.SIGKILL)
        read = forks_of.private_of

        def private_of(target: Process) -> MappingSet:
            found = read(target)
            if target.pid == process.pid:
                process.kill()
                process.wait()
            return found

        monkeypatch.setattr(forks_of, "private_of", private_of)
        pids = [process.pid, *children]
        count = forks_of.copies_within(pids, lambda _: suppress(TargetError))
    assert process.returncode == -signal.SIGKILL
    assert 100 <= count < 5000


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["group", "process"])
def test_no_descriptor_to_count_a_process(
    forks: Target, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told with the reason and followed; the copies of the others are counted."""
    first, second, third = (forks.say("f 500")[0] for _ in range(3))
    count = forks_of.copies_within
    open_one = Process.open

    def opened(pid: int, **facts: int) -> Process:
        if pid == second:
            with without_descriptors():
                return open_one(pid, **facts)
        return open_one(pid, **facts)

    def within(*arguments: Any) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(Process, "open", opened)
            return count(*arguments)

    monkeypatch.setattr(copy_counter, "copies_within", within)
    with _watch(kind, forks.pid) as watch:
        report = watch.report()
        (item,) = report.untracked
        assert (item.pid, item.name) == (second, "forks")
        assert item.why.startswith("its copies until now are not known: cannot ")
        assert "(EMFILE)" in item.why
        pids = {row.pid for row in report.processes}
        assert pids == {forks.pid, first, second, third}
        assert 1000 <= report.summary.copied < 1400
    monkeypatch.undo()
    with _watch(kind, forks.pid) as watch:
        assert watch.untracked == ()
        assert 1500 <= watch.report().summary.copied < 2000


@pytest.mark.needs("root")
def test_a_child_ends_before_it_is_sampled(
    forks: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are followed."""
    first, _ = (forks.say("f 50")[0] for _ in range(2))
    find = Tree.members

    def members(self: Tree, known: object = ()) -> object:
        found = find(self)
        forks.say("e")  # it waits for the youngest, too
        return found

    monkeypatch.setattr(Tree, "members", members)
    with CopyWatch(forks.pid) as watch:
        report = watch.report()
    assert {row.pid for row in report.processes} == {forks.pid, first}
    assert report.untracked == ()


OF_TWO_USERS = """
import ctypes, os, sys
gate, = os.pipe()[:1]
child = os.fork()
if child == 0:
    os.read(gate, 1)
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
assert ctypes.CDLL(None).prctl(4, 1) == 0
print(os.getpid(), child, flush=True)
os.read(gate, 1)
"""
FOLLOW = """
import sys
import pagescan
pid = int(sys.argv[1])
tree = pagescan.Tree.of(pid)
for make in lambda: pagescan.CopyWatch(pid), lambda: pagescan.GroupCopyWatch(tree):
    with make() as watch:
        report = watch.report()
    print([row.pid for row in report.processes], *report.untracked, sep="|")
"""


@pytest.mark.needs("stranger")
def test_a_child_of_another_user() -> None:
    """It is named with the reason, and does not end the others."""
    user = str(STRANGER)
    words = [sys.executable, "-c", OF_TWO_USERS, user]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pid, child = map(int, process.stdout.readline().split())
            done = run_as_stranger("-c", FOLLOW, pid)
        finally:
            process.kill()
            os.kill(child, signal.SIGKILL)
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith(f"[{pid}]|MemberUntracked(pid={child}, "), line
        assert "belongs to another user" in line


@pytest.mark.needs("root")
@pytest.mark.parametrize("names", ["no-kcmp", "unknown-kcmp"])
def test_where_nobody_may_compare(forks: Target, names: str) -> None:
    """A container may forbid kcmp(2) to all: that is no reason to leave a child out."""
    (child,) = forks.say("f 100")
    result = under(names, "cow", forks.pid, "--duration", "0.1", "--json")
    assert result.code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["untracked"] == []
    assert [fork["child"] for fork in report["forks"]] == [child]


def test_names_of_a_process_that_ends(
    forks: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle leaves no descriptor open."""
    before = witness.descriptors(os.getpid())

    def fails(_: object) -> None:
        raise PagescanError("no mappings")

    monkeypatch.setattr(symbols.Symbols, "refresh", fails)
    with pytest.raises(PagescanError, match="no mappings"):
        symbols.Symbols(forks.pid)
    assert witness.descriptors(os.getpid()) == before
    program = families.Program(forks.pid)
    program.look()
    assert program.notes == [f"functions of {forks.pid} have no name: no mappings"]
