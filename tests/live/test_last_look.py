"""CMD has a tracer for life: the last look misses nothing, and CMD notices nothing.

The program is targets/lastwords.c. The same program without pagescan is the witness.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests import witness
from tests.conftest import HERE, STRANGER, checked, command, python_of_all

pytestmark = pytest.mark.needs("tracking")

PAGES = 100 << 8
KILLS = int(os.environ.get("PAGESCAN_KILLS", "4"))
WATCH = (sys.executable, "-m", "pagescan", "watch", "--json", "-i", "3600")

Words = tuple[str, ...]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The program that writes in its last moment."""
    path = tmp_path_factory.mktemp("targets") / "lastwords"
    source = HERE / "targets/lastwords.c"
    subprocess.run(
        ["cc", "-O1", "-Wall", "-o", str(path), str(source), "-pthread"], check=True
    )
    return str(path)


@contextlib.contextmanager
def watching(*words: str, options: Words = ()) -> Iterator["subprocess.Popen[str]"]:
    """Run CMD under watch; kill what is left of both."""
    watch = subprocess.Popen(
        [*WATCH, *options, "--", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield watch
    finally:
        watch.kill()
        watch.communicate()
        command("sessions")  # removes the files of a killed one


def own_line(watch: "subprocess.Popen[str]") -> str:
    """Return the next line that CMD has printed."""
    assert watch.stderr is not None
    while (line := watch.stderr.readline()).startswith("pagescan:"):
        pass
    return line.strip()


def pid_of_tracer(pid: int) -> int:
    """Return what the kernel says of the tracer of a process."""
    return int(witness.status(pid, "TracerPid"))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (("exit", "7"), 7),
        (("kill", str(int(signal.SIGTERM))), 143),
        (("kill", str(int(signal.SIGKILL))), 137),
        (("kill", str(int(signal.SIGSEGV))), 139),
        (("thread",), 5),
        (("main-first",), 0),
        (("threads",), 6),
        (("untraced",), 4),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_last_moment_is_counted(program: str, kind: Words, code: int) -> None:
    """100 MiB that are written just before the end are found, however it ends."""
    result = command("watch", "--json", "-i", "3600", "--", program, *kind)
    assert result.code == code
    (line,) = map(checked, result.stdout.splitlines())
    assert (line["end"], line["unseen_ns"]) == ("exited", None)
    own = next(text for text in result.stderr.splitlines() if text.startswith("0x"))
    start, end = (int(word, 16) for word in own.split())
    found: set[int] = set()
    for region in line["regions"]:
        low, high = int(region["start"], 16), int(region["end"], 16)
        found.update(range(max(low, start), min(high, end), 4096))
    assert found == set(range(start, end, 4096))
    assert len(found) == PAGES


def test_short_command_is_counted() -> None:
    """A program that ends at once has written pages, and they are shown."""
    for _ in range(10):
        result = command("watch", "--json", "--", "true")
        last = checked(result.stdout.splitlines()[-1])
        assert (last["end"], last["unseen_ns"]) == ("exited", None)
        assert last["totals"]["pages"] > 10


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("many-threads", ["joined"]),
        ("vfork", ["forked"]),
        ("clone-child", ["0", "3", "0", "3"]),
        ("tracer", ["2", "0"]),
    ],
)
def test_what_a_tracer_must_not_change(
    program: str, kind: str, said: list[str]
) -> None:
    """Threads, forks, its children's tracer: the same as without pagescan."""
    alone = subprocess.run([program, kind], capture_output=True, text=True, check=True)
    assert alone.stdout.split() == said
    result = command("watch", "--json", "-i", "3600", "--", program, kind)
    lines = result.stderr.splitlines()
    own = [line for line in lines if not line.startswith("pagescan:")]
    assert " ".join(own).split() == said
    assert result.code == 0


def test_exit_code_where_the_parent_ignores_sigchld() -> None:
    """An ignored SIGCHLD is inherited, and the kernel would drop the status."""
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code += "os.execv(sys.argv[1], sys.argv[1:])"
    words = [sys.executable, "-c", code, *WATCH, "--", "sh", "-c", "exit 7"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 7


def test_signals_arrive_with_their_values(program: str) -> None:
    """Each queued signal comes once, in time, with its value."""
    words = (program, "signals", "5000")
    alone = subprocess.run(words, capture_output=True, text=True, check=True)
    result = command("watch", "--json", "-i", "3600", "--", *words)
    own = next(line for line in result.stderr.splitlines() if line.startswith("5000"))
    assert own.split()[:2] == alone.stdout.split()[1:3] == ["5000", "14995"]


def test_exec_by_a_thread_is_followed(program: str) -> None:
    """Another thread than the main one calls exec while others run."""
    result = command("watch", "--json", "-i", "3600", "--", program, "exec-thread")
    assert result.code == 9
    assert result.stderr.count("was exec'd: attached again") == 1
    last = checked(result.stdout.splitlines()[-1])
    assert last["end"] == "exited"
    assert last["totals"]["pages"] >= PAGES


def test_a_stop_stays_a_stop(program: str) -> None:
    """SIGSTOP stops CMD until SIGCONT, not until the next event."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        assert pid_of_tracer(pid)
        os.kill(pid, signal.SIGSTOP)
        witness.wait_for(lambda: witness.status(pid, "State")[0] in "tT")
        os.kill(pid, signal.SIGUSR2)
        until = time.monotonic() + 0.5
        while time.monotonic() < until:  # it shows an absence: CMD takes no signal
            pending = int(witness.status(pid, "ShdPnd"), 16)
            assert pending & 1 << signal.SIGUSR2 - 1
        os.kill(pid, signal.SIGCONT)
        assert own_line(watch) == "woken"
        assert watch.wait(60) == 8


def test_command_outlives_a_limit(program: str) -> None:
    """After -n the command runs on, nobody traces it, and the exit code is 0."""
    with watching(program, "wait", options=("-i", "0.05", "-n", "2")) as watch:
        pid = int(own_line(watch))
        assert watch.wait(60) == 0
        assert pid_of_tracer(pid) == 0
        assert witness.registered(pid) == 0
        os.kill(pid, signal.SIGUSR2)
        assert own_line(watch) == "woken"


def test_interrupt_is_the_normal_end(program: str) -> None:
    """Ctrl-C ends both; the exit code is 0, and the last look is whole."""
    watch = subprocess.Popen(
        [*WATCH, "--", program, "wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        own_line(watch)
        os.killpg(watch.pid, signal.SIGINT)
        out, _ = watch.communicate(timeout=60)
    finally:
        watch.kill()
        watch.wait()
    last = checked(out.splitlines()[-1])
    assert (last["end"], last["unseen_ns"]) == ("interrupted", None)
    assert watch.returncode == 0


def test_command_outlives_its_killed_tracer(program: str) -> None:
    """CMD goes on without a tracer; the result names its end and the unseen time."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        os.kill(pid_of_tracer(pid), signal.SIGKILL)
        witness.wait_for(lambda: pid_of_tracer(pid) == 0)
        os.kill(pid, signal.SIGUSR2)
        out, said = watch.communicate(timeout=60)
        last = checked(out.splitlines()[-1])
        assert last["end"] == "exited"
        assert last["unseen_ns"] > 0
        assert "woken" in said
        assert "the last look was" in said
        assert watch.returncode == 8


@pytest.mark.timeout(60 + 5 * KILLS)
def test_killed_tracer_loses_no_signal(program: str) -> None:
    """CMD gets each signal also when its tracer dies while it handles one.

    PAGESCAN_KILLS sets the number of deaths; few of them hit that moment.
    """
    rolled = random.SystemRandom()
    for _ in range(KILLS):
        with watching(program, "signals", "10000") as watch:
            assert own_line(watch) == "begun"
            children = Path(f"/proc/{watch.pid}/task/{watch.pid}/children").read_text()
            time.sleep(rolled.uniform(0, 0.2))
            for pid in map(int, children.split()[1:]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert own_line(watch).split()[:2] == ["10000", "29994"]
            assert watch.wait(60) == 0


def test_killed_tracer_is_said(program: str) -> None:
    """The next look says that nobody will see the end."""
    with watching(program, "wait", options=("-i", "0.05")) as watch:
        pid = int(own_line(watch))
        os.kill(pid_of_tracer(pid), signal.SIGKILL)
        assert watch.stderr is not None
        while "the tracer of CMD was killed" not in watch.stderr.readline():
            assert watch.poll() is None
        os.kill(pid, signal.SIGUSR2)
        assert own_line(watch) == "woken"


def test_command_outlives_a_stopped_tracer(program: str) -> None:
    """The kernel kills a tracer that does not run; then CMD goes on."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        os.kill(pid_of_tracer(pid), signal.SIGSTOP)
        os.kill(pid, signal.SIGUSR2)
        assert own_line(watch) == "woken"
        assert watch.wait(60) == 8


def test_command_outlives_a_killed_watch(program: str) -> None:
    """When pagescan is killed, its tracer goes, and CMD stays."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        watch.kill()
        witness.wait_for(lambda: pid_of_tracer(pid) == 0)
        os.kill(pid, signal.SIGUSR2)
        assert own_line(watch) == "woken"


def test_a_stopped_watch_holds_no_end_for_ever(program: str) -> None:
    """CMD is held at its end for at most 10 s, and then ends without the look."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        os.kill(watch.pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGUSR2)
        witness.wait_for(lambda: witness.status(pid, "State")[0] == "t")
        witness.wait_for(lambda: witness.status(pid, "State")[0] == "Z")
        os.kill(watch.pid, signal.SIGCONT)
        out, _ = watch.communicate(timeout=60)
        last = checked(out.splitlines()[-1])
        assert last["end"] == "exited"
        assert last["unseen_ns"] > 0
        assert watch.returncode == 8


def test_other_tools_are_told_who_traces_it(program: str) -> None:
    """While CMD is traced nobody else can arm it, and the message names the tracer."""
    with watching(program, "wait") as watch:
        pid = int(own_line(watch))
        result = command("arm", pid)
        assert result.code in (1, 3)
        assert "tracked already" in result.stderr or "traced already" in result.stderr
        os.kill(pid, signal.SIGUSR2)


def as_stranger(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run pagescan as an ordinary user, with the packages of this environment."""
    return subprocess.run(
        [str(python_of_all()), "-m", "pagescan", *words],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd=HERE.parent,
        env={**os.environ, "PYTHONPATH": str(Path(click.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.needs("stranger")
def test_ordinary_user(program: str) -> None:
    """Neither the tracer nor the last look needs a right; an exec can lose one."""
    if as_stranger("--version").returncode:
        pytest.skip("an ordinary user cannot load pagescan from here")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        own, other = place / "lastwords", place / "id"
        shutil.copy(program, own)
        shutil.copy("/usr/bin/id", other)
        other.chmod(0o4755)
        done = as_stranger(*WATCH[3:], "--", str(own), "kill", "9")
        assert done.returncode == 137, done.stderr
        assert checked(done.stdout)["totals"]["pages"] >= PAGES
        done = as_stranger(*WATCH[3:], "--", "sh", "-c", f"exec {other} -u")
    assert f"{other} is set-user-ID of uid 0" in done.stderr
    assert str(STRANGER) in done.stderr.split("\n")
