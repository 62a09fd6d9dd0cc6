"""Groups of living processes: who is a member, told by the kernel's own files."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.model.errors import (
    NoSuchTargetError,
    PagescanError,
    TargetError,
    UsageError,
)
from pagescan.target import cgroups, proc_files
from pagescan.target.group import Cgroup, Container, Match, Selector, Tree, Unit
from tests import witness
from tests.conftest import command

MARK = f"pagescan-group-{os.getpid()}"
ID, LIE = "0123456789abcdef" * 4, "fedcba9876543210" * 4
FAMILY = """
import os, sys
def born(depth):
    if not depth:
        return
    for _ in range(2):
        if os.fork() == 0:
            born(depth - 1)
            os.write(1, b"%d\\n" % os.getpid())
            os.read(0, 1)
            os._exit(0)
born(2)
os.write(1, b"%d\\n" % os.getpid())
os.read(0, 1)
"""
"""A process with two children and four grandchildren, each of which tells its pid."""


@pytest.fixture
def family() -> Iterator[list[int]]:
    """The pids of a family of seven, the root first; all end with the test."""
    words = [sys.executable, "-c", FAMILY, MARK]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        pids = {int(process.stdout.readline()) for _ in range(7)}
        try:
            yield [process.pid, *sorted(pids - {process.pid})]
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def pids_of(selector: Selector, **words: object) -> set[int]:
    """Return the pids of a group's members."""
    return {member.pid for member in selector.members(**words)}  # type: ignore[arg-type]


def parent(pid: int) -> int:
    """Ask the kernel for the parent of a process."""
    return int(witness.status(pid, "PPid"))


# ---- trees -------------------------------------------------------------------------


def test_a_tree(family: list[int]) -> None:
    """The root and all its descendants, and nobody else; the oldest comes first."""
    members = Tree.of(family[0]).members()
    assert {member.pid for member in members} == set(family)
    assert members[0].pid == family[0]
    ages = [member.start_time for member in members]
    assert ages == sorted(ages)
    fields = Path(f"/proc/{family[0]}/stat").read_text().rpartition(")")[2].split()
    assert members[0].start_time == int(fields[19])
    assert members[0].name == Path(f"/proc/{family[0]}/comm").read_text().strip()


def test_a_subtree(family: list[int]) -> None:
    """The tree of a child has its children, and not its parent or siblings."""
    child = next(pid for pid in family if parent(pid) == family[0])
    expected = {pid for pid in family if pid == child or parent(pid) == child}
    assert len(expected) == 3
    assert pids_of(Tree.of(child)) == expected


def test_a_known_descendant_stays(family: list[int]) -> None:
    """If a process between has ended, its children are members for those who know."""
    tree = Tree.of(family[0])
    known = tree.members()
    child = next(pid for pid in family if parent(pid) == family[0])
    orphans = {pid for pid in family if parent(pid) == child}
    os.kill(child, signal.SIGKILL)
    witness.wait_for(lambda: all(parent(pid) != child for pid in orphans))
    assert pids_of(tree, known=known) == set(family) - {child}
    assert pids_of(tree) == set(family) - {child} - orphans


def test_the_root_has_ended(family: list[int]) -> None:
    """The known descendants remain; a fresh answer is empty, and then refused."""
    tree = Tree.of(family[0])
    known = tree.members()
    os.kill(family[0], signal.SIGKILL)
    os.waitpid(family[0], 0)
    assert pids_of(tree, known=known) == set(family[1:])
    assert tree.members() == ()
    with pytest.raises(NoSuchTargetError, match=f"no process in tree {family[0]}"):
        tree.require()
    with pytest.raises(NoSuchTargetError, match=f"no process with pid {family[0]}"):
        Tree.of(family[0])


def test_a_later_process_of_the_same_pid(family: list[int]) -> None:
    """A pid with another start time is another process."""
    first, *others = Tree.of(family[0]).members()
    assert Tree(first.pid, first.start_time - 1).members() == ()
    stranger = first._replace(start_time=first.start_time - 1)
    leaf = others[-1]
    assert pids_of(Tree.of(leaf.pid), known=[stranger]) == {leaf.pid}


def test_a_zombie_is_no_member(family: list[int]) -> None:
    """A child that has ended, and for which its parent has not waited."""
    child = next(pid for pid in family if parent(pid) == family[0])
    os.kill(child, signal.SIGKILL)
    witness.wait_for(lambda: witness.status(child, "State")[0] == "Z")
    assert child not in pids_of(Tree.of(family[0]))


def test_threads_without_their_main_thread() -> None:
    """A process whose main thread has exited still runs: it is a member."""
    script = (
        "import ctypes, os, sys, threading\n"
        "threading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        try:
            witness.wait_for(lambda: witness.status(process.pid, "State")[0] == "Z")
            assert pids_of(Tree.of(process.pid)) == {process.pid}
        finally:
            process.kill()


def test_this_process_is_no_member(family: list[int]) -> None:
    """Neither this process nor a command of pagescan is one; their children are."""
    words = [sys.executable, "-m", "pagescan", "watch", str(family[0]), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        found = pids_of(Tree.of(os.getpid()))
        assert set(family) <= found
        assert not {os.getpid(), watching.pid} & found
        assert watching.pid not in pids_of(Match(str(family[0])))
        watching.send_signal(signal.SIGINT)
        watching.communicate()


def test_processes_that_come_and_go() -> None:
    """While processes end in great number, each answer is well-formed."""
    script = "import os\nwhile True:\n if not os.fork(): os._exit(0)\n os.wait()\n"
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        try:
            tree = Tree.of(process.pid)
            for _ in range(300):
                assert process.pid in pids_of(tree)
                assert process.pid in pids_of(Match("os.fork"))
        finally:
            process.kill()


def test_a_group_in_a_pid_namespace() -> None:
    """There the pids are those of the namespace, and its first process is the root."""
    code = (
        "import subprocess, os\n"
        "from pagescan.target.group import Match, Tree\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "assert child.pid < 100\n"
        "print([member.pid for member in Tree.of(1).members()] == [child.pid])\n"
        "print([member.name for member in Match('sleep 10+').members()])\n"
        "child.kill()\n"
    )
    words = ["unshare", "-p", "-f", "--mount-proc", sys.executable, "-c", code]
    if os.geteuid():
        words.insert(1, "-Ur")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(done.stderr)
    assert done.stdout.splitlines() == ["True", "['sleep']"], done


# ---- matches and labels ------------------------------------------------------------


def test_a_match(family: list[int]) -> None:
    """The command line is searched; so is the name, by itself."""
    assert pids_of(Match(rf"{MARK}$")) == set(family)
    assert pids_of(Match(f"no-{MARK}")) == set()
    name = Path(f"/proc/{family[0]}/comm").read_text().strip()
    assert set(family) <= pids_of(Match(f"^{re.escape(name)}$"))
    with pytest.raises(NoSuchTargetError, match="no process in match"):
        Match(f"no-{MARK}").require()


def test_the_shell_that_runs_pagescan_does_not_match() -> None:
    """Its command line contains the expression; its name is searched all the same."""
    code = (
        "from pagescan.target.group import Match\n"
        "print([m.name for m in Match('wonderland-42').members()])\n"
        "print('sh' in [m.name for m in Match('^sh$').members()])\n"
    )
    done = subprocess.run(
        ["sh", "-c", 'a=wonderland-42; "$0" -c "$1"; exit 0', sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["[]", "True"], done


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["postgres: checkpointer "], "postgres: checkpointer"),
        (["postgres: bench shop [local] COMMIT"], "postgres: bench shop [local]"),
        (
            ["postgres: eu: bench shop ::1(5432) idle in transaction"],
            "postgres: eu: bench shop ::1(5432)",
        ),
        (["postgres: startup recovering 00000001"], "postgres: startup"),
        (["postgres: archiver last was 00000001"], "postgres: archiver"),
        (["nginx: worker process is shutting down"], "nginx: worker process"),
        (["nginx: master process /usr/sbin/nginx -g x"], "nginx: master process"),
        (["dovecot/anvil [11 connections]"], "dovecot/anvil"),
        (["gunicorn: worker [app:app]"], "gunicorn: worker [app:app]"),
        (["uWSGI worker 2"], "uWSGI worker 2"),
        (["/opt/a program"], None),
        (["plain"], None),
        (["/bin/sh", "-c", "read line", "--type=renderer"], "renderer"),
    ],
)
def test_labels(words: list[str], label: str | None) -> None:
    """The title that a process gives itself is its label; a plain argv is not."""
    program = words[0] if words[1:] else "/bin/cat"
    with subprocess.Popen(words, executable=program, stdin=subprocess.PIPE) as process:
        # exec sets the command line last
        witness.wait_for(Path(f"/proc/{process.pid}/cmdline").read_bytes)
        (member,) = Tree.of(process.pid).members()
        assert member.label == label


PREFORK = """\
import os, sys
for _ in range(2):
    if not os.fork():
        break
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_the_parent_of_forks_is_marked() -> None:
    """Of processes with one command line, the parent is, and its children are not."""
    with subprocess.Popen(
        [sys.executable, "-c", PREFORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        tree = Tree.of(process.pid)
        witness.wait_for(lambda: tree.members()[0].label is not None)
        parent, *others = tree.members()
        assert parent.label == f"{parent.name} (parent)"
        assert [member.label for member in others] == [None] * 2


# ---- cgroups -----------------------------------------------------------------------


@pytest.fixture
def hierarchies(tmp_path: Path) -> Iterator[Callable[[str], list[Path]]]:
    """Make a cgroup in the unified hierarchy and, where there is one, in an old one."""
    if os.geteuid():
        pytest.skip("this user may not make cgroups")
    unified = tmp_path / "unified"
    unified.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(unified)], check=True)
    tops = [unified]
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup" and "pids" in options.split(","):
            tops.append(Path(place))
    made: list[Path] = []

    def make(name: str) -> list[Path]:
        folders = [top / MARK / name for top in tops]
        for folder in folders:
            folder.mkdir(parents=True)
            made.append(folder)
        return folders

    try:
        yield make
    finally:
        for folder in reversed(made):
            top = next(top for top in tops if folder.is_relative_to(top))
            for pid in (folder / "cgroup.procs").read_text().split():
                (top / "cgroup.procs").write_text(pid)
            for empty in (folder, folder.parent):
                with contextlib.suppress(OSError):
                    empty.rmdir()
        subprocess.run(["umount", "-l", str(unified)], check=True)


def test_a_cgroup_in_each_hierarchy(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """The unified one and an old one beside it: the path says who is a member."""
    for folder, pid in zip(hierarchies("web.service"), family, strict=False):
        (folder / "cgroup.procs").write_text(str(pid))
        expected = {int(word) for word in (folder / "cgroup.procs").read_text().split()}
        assert expected == {pid}
        path = f"/{MARK}/web.service"
        assert path in Path(f"/proc/{pid}/cgroup").read_text()
        assert pid in pids_of(Cgroup(path))
        assert pid in pids_of(Cgroup(f"/{MARK}/"))
        assert pid not in pids_of(Cgroup(f"/{MARK}/web"))
        assert pid in pids_of(Unit("web"))
        assert pid in pids_of(Unit("web.service"))
        assert pids_of(Unit(f"{MARK}x")) == set()
        assert set(family) <= pids_of(Cgroup("/"))
        assert family[6] not in pids_of(Cgroup(path))


def test_a_container(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """The id stands in the path, whatever stands around it."""
    for folder, pid in zip(hierarchies(f"docker-{ID}.scope"), family, strict=False):
        (folder / "cgroup.procs").write_text(str(pid))
        assert pids_of(Container(ID)) >= {pid}
        assert pids_of(Container(ID[:12])) >= {pid}
    assert not pids_of(Container(ID)) & set(family[2:])
    assert pids_of(Container(ID[1:13])) == set()


def test_an_id_of_two_containers(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """Two containers are not taken for one: the user has to give more digits."""
    other = ID[:12] + LIE[12:]
    folders = [hierarchies(f"docker-{one}.scope")[0] for one in (ID, other)]
    for folder, pid in zip(folders, family, strict=False):
        (folder / "cgroup.procs").write_text(str(pid))
    with pytest.raises(TargetError, match="is the beginning of 2 ids") as refused:
        Container(ID[:12]).require()
    assert all(one in str(refused.value) for one in (ID, other))
    assert family[0] in {member.pid for member in Container(ID[:13]).require()}
    result = command("watch", "--container", ID[:12], "-n", 1)
    assert result.code == 3
    assert "hint: give more digits" in result.stderr


def test_units_of_a_similar_name(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """Where a unit has no process, its instances are named, and escaped names."""
    for name, pid in zip((f"{MARK}@15-main", rf"my\x2d{MARK}"), family, strict=False):
        folder = hierarchies(f"{name}.service")[0]
        (folder / "cgroup.procs").write_text(str(pid))
        assert pid in pids_of(Unit(name))
    for name, found in (
        (MARK, f"{MARK}@15-main.service"),
        (f"{MARK}@", f"{MARK}@15-main.service"),
        (f"my-{MARK}", rf"my\x2d{MARK}.service"),
        (f"{MARK}x", "cat /proc/PID/cgroup"),
    ):
        with pytest.raises(NoSuchTargetError) as refused:
            Unit(name).require()
        assert found in str(refused.value.hint)


def test_a_member_that_moves(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """A process that leaves the cgroup is no member any more, known or not."""
    (folder, *_) = hierarchies("web.service")
    (folder / "cgroup.procs").write_text(str(family[0]))
    selector = Cgroup(f"/{MARK}")
    known = selector.members()
    assert [member.pid for member in known] == [family[0]]
    (folder.parents[1] / "cgroup.procs").write_text(str(family[0]))
    assert selector.members(known=known) == ()
    with pytest.raises(NoSuchTargetError, match=f"no process in cgroup /{MARK}"):
        selector.require()


IN_A_NAMESPACE = """
import ctypes, os, subprocess, sys
open(sys.argv[1], 'w').write(str(os.getpid()))
assert not ctypes.CDLL(None).unshare(0x02020000)  # NEWCGROUP, NEWNS
subprocess.run(['mount', '--make-rprivate', '/'], check=True)
mount = ['mount', '-t', 'cgroup2', 'cgroup2', '/sys/fs/cgroup']
subprocess.run(mount, check=True)
from pagescan.target import cgroups
child = subprocess.Popen(
    ['unshare', '-m', *sys.argv[2:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE
)
child.stdout.readline()
child.stdin.write(b'deaf\\n')
child.stdin.flush()
child.stdout.readline()
paths = cgroups.cgroup_paths(child.pid)
print(paths[-1], cgroups.container_of(paths))
child.kill()
"""
"""Goes into a cgroup and into namespaces of its own, and asks where its child runs."""


CAT = ("sh", "-c", "echo; exec cat")
SEES_THE_TRUTH = """
import subprocess, sys
subprocess.run([sys.executable, *sys.argv[1:]])
"""
SEES_A_LIE = f"""
import os, subprocess, sys
inode = os.stat(os.path.dirname(sys.argv[3])).st_ino
subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', '/sys/fs/cgroup'], check=True)
found = 0
while found < inode:
    os.mkdir('/sys/fs/cgroup/{LIE}')
    found = os.stat('/sys/fs/cgroup/{LIE}').st_ino
    if found < inode:
        os.rmdir('/sys/fs/cgroup/{LIE}')
print(found == inode, flush=True)
{SEES_THE_TRUTH}
"""
"""A process 1 that sees another tree, in which a container has the same inode."""


def asked_in_a_namespace(
    folder: Path, *child: object, process_1: str = SEES_THE_TRUTH
) -> str:
    """Return what IN_A_NAMESPACE prints for a child in a mount namespace of its own."""
    procs = folder / "cgroup.procs"
    words = [sys.executable, "-c", process_1, "-c", IN_A_NAMESPACE, procs, *child]
    done = subprocess.run(
        ["unshare", "-p", "-f", "--kill-child", "--mount-proc", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60 * witness.PATIENCE,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done
    return done.stdout.strip()


def test_a_private_cgroup_namespace(
    family: list[int], hierarchies: Callable[[str], list[Path]]
) -> None:
    """The path is "/" there: the id is found by the inode of the namespace's root."""
    (folder, *_) = hierarchies(ID)
    (folder / "cgroup.procs").write_text(str(family[0]))
    assert asked_in_a_namespace(folder, *CAT) == f"/ {ID}"


@pytest.mark.needs("fuse")
def test_what_a_target_has_mounted_is_not_asked(
    hierarchies: Callable[[str], list[Path]], tmp_path: Path
) -> None:
    """The target sees a file system there that never answers: nothing waits for it."""
    (folder, *_) = hierarchies(ID)
    fuse = (sys.executable, "-m", "tests.fuse", "/sys/fs/cgroup", tmp_path)
    assert asked_in_a_namespace(folder, *fuse) == f"/ {ID}"


def test_a_process_1_that_misleads(hierarchies: Callable[[str], list[Path]]) -> None:
    """A folder elsewhere with the same inode number is not the cgroup asked for."""
    (folder, *_) = hierarchies("web.service")
    said = asked_in_a_namespace(folder, *CAT, process_1=SEES_A_LIE)
    assert said == "True\n/ None"


@pytest.mark.parametrize(
    ("path", "container"),
    [
        (f"/docker/{ID}", ID),
        (f"/system.slice/docker-{ID}.scope", ID),
        (f"/machine.slice/libpod-{ID}.scope/container", ID),
        (f"/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796/{ID}", ID),
        (f"/docker/{'f' * 64}/docker/{ID}", ID),
        (f"/ecs/task/{ID[:32]}-2574823563", f"{ID[:32]}-2574823563"),
        (f"/x/{ID}0", None),
        ("/kubepods/pod2c48913c-b29f-11e7-9350-020968147796", None),
        ("/user.slice/user-1000.slice/session-2.scope", None),
        ("/", None),
    ],
)
def test_container_ids(path: str, container: str | None) -> None:
    """64 hex digits, the last in the path; 32 and a number on ECS; nothing else."""
    assert cgroups.container_of([path]) == container


def test_names_in_paths() -> None:
    """Units and pods, as systemd and kubelet write them."""
    pod = "2c48913c-b29f-11e7-9350-020968147796"
    slice_ = f"kubepods-pod{pod.replace('-', '_')}.slice"
    assert cgroups.pod_of([f"/kubepods.slice/{slice_}/cri-{ID}.scope"]) == pod
    assert cgroups.pod_of([f"/kubepods/pod{pod}/{ID}"]) == pod
    assert cgroups.pod_of(["/system.slice/cron.service"]) is None
    app = "/user.slice/user@1000.service/app.slice/_web.service/sub"
    assert cgroups.unit_of([app]) == "web.service"
    assert cgroups.unit_of(["/a/b"]) is None
    assert cgroups.has_unit([app], "web.service")
    assert cgroups.has_unit([app], "user@1000.service")
    assert not cgroups.has_unit([app], "sub.service")
    assert cgroups.unit_name("a.timer") == "a.timer.service"
    assert cgroups.unit_name("app.slice") == "app.slice"


# ---- refusals ----------------------------------------------------------------------


MALFORMED = {
    "system.slice": (Cgroup, "does not begin with /"),
    "/sys/fs/cgroup/a": (Cgroup, "is where it is mounted"),
    "a/b.service": (Unit, "malformed unit"),
    "": (Unit, "malformed unit"),
    "postgres": (Container, "malformed container id"),
    ID[:11]: (Container, "malformed container id"),
    "a(": (Match, "malformed regular expression"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    """A value that cannot be right is refused before /proc is read."""
    kind, said = MALFORMED[name]
    with pytest.raises(UsageError, match=re.escape(said)):
        kind(name)


def test_a_process_without_descriptors() -> None:
    """If no file can be opened, that does not pass for an empty group."""
    with no_descriptors(), pytest.raises(PagescanError, match="EMFILE"):
        proc_files.read_proc(os.getpid(), "stat")
    assert proc_files.read_proc(1 << 30, "stat") is None


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no more files during the block."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
