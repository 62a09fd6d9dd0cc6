"""Messages name the actual cause: one test per row of target/causes.py."""

import contextlib
import ctypes
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pagescan.model.errors import TargetError
from pagescan.target.find import find_pid
from pagescan.target.process import Target as Process
from tests import machine, witness
from tests.conftest import STRANGER, Result, Target, command, python_of_all

Start = Callable[..., Target]
PAGESCAN = [sys.executable, "-m", "pagescan"]


def run(*words: object, before: Callable[[], None] | None = None) -> Result:
    """Run the command with a function called in the child before exec."""
    done = subprocess.run(
        [*PAGESCAN, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
        timeout=60,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def assert_says(result: Result, code: int, said: str) -> None:
    """Assert one line with the given text, the exit code, and no traceback."""
    assert result.code == code, result
    lines = [line for line in result.stderr.splitlines() if "hint:" not in line]
    assert said in lines[-1], result.stderr
    assert "Traceback" not in result.stderr


# ---- descriptors -------------------------------------------------------------------


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("limit", range(6, 30, 2))
def test_descriptors_of_pagescan(limit: int, target: Start) -> None:
    """With any small number of descriptors it works, or names the shortage."""
    made = target("m=anon,pages=40,fill=1")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    result = run("arm", made.pid, before=limited)
    if result.code:
        text = result.stderr
        assert "Too many open files" in text or "EMFILE" in text, text
        assert witness.registered(made.pid) == 0
    else:
        assert command("disarm", made.pid).code == 0


@pytest.mark.needs("tracking")
def test_descriptors_of_the_target(target: Start) -> None:
    """If the target has no descriptor left, the message says that it is the target."""
    made = target("m=anon,pages=40,fill=1")
    count = len(os.listdir(f"/proc/{made.pid}/fd"))
    resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (count, count))
    result = command("arm", made.pid)
    assert_says(result, 1, f"{made.pid} (mkmem) has reached its limit of descriptors")
    assert "prlimit --nofile=N" in result.stderr


ENFILE = (
    "import os, sys\n"
    "from pagescan.model.errors import PagescanError\n"
    "from pagescan.target.process import Target\n"
    "from pagescan.tracking import attach\n"
    "target = Target.open(int(sys.argv[1]))\n"
    "user = int(sys.argv[2])\n"
    "if user: os.setgroups([]); os.setgid(user); os.setuid(user)\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "try: attach.take(target)\n"
    "except PagescanError as error: print(error)\n"
)


@pytest.mark.needs("tracking", "stranger")
@pytest.mark.parametrize("whose", ["the target's", "ours"])
def test_descriptors_of_the_machine(whose: str) -> None:
    """If the machine has none left, the message says that; root still has some."""
    user = str(STRANGER if whose == "ours" else 0)
    with (
        subprocess.Popen(
            ["sleep", "1000"], user=STRANGER, group=STRANGER, extra_groups=[]
        ) as sleeper,
        subprocess.Popen(
            [sys.executable, "-c", ENFILE, str(sleeper.pid), user],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        witness.wait_for(lambda: witness.status(sleeper.pid, "State")[0] == "S")
        used = int(Path("/proc/sys/fs/file-nr").read_text().split()[0])
        # Twice as many sockets, of root too, are allowed.
        with machine.setting(Path("/proc/sys/fs/file-max"), used * 3 // 4):
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
        sleeper.kill()
    assert "machine has" in said, said
    assert "ENFILE" in said
    assert (f"{sleeper.pid} (sleep) could not" in said) == (whose != "ours")


# ---- stopped cgroups ---------------------------------------------------------------


@pytest.mark.needs("tracking", "root")
def test_a_frozen_cgroup(target: Start, tmp_path: Path) -> None:
    """The message names the frozen cgroup: it is read, not guessed from the step."""
    made = target("m=anon,pages=40,fill=1")
    with machine.frozen(made.pid, tmp_path):
        result = command("arm", made.pid)
    assert_says(result, 3, "does not run: its cgroup is frozen")


@pytest.fixture
def crowded() -> Iterator[Path]:
    """A cgroup whose eight busy processes have used up its share for a long time."""
    words = [sys.executable, "-c", "while True: pass"]
    with machine.cgroup("cpu", "1000 1000000") as group:
        spinning = [subprocess.Popen(words) for _ in range(8)]
        try:
            for process in spinning:
                (group / "cgroup.procs").write_text(str(process.pid))
            stat = group / "cpu.stat"
            witness.wait_for(lambda: "nr_throttled 0" not in stat.read_text())
            yield group
        finally:
            for process in spinning:
                process.kill()
                (group.parent / "cgroup.procs").write_text(str(process.pid))
                process.wait()


@pytest.mark.needs("tracking", "cgroup-cpu")
def test_a_target_in_a_throttled_cgroup(crowded: Path) -> None:
    """It is refused with the quota, and tracked once it may run."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            (crowded / "cgroup.procs").write_text(str(process.pid))
            witness.wait_for(lambda: witness.status(process.pid, "State")[0] == "R")
            result = command("arm", process.pid)
            (crowded.parent / "cgroup.procs").write_text(str(process.pid))
            assert_says(result, 3, "its cgroup may use 0.1 % of a processor")
            assert command("arm", process.pid).code == 0
            assert command("disarm", process.pid).code == 0
        finally:
            process.kill()


@pytest.mark.needs("tracking", "cgroup-cpu")
def test_pagescan_in_a_throttled_cgroup(target: Start) -> None:
    """If the attach comes too late, it is not said to be the target's fault."""
    made = target("m=anon,pages=4")
    script = (
        "import errno, os, sys, time\n"
        "from pagescan import native\n"
        "from pagescan.model.errors import PagescanError\n"
        "from pagescan.target.process import Target\n"
        "from pagescan.tracking import attach\n"
        "open(sys.argv[2], 'w').write(str(os.getpid()))\n"
        "until = time.process_time() + 0.1\n"
        "while time.process_time() < until: pass\n"
        "taken = native.attach(int(sys.argv[1]))\n"
        "late = taken._replace(step='stop', error=errno.ETIMEDOUT)\n"
        "native.attach = lambda *_, **__: late\n"
        "try: attach.take(Target.open(int(sys.argv[1])))\n"
        "except PagescanError as error: print(error)\n"
    )
    with machine.cgroup("cpu", "10000 100000") as group:
        words = [
            sys.executable,
            "-c",
            script,
            str(made.pid),
            str(group / "cgroup.procs"),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = "was left alone: pagescan itself is throttled: its cgroup may use 10 %"
    assert said in done.stdout, done


THREADS = """
import threading, time
for _ in range(40):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
memory = bytearray(100 << 20)
print(1, flush=True)
time.sleep(60)
"""


def test_the_end_of_many_threads_is_no_exec() -> None:
    """The main thread may go first, while others are still exiting without memory."""
    for _ in range(10):
        words = [sys.executable, "-c", THREADS]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with Process.open(process.pid) as target:
                process.kill()
                while target.has_address_space():
                    pass
                assert str(target.gone()).endswith("has ended")


@pytest.mark.needs("cgroup-memory")
def test_killed_for_lack_of_memory() -> None:
    """A child of ours that the kernel has killed for lack of memory: a real one."""
    script = (
        "import os, subprocess, sys\n"
        "from pagescan.target import causes\n"
        "open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "hog = 'x = bytearray(1) * (1 << 30)'\n"
        "for code in (hog, 'import os; os.kill(os.getpid(), 9)'):\n"
        "    before = causes.oom_kills()\n"
        "    child = subprocess.Popen([sys.executable, '-c', code])\n"
        "    print(causes.how_it_ended(child.pid, before))\n"
        "    child.returncode = 0\n"
    )
    with machine.cgroup("memory", str(100 << 20)) as group:
        words = [sys.executable, "-c", script, str(group / "cgroup.procs")]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "the kernel killed it for lack of memory",
        "it was killed by SIGKILL, for lack of memory or by another process",
    ], done


def test_a_throttled_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the quota of a throttled cgroup, and of no other."""
    from pagescan.target import causes

    monkeypatch.setattr(causes, "_cgroups", lambda _: iter([str(tmp_path)]))
    (tmp_path / "cpu.max").write_text("5000 100000\n")
    (tmp_path / "cpu.stat").write_text("nr_periods 9\nnr_throttled 0\n")
    assert causes.why_it_stands(1) is None
    (tmp_path / "cpu.stat").write_text("nr_periods 9\nnr_throttled 3\n")
    why = causes.why_it_stands(1)
    assert why is not None
    assert why[0] == "is throttled: its cgroup may use 5 % of a processor"
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert causes.why_it_stands(1) is None


# ---- /proc -------------------------------------------------------------------------


def in_namespace(options: str, script: str) -> Result:
    """Run a shell script in namespaces of its own."""
    script = script.replace("pagescan", " ".join(PAGESCAN))
    done = subprocess.run(
        ["unshare", *options.split(), "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.needs("root", "unshare")
@pytest.mark.parametrize("verb", ["scan 1", "arm 2", "maps sh", "watch 1", "diff 1"])
def test_proc_of_another_namespace(verb: str) -> None:
    """In another PID namespace a pid means another process: refused."""
    result = in_namespace("-p -f", f"pagescan {verb}")
    assert_says(result, 3, "/proc belongs to another PID namespace")


@pytest.mark.needs("root", "unshare")
def test_no_proc() -> None:
    """Without /proc, the message does not say that there is no such process."""
    result = in_namespace("-m", "umount -l /proc; pagescan scan 1")
    assert_says(result, 3, "/proc is not mounted")


@pytest.mark.needs("root", "unshare")
@pytest.mark.parametrize("option", ["invisible", "noaccess"])
def test_hidden_processes(option: str, target: Start) -> None:
    """With hidepid, the message says that the process is hidden, not gone."""
    made = target("m=anon,pages=4")
    code = (
        "import os, pagescan.target.process as t, pagescan.model.errors as e\n"
        f"os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})\n"
        "try:\n"
        f"    t.Target.open({made.pid})\n"
        "except e.AccessDeniedError as error:\n"
        "    print(error)\n"
    )
    script = f'mount -t proc -o hidepid={option} proc /proc; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"(hidepid={option})" in done.stdout, done


@pytest.mark.needs("tracking", "root", "unshare")
def test_another_time_namespace(armed: Start) -> None:
    """The session is found from another time namespace, where start times differ."""
    made = armed("m=anon,pages=40,fill=1")
    result = in_namespace("-T --boottime 864000 -f", f"pagescan diff {made.pid} --json")
    assert result.code == 0, result.stderr
    assert result.json()["target"] == command("diff", "--json").json()["target"]


# ---- a filter around pagescan ------------------------------------------------------


def forbid_ptrace() -> None:
    """Have ptrace(2) return EPERM in this process, as a container's filter does."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = [
        (0x20, 0, 0, 0),  # the number of the call
        (0x15, 0, 1, 101),  # ptrace
        (0x06, 0, 0, 0x00050001),  # EPERM
        (0x06, 0, 0, 0x7FFF0000),
    ]
    text = b"".join(
        op.to_bytes(2, "little") + bytes([yes, no]) + value.to_bytes(4, "little")
        for op, yes, no, value in code
    )
    room = ctypes.create_string_buffer(text)
    program = (len(code)).to_bytes(8, "little") + ctypes.addressof(room).to_bytes(
        8, "little"
    )
    libc.prctl(38, 1, 0, 0, 0)
    assert libc.prctl(22, 2, program, 0, 0) == 0


@pytest.mark.needs("tracking")
def test_a_filter_around_pagescan(target: Start) -> None:
    """The message names the filter, not the target or a missing right of root's."""
    made = target("m=anon,pages=4")
    result = run("arm", made.pid, before=forbid_ptrace)
    assert_says(result, 4, "a seccomp filter around pagescan may forbid it")


# ---- CMD ---------------------------------------------------------------------------


@pytest.fixture
def program(tmp_path: Path) -> Callable[[bytes], Path]:
    """Make a program."""

    def make(text: bytes) -> Path:
        path = tmp_path / "program"
        path.write_bytes(text)
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"#!/no/such/interpreter -x\n", "its interpreter '/no/such/interpreter' is"),
        (b"#! /etc/passwd\n", "its interpreter '/etc/passwd' may not be run"),
        (b"echo hello\n", "it is neither a program nor a script that begins with #!"),
        (b"\x7fELF\x02\x01\x01" + bytes(64), "it is a program for another processor"),
    ],
)
def test_a_command_that_cannot_be_run(
    text: bytes, said: str, program: Callable[[bytes], Path]
) -> None:
    """The message names the missing interpreter, not CMD, which exists."""
    assert_says(command("watch", "--", program(text)), 3, said)


def test_a_dynamic_linker_that_is_missing(program: Callable[[bytes], Path]) -> None:
    """The same for the dynamic linker (PT_INTERP) of a program."""
    text = Path("/bin/true").read_bytes()
    linker = b"/lib64/ld-linux-x86-64.so.2"
    if linker not in text:
        pytest.skip("/bin/true has another linker")
    path = program(text.replace(linker, b"/lib64/ld-linux-x86-64.so.9"))
    assert_says(command("watch", "--", path), 3, "ld-linux-x86-64.so.9' is missing")


@pytest.mark.needs("stranger")
def test_a_command_that_loses_its_rights(program: Callable[[bytes], Path]) -> None:
    """A message before the start says that a set-user-ID CMD loses its rights."""
    path = program(Path("/bin/true").read_bytes())
    from pagescan.target import causes

    assert causes.rights_lost(str(path)) is None
    path.chmod(0o4755)
    for parent in [*path.parents][:-2]:
        parent.chmod(parent.stat().st_mode | 0o711)
    code = "from pagescan.target.causes import rights_lost;"
    code += f"print(rights_lost({str(path)!r}))"
    done = subprocess.run(
        [str(python_of_all()), "-c", code],
        user=STRANGER,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    said = "set-user-ID of uid 0: it runs without these rights while it is traced"
    assert said in done.stdout, done.stderr


# ---- targets by name ---------------------------------------------------------------


@pytest.fixture
def named(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes with one name, the oldest first."""
    path = tmp_path / "pst-victim"
    shutil.copy("/bin/sleep", path)
    started = [subprocess.Popen([str(path), str(60 + at)]) for at in range(3)]
    for process in started:
        witness.wait_for(
            lambda pid=process.pid: os.readlink(f"/proc/{pid}/exe") == str(path)  # type: ignore[misc]
        )
    yield started
    for process in started:
        process.kill()
        process.wait()


_BY_NAME = (
    ["watch"],
    ["arm"],
    ["diff"],
    ["disarm"],
    ["who"],
    ["scan"],
    ["maps"],
    ["cow"],
    ["dump-plan"],
    ["changed"],
    ["record", "-o", "unused.pgscan"],
    ["watch", "--tree"],
    ["diff", "--tree"],
    ["exporter", "--tree"],
)


@pytest.mark.parametrize("words", _BY_NAME, ids=" ".join)
def test_candidates_are_listed(
    named: list[subprocess.Popen[bytes]], words: list[str]
) -> None:
    """Each candidate has a line with its command line, the oldest first."""
    result = command(*words, "pst-victim")
    assert result.code == 3
    line, *listed, hint = result.stderr.splitlines()
    assert line == "pagescan: 3 processes are named 'pst-victim', the oldest first:"
    words_of = [row.split() for row in listed]
    expected = [[str(process.pid), str(60 + at)] for at, process in enumerate(named)]
    assert [[row[0], row[-1]] for row in words_of] == expected
    assert all(row[1].endswith("/pst-victim") for row in words_of)
    assert f"the oldest, {named[0].pid}, with --oldest" in hint


def test_candidates_are_in_json_and_in_the_library(
    named: list[subprocess.Popen[bytes]],
) -> None:
    """The document of an error has the lines, and so has a traceback."""
    document = command("scan", "pst-victim", "--json").error()
    assert [line.split()[0] for line in document["details"]] == [
        str(process.pid) for process in named
    ]
    with pytest.raises(TargetError) as caught:
        find_pid("pst-victim")
    assert caught.value.__notes__ == list(caught.value.details)
    assert pickle.loads(pickle.dumps(caught.value)).details == caught.value.details


def test_many_candidates_are_cut(tmp_path: Path) -> None:
    """A long list ends with how many more there are."""
    path = tmp_path / "pst-many"
    shutil.copy("/bin/sleep", path)
    started = [subprocess.Popen([str(path), "1000"]) for _ in range(23)]
    try:
        for process in started:
            witness.wait_for(
                lambda pid=process.pid: os.readlink(f"/proc/{pid}/exe") == str(path)  # type: ignore[misc]
            )
        line, *listed, _ = command("maps", "pst-many").stderr.splitlines()
        assert "23 processes" in line
        assert len(listed) == 21
        assert listed[-1].strip() == "… and 3 more"
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.mark.needs("tracking")
def test_the_oldest_is_taken(named: list[subprocess.Popen[bytes]]) -> None:
    """Every command that takes a TARGET has --oldest."""
    pid = named[0].pid
    for words in (
        ["scan", "pst-victim", "--oldest", "--json"],
        ["maps", "pst-victim", "--oldest", "--json"],
        ["dump-plan", "pst-victim", "--oldest", "--json"],
        ["arm", "pst-victim", "--oldest", "--json"],
        ["diff", "pst-victim", "--oldest", "--json"],
    ):
        result = command(*words)
        assert result.code == 0, (words, result.stderr)
        assert result.json()["target"]["pid"] == pid
    assert command("changed", "pst-victim", "--oldest").code in (0, 1)
    assert command("disarm", "pst-victim", "--oldest").code == 0
    result = command("watch", "pst-victim", "--oldest", "-n", 1, "-i", 0.1, "--json")
    assert result.json()["target"]["pid"] == pid


@pytest.mark.parametrize(
    ("words", "program", "ours"),
    [
        (["python3", "-m", "pagescan", "watch"], "python3.11", True),
        (["python3", "-Psm", "pagescan.session.keeper", "{}"], "python3.12", True),
        (["python3", "-Xdev", "-W", "error", "-Pmpagescan"], "python3", True),
        (["python3", "/usr/local/bin/pagescan", "scan"], "python3.13", True),
        (["./pagescan.pyz", "pagescan.pyz"], "python3", True),
        (["vim", "pagescan"], "vim.basic", False),
        (["redis-server", "-m", "pagescan"], "redis-server", False),
        (["python3", "serve.py", "-m", "pagescan"], "python3", False),
        (["python3", "-c", "pass", "-m", "pagescan"], "python3", False),
        (["python3", "-m", "pagescanner"], "python3", False),
        ([""], "python3", False),
    ],
)
def test_own_processes(words: list[str], program: str, ours: bool) -> None:
    """Own processes are recognised by the module that Python runs, not a word."""
    from pagescan.target.find import is_pagescan

    assert is_pagescan(words, program) == ours


# ---- the end of a watch ------------------------------------------------------------


def test_an_end_amid_an_exec_is_said() -> None:
    """Ctrl-C during an exec of CMD: the last line has its `end`."""
    from pagescan.model.errors import UnsuitableTargetError
    from pagescan.tracking.ticks import Limits, ticks

    class Looked:
        """A tracking whose target has called exec."""

        since = armed_at = toll = None
        toll_of_all = None, None

        def __init__(self, fd: int) -> None:
            self.target = type("", (), {"pidfd": fd})()

        def look(self, **_: object) -> None:
            raise UnsuitableTargetError("exec'd")

    with contextlib.ExitStack() as undo:
        pipes = [os.pipe() for _ in range(3)]
        for pair in pipes:
            for fd in pair:
                undo.callback(os.close, fd)
        (stop, writable), (one, _), (other, _) = pipes
        os.write(writable, b"!")
        found = list(ticks(Looked(one), Limits(5), stop, lambda: Looked(other)))  # type: ignore[arg-type, return-value]
    assert [tick.end for tick in found] == ["interrupted"]
