"""Every refusal of the contract: one line that names the cause, and its exit code."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pagescan
from tests import witness
from tests.conftest import Result, Target, command

Start = Callable[..., Target]
Run = Callable[..., Result]


def refused(result: Result, code: int, *words: str) -> None:
    """Check the form of a refusal: one line, then candidates, at most one hint."""
    assert result.code == code, (result.stdout, result.stderr)
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    progress = ("pagescan: not tracked", "pagescan: arming")  # on a slow machine
    told = [line for line in lines if not line.startswith(progress)]
    assert told[0].startswith("pagescan: "), lines
    others = [line for line in told[1:] if not line.startswith("  ")]
    assert len(others) <= 1, lines
    assert all(line.startswith("hint: ") for line in others), lines
    for word in words:
        assert word in result.stderr, (word, result.stderr)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """An idle child of this process."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("verb", ["scan", "maps", "arm", "diff", "disarm", "watch"])
def test_unknown_pid(verb: str) -> None:
    """There is no such process."""
    refused(command(verb, 4194303), 3, "no process with pid 4194303")


@pytest.mark.parametrize("verb", ["scan", "maps", "arm", "watch"])
def test_unknown_name(verb: str) -> None:
    """No process has that name."""
    refused(command(verb, "no-such-name"), 3, "no process is named 'no-such-name'")


def test_ambiguous_name(sleeper: subprocess.Popen[bytes]) -> None:
    """Several processes have the name: they are listed."""
    with subprocess.Popen(["sleep", "1000"]) as other:
        refused(command("scan", "sleep"), 3, str(sleeper.pid), str(other.pid), "named")
        other.kill()


def test_name_in_a_command_line(tmp_path: Path) -> None:
    """A script has the name of its interpreter: the processes are listed."""
    script = tmp_path / "leaky-one.py"
    script.write_text("print(1, flush=True); input()")
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as leaky:
        assert leaky.stdout is not None
        leaky.stdout.readline()
        result = command("scan", script.name)
        refused(result, 3, f"give the pid, as in ps -e; {leaky.pid} is the oldest one")
        assert "'leaky-one.py', but it is in a command line" in result.stderr
        leaky.kill()


def test_what_starts_pagescan_is_no_candidate() -> None:
    """The command line of timeout, or of sudo, has the name, too."""
    words = ["timeout", "60", sys.executable, "-m", "pagescan", "scan", "no-such.py"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[0] == "pagescan: no process is named 'no-such.py'"


def test_own_processes_never_match() -> None:
    """The command itself is not a candidate for the name."""
    refused(command("scan", "pagescan"), 3, "no process is named")


@pytest.mark.parametrize("verb", ["scan", "maps", "arm"])
def test_zombie(verb: str) -> None:
    """A zombie has no memory."""
    child = subprocess.Popen(["true"])
    witness.wait_for(lambda: witness.status(child.pid, "State")[0] == "Z")
    refused(command(verb, child.pid), 3, "zombie")
    child.wait()


def test_kernel_thread() -> None:
    """A kernel thread has no memory of its own."""
    refused(command("scan", 2), 3, "kernel thread")


def test_thread_id() -> None:
    """A thread id is not a process id; the hint names the thread's process."""
    code = "import threading,sys;e=threading.Event();t=threading.Thread(target=e.wait);"
    code += "t.start();print(t.native_id,flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    tid = int(process.stdout.readline())
    refused(
        command("scan", tid), 3, "is a thread", f"hint: its process is {process.pid}"
    )
    process.kill()
    process.communicate()


@pytest.mark.needs("root")
def test_stranger() -> None:
    """For another user's process, the message names the owner and the remedy."""
    script = (
        "import os,sys,runpy;os.setgid(65534);os.setuid(65534);"
        f"sys.argv=['pagescan','scan','{os.getpid()}'];"
        "runpy.run_module('pagescan',run_name='__main__')"
    )
    # The modules that the command needs are loaded before the change of user.
    preload = "import click,rich,pagescan.cli,pagescan.commands.scan;"
    preload += "import pagescan.session.api,pagescan.render.plain;"
    done = subprocess.run(
        [sys.executable, "-c", preload + script],
        capture_output=True,
        text=True,
        check=False,
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    refused(
        result, 4, "it belongs to uid 0, and this user is uid 65534", "hint: run as"
    )


@pytest.mark.needs("tracking")
def test_traced_already(sleeper: subprocess.Popen[bytes]) -> None:
    """A process can have only one tracer; the message names it."""
    code = (
        "import ctypes,sys,time;libc=ctypes.CDLL(None,use_errno=True);"
        "assert libc.ptrace(0x4206,int(sys.argv[1]),0,0)==0;"
        "print('seized',flush=True);sys.stdin.read()"
    )
    tracer = subprocess.Popen(
        [sys.executable, "-c", code, str(sleeper.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert tracer.stdout is not None
    assert tracer.stdout.readline() == b"seized\n"
    refused(command("arm", sleeper.pid), 3, "traced already", str(tracer.pid))
    tracer.communicate()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["0x1000-zz"], "malformed range"),
        (["12"], "malformed range"),
        (["0x2000-0x1000"], "empty or backwards"),
        (["0x1000-0x1000"], "empty or backwards"),
        (["0x1000+1.5K"], "malformed range"),
        (["--require", "dirty"], "unknown category: 'dirty'"),
        (["--return", "written,"], "unknown category: ''"),
        (["-c", "start,size_of"], "unknown column: 'size_of'"),
        (["--frob"], "no such option"),
        (["--max-pages", "0"], "--max-pages"),
        (["--max-stall", "-1"], "not a time above zero"),
        (["-c", "a", "-c", ""], "unknown column"),
        (["--by", "row"], "--by"),
    ],
)
def test_usage(words: list[str], said: str) -> None:
    """Words that make no sense give exit code 2, and the message names them."""
    refused(command("scan", os.getpid(), *words), 2, said)


@pytest.mark.parametrize("name", ["watch", "who", "record"])
def test_a_command_without_two_hyphens(name: str) -> None:
    """An option of the command that was meant to start: the hint tells how."""
    refused(command(name, "ls", "-la"), 2, "no such option", f"{name} -- CMD")


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "x", "1e9999"])
def test_interval(interval: str) -> None:
    """An interval is a time above zero."""
    words = ("watch", os.getpid(), f"--interval={interval}")
    refused(command(*words), 2, "not a time above zero")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "an argument is missing"),
        (["tcsh"], "'tcsh' is not one of bash zsh fish"),
    ],
)
def test_usage_of_completion(words: list[str], said: str) -> None:
    """`completion` refuses too few and too many words."""
    refused(command("completion", *words), 2, said)


def test_unknown_command_and_reserved_names() -> None:
    """The nearest command is offered; reserved names say that they do not exist yet."""
    refused(command("wacth"), 2, "did you mean watch?")
    refused(command("4242"), 2, "did you mean pagescan watch 4242?")
    refused(command("watch", "-p", "4242"), 2, "TARGET needs no option")
    refused(command("maps", "self"), 3, "a shell's own pid is $$")
    refused(command("scan", os.getpid(), "4242"), 2, "one TARGET at a time")
    refused(command("snapshot", 1), 2, "does not exist yet")
    refused(command("diff", "1", "2"), 2, "diff takes one TARGET, or two recordings")


@pytest.mark.parametrize("words", [["0x1000-0x2000"], ["[no such]"], ["0x10+1K", "*"]])
@pytest.mark.parametrize("verb", ["scan", "maps", "arm"])
def test_range_without_mapping(verb: str, words: list[str]) -> None:
    """A range that covers nothing is an error, not an empty answer."""
    result = command(verb, os.getpid(), *words)
    refused(result, 1, "no mapping", "hint: pagescan maps lists")


def test_no_session(sleeper: subprocess.Popen[bytes]) -> None:
    """Without a session there is no `written`: the hint tells how to start one."""
    for verb in ("diff", "disarm"):
        result = command(verb, sleeper.pid)
        refused(result, 1, "no session", f"hint: pagescan arm {sleeper.pid}")
    refused(command("scan", sleeper.pid, "--wp"), 1, "no session")


@pytest.mark.needs("tracking")
def test_two_sessions_and_no_target(target: Start) -> None:
    """With several sessions, TARGET is required; the sessions are listed."""
    one, two = target("m=anon"), target("m=anon")
    for made in (one, two):
        assert command("arm", made.pid).code == 0
    for verb in ("diff", "disarm"):
        refused(command(verb), 2, "2 sessions", str(one.pid), str(two.pid))
    assert command("disarm", "--all").code == 0
    refused(command("diff"), 1, "no session")


@pytest.mark.needs("tracking")
def test_tracked_already(armed: Start) -> None:
    """A target can have only one session; the message names it."""
    made = armed("m=anon")
    for verb in ("arm", "watch"):
        refused(command(verb, made.pid), 1, "tracked already", f"session {made.pid}")


NEED_A_SESSION = (
    ("diff",),
    ("changed",),
    ("scan", "--wp"),
    ("dump-plan", "--epoch", "0"),
    ("disarm",),
)


@pytest.mark.needs("tracking")
def test_track_holds_the_target(target: Start) -> None:
    """The same while a program of this user tracks it with `track()`."""
    made = target("m=anon")
    with pagescan.track(made.pid):
        held = f"it is tracked by track, pid {os.getpid()}"
        refused(command("diff", made.pid), 1, "no session", held)


@pytest.mark.needs("tracking")
def test_watch_holds_the_target(target: Start) -> None:
    """A watched target cannot be armed; the message names the watching process."""
    made = target("m=anon")
    watch = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "watch", str(made.pid), "-n", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert watch.stderr is not None
    line = b""
    while b"watching" not in line:
        line = watch.stderr.readline()
    refused(command("arm", made.pid), 1, "by watch", str(watch.pid))
    held = f"it is tracked by watch, pid {watch.pid}"
    for verb, *options in NEED_A_SESSION:
        code = 2 if verb == "changed" else 1
        refused(command(verb, made.pid, *options), code, "no session", held)
    watch.send_signal(signal.SIGINT)
    watch.communicate(timeout=60)
    assert watch.returncode == 0


@pytest.mark.needs("tracking")
def test_killed_keeper_is_told_once(armed: Start) -> None:
    """After the keeper's death, diff reports the loss once, and no old answer."""
    made = armed("m=anon,fill=1")
    keeper = command("sessions", "--json").json()["sessions"][0]["keeper_pid"]
    os.kill(keeper, signal.SIGKILL)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{keeper}"))
    refused(command("diff", made.pid), 1, "was lost", "start over")
    assert witness.registered(made.pid) == 0
    refused(command("diff", made.pid), 1, "no session")


@pytest.mark.needs("tracking")
def test_exec_ends_the_session(armed: Start) -> None:
    """After an exec the armed memory is gone: diff exits with 3."""
    made = armed("m=anon,fill=1")
    assert made.process.stdin is not None
    made.process.stdin.write("exec\n")
    made.process.stdin.flush()
    assert made.process.stdout is not None
    assert made.process.stdout.readline().startswith('{"pid"')
    refused(command("diff", made.pid), 3, "exec", f"pagescan arm {made.pid}")


@pytest.mark.needs("tracking")
def test_target_ends(armed: Start) -> None:
    """A session ends with its target, and leaves no file."""
    made = armed("m=anon,fill=1")
    made.tell("quit")
    made.process.wait()
    refused(command("diff", made.pid), 3, "no process with pid")
    witness.wait_for(lambda: command("sessions", "--json").json()["sessions"] == [])


def test_command_not_found() -> None:
    """CMD must exist and be a program."""
    refused(command("watch", "--", "no-such-command"), 3, "command not found")
    refused(command("watch", "--", "/etc/passwd"), 3, "permission denied")


@pytest.mark.parametrize("option", ["--wp", "--wp-only"])
def test_raw_categories_protect_nothing(option: str) -> None:
    """The options exclude each other: refused before the target is opened."""
    result = command("scan", 4194303, option, "--raw-categories")
    refused(result, 2, "--raw-categories")


@pytest.mark.parametrize(
    ("words", "code"),
    [(["scan", "4194303"], 3), (["scan", "1", "--frob"], 2), (["diff"], 1)],
)
def test_errors_as_json(words: list[str], code: int) -> None:
    """With --json errors are documents on stderr, also usage errors."""
    result = command(*words, "--json")
    assert result.code == code
    assert result.stdout == ""
    document = result.error()
    assert document["code"] == code
    assert document["kind"] == "error"


@pytest.mark.parametrize("percent", ["0", "-1", "101", "nan", "0%", "2%%", "x", "%"])
def test_budget_out_of_range(sleeper: subprocess.Popen[bytes], percent: str) -> None:
    """A share of the target's time is above 0 and at most 100."""
    result = command("watch", sleeper.pid, "--budget", percent)
    refused(result, 2, "is not above 0 and at most 100")


def test_no_traceback_without_debug() -> None:
    """A traceback is shown only with --debug."""
    assert "Traceback" not in command("scan", 4194303).stderr
    assert "Traceback" in command("scan", 4194303, "--debug").stderr
