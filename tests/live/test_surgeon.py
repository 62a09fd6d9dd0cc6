"""The attach is done by a separate process: nothing hangs, no host is disturbed.

The targets are in targets/stubborn.c: without the surgeon, each would make pagescan
wait for ever, or for a long time, with every signal blocked.
"""

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pagescan
from pagescan import native
from pagescan.target import process as targets
from pagescan.tracking import attach
from tests import witness
from tests.live.test_hard_targets import build

pytestmark = pytest.mark.needs("tracking")

PAGESCAN = (sys.executable, "-m", "pagescan")
BOUND = 60.0  # seconds: 2 are promised, without a limit it never ends


@pytest.fixture(scope="session")
def stubborn() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield build(Path(name), "stubborn")


@pytest.fixture
def sleeper() -> Iterator[int]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process.pid
            witness.wait_for(lambda: witness.status(process.pid, "State")[0] == "S")
        finally:
            process.kill()


def used_by_children() -> float:
    """Return the processor time of all children that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def begin(program: Path, kind: str, place: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [str(program), kind, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    return process


def arm(pid: int) -> tuple[int, str, float]:
    """Run `arm`; return its exit code, its messages, and its seconds."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*PAGESCAN, "arm", str(pid)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.fail("it hangs")
    return done.returncode, done.stderr, time.monotonic() - begun


def ends_well(process: subprocess.Popen[bytes]) -> None:
    with process:
        assert process.poll() in (None, 0)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


def test_exec_of_a_thread_while_another_is_traced(
    stubborn: Path, tmp_path: Path
) -> None:
    """The exec waits until the traced thread is reaped; the attach never waits."""
    process = begin(stubborn, "execs", tmp_path)
    code, _, seconds = arm(process.pid)
    assert (code, process.wait(60)) == (3, 0)
    assert seconds < BOUND
    ends_well(process)


def test_exec_that_does_not_end(stubborn: Path, tmp_path: Path) -> None:
    """The exec waits for a file, and a tracer waits for the exec."""
    process = begin(stubborn, "leased", tmp_path)
    code, said, seconds = arm(process.pid)
    assert code == 3
    assert "it is in an execve(2)" in said
    assert seconds < BOUND
    ends_well(process)


def test_code_without_end(stubborn: Path, tmp_path: Path) -> None:
    process = begin(stubborn, "endless", tmp_path)
    code, said, seconds = arm(process.pid)
    assert code == 3
    assert "could not be examined in time" in said
    assert seconds < BOUND
    ends_well(process)


@pytest.mark.parametrize("kind", ["many", "many-code", "many-elf"])
def test_many_mappings_with_long_paths(
    stubborn: Path, tmp_path: Path, kind: str
) -> None:
    """It has 60,000 mappings with paths of 4 KiB, none of which is needed.

    Judged by processor time: on a busy machine the 2 s of an attach may be too short.
    """
    process = begin(stubborn, kind, tmp_path)
    before = used_by_children()
    result = native.attach(process.pid, seconds=BOUND)
    assert (result.error, result.step) == (0, "done"), result
    assert used_by_children() - before < 2 * witness.PATIENCE
    os.close(result.uffd)
    ends_well(process)


@pytest.mark.parametrize("kind", ["leased", "endless"])
@pytest.mark.parametrize("verb", ["arm", "watch", "who"])
def test_interrupted(stubborn: Path, tmp_path: Path, kind: str, verb: str) -> None:
    """Ctrl-C takes effect at once, whatever the attach waits for."""
    process = begin(stubborn, kind, tmp_path)
    codes: list[int] = []
    while codes.count(3) == len(codes) < 10:  # on a busy machine the attach ends first
        with subprocess.Popen([*PAGESCAN, verb, str(process.pid)]) as command:
            witness.wait_for(lambda: children(command.pid))
            command.send_signal(signal.SIGINT)
            codes.append(command.wait(60))
    assert codes[-1] == 130, codes
    ends_well(process)


def test_surgeon_that_is_killed(stubborn: Path, tmp_path: Path) -> None:
    """By another process: it is said what killed it, and that it was not pagescan."""
    process = begin(stubborn, "leased", tmp_path)
    words = [*PAGESCAN, "arm", str(process.pid)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
        witness.wait_for(lambda: children(command.pid))
        os.kill(int(children(command.pid)[0]), signal.SIGKILL)
        assert command.stderr is not None
        said = command.stderr.read()
        assert command.wait(60) == 1
    assert "the attaching process was killed by SIGKILL, not by pagescan" in said
    ends_well(process)


def children(pid: int) -> list[str]:
    """Return the children of a process: of any of its threads."""
    found: list[str] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += (task / "children").read_text().split()
    return found


def test_host_that_waits_for_all(sleeper: int) -> None:
    """waitpid(-1) of another thread returns no process of the attach."""
    met: list[int] = []
    going_on = threading.Event()

    def reap() -> None:
        while not going_on.is_set():
            try:
                met.append(os.waitpid(-1, os.WNOHANG | os.WUNTRACED)[0])
            except ChildProcessError:
                met.append(0)

    script = "import time; time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", script]) as child:
        while os.waitpid(-1, os.WNOHANG | os.WUNTRACED)[0]:
            pass  # left by other tests
        reaper = threading.Thread(target=reap)
        reaper.start()
        results = [native.attach(sleeper) for _ in range(30)]
        going_on.set()
        reaper.join()
        child.kill()
    for result in results:
        assert result.error == 0, result
        os.close(result.uffd)
    assert set(met) == {0}


def test_host_has_no_zombie(sleeper: int) -> None:
    before = children(os.getpid())
    threads = os.listdir("/proc/self/task")
    with pagescan.track(sleeper, ["[stack]"]):
        assert children(os.getpid()) == before
    witness.wait_for(lambda: os.listdir("/proc/self/task") == threads)


def test_host_that_may_not_be_traced(sleeper: int) -> None:
    """A daemon that has given up its rights is not dumpable."""
    script = (
        "import os, sys, ctypes\n"
        "from pagescan.target import process as target\n"
        "from pagescan.tracking import attach\n"
        "ctypes.CDLL(None).prctl(4, 0)\n"  # PR_SET_DUMPABLE
        "print(attach.take(target.Target.open(int(sys.argv[1]))))\n"
    )
    words = [sys.executable, "-c", script, str(sleeper)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "a thread was stopped" in done.stdout, done.stderr


def test_pid_of_another_process(sleeper: int) -> None:
    """If the pid was reused since opening, the new process is left alone."""
    witness.wait_for(lambda: witness.status(sleeper, "State")[0] == "S")
    switches = "nonvoluntary_ctxt_switches", "voluntary_ctxt_switches"
    before = [witness.status(sleeper, name) for name in switches]
    result = native.attach(sleeper, start_time=1)
    assert (result.error, result.uffd) == (errno.ESRCH, -1)
    assert [witness.status(sleeper, name) for name in switches] == before


def test_thread_of_ours_where_yama_is_in_the_way(
    sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ptrace_scope 1 only ancestors may trace a process: a thread does it."""
    real = native.attach
    tried = []

    def at_scope_1(pid: int, *, by_thread: bool = False, **rest: object) -> object:
        tried.append(by_thread)
        result = real(pid, by_thread=by_thread)
        if by_thread:
            return result
        os.close(result.uffd)
        return result._replace(uffd=-1, step="open", error=errno.EACCES)

    monkeypatch.setattr(native, "attach", at_scope_1)
    monkeypatch.setattr(attach, "yama_scope", lambda: "1")
    with targets.Target.open(sleeper) as opened:
        taken = attach.take(opened)
    os.close(taken.uffd)
    assert tried == [False, True]
