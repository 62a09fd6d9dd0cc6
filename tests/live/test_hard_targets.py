"""Targets that are hard to attach to: the attach works or is refused within 2 s.

In both cases the target goes on and ends with 0: targets/peculiar.c.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan import native
from tests import machine, witness
from tests.conftest import HERE, Result, Target, command

pytestmark = pytest.mark.needs("tracking")

BARE = ("-nostdlib", "-static", "-ffreestanding", "-fno-stack-protector")


def build(place: Path, name: str, *words: str) -> Path:
    """Compile a program of targets/."""
    program = place / name
    source = str(HERE / "targets" / f"{name}.c")
    subprocess.run(
        ["cc", "-O1", *words, "-o", str(program), source, "-pthread"], check=True
    )
    return program


@pytest.fixture(scope="session")
def peculiar() -> Iterator[Path]:
    """The program of the hard kinds, in a place where an ordinary user can run it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield build(place, "peculiar")


Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start programs that wait for the end of stdin; each must exit with 0."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*words: str | Path, user: int | None = None) -> int:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield begin
    for process in started:
        assert process.poll() is None, "it has not lived through the test"
        assert witness.status(process.pid, "TracerPid") == "0"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()


def attach(pid: int, method: str) -> None:
    """Arm and disarm, and check the reported method of the attach."""
    result = command("arm", "-v", pid)
    assert result.code == 0, result.stderr
    assert method in result.stderr
    assert command("diff", pid, "--json").code == 0
    assert command("disarm", pid).code == 0


def refused(result: Result, words: str) -> None:
    """Assert that the target is refused with one line and at most one hint."""
    assert result.code == 3, result
    lines = result.stderr.splitlines()
    assert words in lines[0]
    assert [line for line in lines[1:] if not line.startswith("hint: ")] == []


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    "kind", ["kill", "trap", "errno", "notify", "strict", "thread"]
)
def test_filter_is_suspended_by_root(start: Start, peculiar: Path, kind: str) -> None:
    attach(start(peculiar, f"seccomp-{kind}"), "restore it")


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["kill", "trap", "errno", "notify"])
def test_filter_is_respected_by_others(start: Start, peculiar: Path, kind: str) -> None:
    pid = start(peculiar, f"seccomp-{kind}", user=65534)
    refused(as_nobody("arm", pid), "has a seccomp filter")


@pytest.mark.needs("root")
def test_thread_without_the_filter_is_taken(start: Start, peculiar: Path) -> None:
    """A filter on one thread is no obstacle: threads without one are tried first."""
    pid = start(peculiar, "seccomp-thread", user=65534)
    witness.wait_for(lambda: witness.status(pid, "Seccomp") == "2")
    script = (
        "import os, sys\n"
        "from pagescan.target import process as target\n"
        "from pagescan.tracking import attach\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(attach.take(target.Target.open(int(sys.argv[1]))))\n"
    )
    words = [sys.executable, "-c", script, str(pid)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "restore it" in done.stdout, done.stderr


def as_nobody(*words: object, user: int = 65534) -> Result:
    """Run the command as an ordinary user, with its modules loaded before."""
    script = (
        "import os, sys, click, pagescan.cli, pagescan.tracking.tracking\n"
        "import pagescan.commands.options\n"
        "import pagescan.commands.arm, pagescan.session.keeper, pagescan.render.rows\n"
        f"os.setgroups([]); os.setgid({user}); os.setuid({user})\n"
        f"sys.argv = ['pagescan', *{[str(word) for word in words]!r}]\n"
        "from pagescan.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": ""},
    )
    return Result(done.returncode, done.stdout, done.stderr)


def state(pid: int) -> str:
    """Return the state of the main thread, as one letter."""
    return witness.status(pid, "State")[0]


def refused_in_time(pid: int) -> None:
    """Assert that the attach failed because no thread could be stopped in time.

    Without a limit it would wait until the command is killed.
    """
    refused(command("arm", pid), "could not be stopped")


@pytest.mark.parametrize("place", ["random", "same"])
def test_exec_meanwhile(start: Start, peculiar: Path, place: str) -> None:
    """If the target calls exec before it stops, the new program is not touched.

    Without address randomisation the new program would have its instructions in the
    same places, and the earlier facts about the memory would still be wrong.
    """
    where = ["setarch", "-R"] if place == "same" else []
    pid = start(*where, peculiar, "exec")
    ends: Counter[tuple[str, str]] = Counter()
    for _ in range(1000):
        result = native.attach(pid)
        ends[result.step, result.method] += 1
        if result.uffd >= 0:
            os.close(result.uffd)
    assert ends["exec", "none"], ends
    assert ends["done", "rop"], ends
    assert not ends["done", "plain"], "it was another address space"


def test_random_bytes_are_rewritten(start: Start, peculiar: Path) -> None:
    """Rewritten random bytes differ from those before the stop: same program."""
    pid = start(peculiar, "random-bytes")
    for _ in range(200):
        result = native.attach(pid)
        assert result.step == "done", result
        os.close(result.uffd)


def test_vfork_is_not_waited_for(start: Start, peculiar: Path) -> None:
    """If the only thread cannot stop, that is reported within 2 s, and it goes on."""
    pid = start(peculiar, "vfork")
    witness.wait_for(lambda: state(pid) == "D")
    refused_in_time(pid)
    assert state(pid) == "D"


@pytest.mark.parametrize("kind", ["vfork-thread", "vfork-main"])
def test_another_thread_is_taken(start: Start, peculiar: Path, kind: str) -> None:
    """A thread that cannot stop is no obstacle, even if it is the main one."""
    pid = start(peculiar, kind)
    path = Path(f"/proc/{pid}/task")
    witness.wait_for(
        lambda: (
            "D"
            in {
                (task / "stat").read_text().rpartition(") ")[2][0]
                for task in path.iterdir()
            }
        )
    )
    attach(pid, "restore it")


@pytest.mark.needs("root")
@pytest.mark.parametrize("kind", ["thread", "bare"])
def test_frozen(start: Start, peculiar: Path, tmp_path: Path, kind: str) -> None:
    """Threads of a paused container stop and make no call: refused, unharmed."""
    if kind == "bare":
        pid = start(build(tmp_path, "bare", *BARE))
    else:
        pid = start(peculiar, kind)
    before = witness.descriptors(pid)
    with machine.frozen(pid, tmp_path):
        refused(command("arm", pid), "does not run")
    assert witness.descriptors(pid) == before
    way = "plain method" if kind == "bare" else "restore it"
    attach(pid, way)
    assert witness.descriptors(pid) == before


def test_one_thread_is_traced(start: Start, peculiar: Path) -> None:
    """A debugger that holds a thread other than the main one is no obstacle."""
    pid = start(peculiar, "thread")
    other = max(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    assert other != pid
    code = (
        "import ctypes,os,sys;libc=ctypes.CDLL(None);tid=int(sys.argv[1]);"
        "assert libc.ptrace(16,tid,0,0)==0;"  # PTRACE_ATTACH
        "os.waitpid(tid,0x40000000);"  # __WALL
        "print('stopped',flush=True);sys.stdin.read()"
    )
    tracer = subprocess.Popen(
        [sys.executable, "-c", code, str(other)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == b"stopped\n"
    attach(pid, "restore it")
    assert (
        Path(f"/proc/{pid}/task/{other}/stat").read_text().rpartition(") ")[2][0] == "t"
    )
    tracer.communicate()


def test_main_thread_has_exited(start: Start, peculiar: Path) -> None:
    pid = start(peculiar, "main-exited")
    witness.wait_for(lambda: witness.status(pid, "State")[0] == "Z")
    for verb in ("scan", "maps"):
        assert command(verb, pid, "--json").json()["summary"]["pages"] > 0
    attach(pid, "restore it")


def test_main_thread_exits_while_tracked(peculiar: Path) -> None:
    """The process has not ended, and writes of its other thread are found."""
    with subprocess.Popen(
        [peculiar, "main-exits-later"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        assert command("arm", process.pid).code == 0
        process.stdin.write(b"!")
        process.stdin.flush()
        witness.wait_for(lambda: state(process.pid) == "Z")

        def written() -> int:
            result = command("diff", process.pid, "--rearm", "--json")
            assert result.code == 0, result.stderr
            return int(result.json()["summary"]["categories"]["written"])

        for _ in range(2):
            witness.wait_for(written)  # when the thread has had the processor
        assert command("disarm", process.pid).code == 0
        (thread,) = set(os.listdir(f"/proc/{process.pid}/task")) - {str(process.pid)}
        flags = Path(f"/proc/{process.pid}/task/{thread}/smaps").read_text()
        assert " uw" not in flags
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.mark.needs("cc-m32")
def test_32_bit_is_refused(start: Start, tmp_path: Path) -> None:
    pid = start(build(tmp_path, "bare", "-m32", "-no-pie", "-fno-pie", *BARE))
    refused(command("arm", pid), "runs 32-bit code")
    assert command("scan", pid, "--json").json()["summary"]["pages"] > 0


def test_plain_way_is_said(start: Start, tmp_path: Path) -> None:
    """Without a libc, the reported method is the plain one."""
    attach(start(build(tmp_path, "bare", *BARE)), "the plain method")


def test_static_program(start: Start, tmp_path: Path) -> None:
    attach(start(build(tmp_path, "peculiar", "-static")), "restore it")


@pytest.mark.needs("busybox")
def test_busybox(start: Start) -> None:
    script = "echo ready; read line; exit 0"
    attach(start("busybox", "sh", "-c", script), "restore it")


@pytest.mark.needs("unshare", "root")
def test_container_from_outside(mkmem: Path) -> None:
    """Tracking is exact from outside a user, PID and mount namespace."""
    process = subprocess.Popen(
        [
            *("unshare", "--user", "--map-root-user", "--pid", "--fork"),
            *("--mount-proc", "--kill-child", str(mkmem), "heap=anon,pages=64,fill=1"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    pid = int(children.split()[0])
    inside = Target(process, pid, {})
    assert '"ranges"' in line
    inside.where("heap")
    assert command("arm", pid).code == 0
    inside.write("heap", {3, 5, 60})
    document = command("diff", pid, "--json").json()
    assert inside.pages(document, "heap") == {3, 5, 60}
    assert command("disarm", pid).code == 0
    inside.tell("quit")
    process.communicate(timeout=60)
    assert process.returncode == 0
