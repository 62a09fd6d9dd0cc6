"""Ctrl-C and its like: the normal end of what runs, and 130 before it has begun."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import Target, checked, session_files

PAGESCAN = (sys.executable, "-m", "pagescan")

LOADING = """
import sys

class Once:
    def find_spec(self, name, *_):
        if name == "click":
            sys.meta_path.remove(self)
            raise KeyboardInterrupt

sys.meta_path.insert(0, Once())
from pagescan.__main__ import main
main()
"""


DROPPED = """
import os, signal, sys

class Ends:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        len("the handler runs here")

class Once:
    def find_spec(self, name, *_):
        if name == "click":
            sys.meta_path.remove(self)
            Ends()

sys.meta_path.insert(0, Once())
from pagescan.__main__ import main
main()
"""


@pytest.mark.needs("tracking")
def test_one_that_python_drops(target: Callable[..., Target]) -> None:
    """An exception in the end of an object is lost; Ctrl-C is not."""
    made = target("m=anon,pages=40,fill=1")
    done = subprocess.run(
        [sys.executable, "-c", DROPPED, "watch", str(made.pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 130)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["", "--json"])
def test_while_modules_are_loaded(form: str) -> None:
    """One line says so, or a document."""
    words = ["watch", "1", *filter(None, [form])]
    done = subprocess.run(
        [sys.executable, "-c", LOADING, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (130, "")
    if form:
        error = checked(done.stderr)
        assert (error["code"], error["error"]) == (130, "interrupted")
    else:
        assert done.stderr == "pagescan: interrupted\n"


@pytest.mark.needs("tracking", "root")
@pytest.mark.parametrize(
    "words",
    [
        "watch PID",
        "watch --tree PID",
        "record PID --who -o FILE",
        "record --tree PID --who -o FILE",
        "who PID --sample 2",
        "who --tree PID --sample 2",
        "cow PID --exact",
        pytest.param(
            "exporter --track --tree PID --listen 127.0.0.1:0",
            marks=pytest.mark.needs("prometheus_client"),
        ),
    ],
)
def test_from_the_first_line_on(
    words: str, target: Callable[..., Target], tmp_path: Path
) -> None:
    """The end is normal as soon as it has said anything, but that it still arms."""
    made = target("m=anon,pages=40,fill=1")
    words = words.replace("PID", str(made.pid)).replace("FILE", f"{tmp_path}/a")
    with subprocess.Popen(
        [*PAGESCAN, *words.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while (line := process.stderr.readline()).startswith("pagescan: arming"):
            pass
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 0, line + rest
    assert witness.registered(made.pid) == 0


def said_by(process: "subprocess.Popen[str]") -> str:
    """Wait until a command has ended; return its messages."""
    process.wait(timeout=60 * witness.PATIENCE)
    assert process.stderr is not None
    return process.stderr.read()


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", ["PID", "--tree PID"])
def test_a_reader_that_stands_still(
    words: str, number: signal.Signals, target: Callable[..., Target]
) -> None:
    """The end does not wait for it, is said, and leaves nothing in the target."""
    made = target("m=anon,pages=400,fill=1", "counters=anon,pages=2,fill=1")
    out, into = os.pipe()
    size = fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    os.write(into, bytes(size))
    words = words.replace("PID", str(made.pid))
    with subprocess.Popen(
        [*PAGESCAN, "watch", *words.split(), "-i", "0.05", "--json"],
        stdout=into,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(into)
        made.tell("storm m 1")
        witness.wait_for(lambda: is_writing(process.pid))
        process.send_signal(number)
        said = said_by(process)
    os.close(out)
    assert process.returncode == 1, said
    assert "its reader stands still" in said
    assert witness.registered(made.pid) == 0
    assert session_files() == set()


RESULTS = ["watch PID --json -i 0.2", "watch --tree PID --json -i 0.2"]
RESULTS += ["who PID --json", "who --tree PID --json"]
RESULTS += ["cow PID --json -i 600", "cow --tree PID --json -i 600"]


@pytest.mark.needs("tracking", "root")
@pytest.mark.parametrize("words", RESULTS)
def test_a_result_waits_for_its_reader(
    words: str, target: Callable[..., Target]
) -> None:
    """After Ctrl-C the target is free, and the result waits: it arrives whole."""
    made = target("m=anon,pages=400,fill=1")
    out, process = full_pipe(words, made.pid)
    with process, open(out, "rb") as reader:
        time.sleep(1.5)  # a moment more than an end that is bounded may take
        assert is_writing(process.pid)
        assert witness.registered(made.pid) == 0
        text = reader.read()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert json.loads(text.strip(b"\0").splitlines()[-1])["schema"]


@pytest.mark.needs("tracking", "root")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("words", RESULTS[2:5])
def test_a_result_that_nobody_waits_for(
    words: str, number: signal.Signals, target: Callable[..., Target]
) -> None:
    """A second Ctrl-C, or another signal, ends a result that waits."""
    made = target("m=anon,pages=400,fill=1")
    out, process = full_pipe(words, made.pid)
    with process:
        process.send_signal(number)
        said = said_by(process)
    os.close(out)
    assert process.returncode == 1, said
    assert "its reader stands still" in said.splitlines()[-1]


def full_pipe(words: str, pid: int) -> "tuple[int, subprocess.Popen[str]]":
    """End a command by Ctrl-C while its pipe is full; return the pipe and the command.

    The command has looked at least once, has nothing of the target any more, and waits.
    """
    out, into = os.pipe()
    size = fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        [*PAGESCAN, *words.replace("PID", str(pid)).split()],
        stdout=into,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "Ctrl-C" not in process.stderr.readline():
        pass
    os.write(into, bytes(size))
    os.close(into)
    process.send_signal(signal.SIGINT)
    witness.wait_for(lambda: is_writing(process.pid))
    return out, process


def is_writing(pid: int) -> bool:
    """Whether a process is in write(2) to its stdout."""
    return Path(f"/proc/{pid}/syscall").read_text().startswith("1 0x1 ")


AS_IT_BEGINS = """
import os, signal
from pagescan.__main__ import main
from pagescan.recording.recorder import Recorder

begin = Recorder.__init__

def interrupted(*words, **more):
    begin(*words, **more)
    os.kill(os.getpid(), signal.SIGINT)

Recorder.__init__ = interrupted
main()
"""


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("words", ["PID", "--tree PID"])
def test_no_file_of_a_recording_that_never_began(
    words: str, target: Callable[..., Target], tmp_path: Path
) -> None:
    """Ctrl-C as the file is made removes it again."""
    made = target("m=anon,pages=40,fill=1")
    more = ["-n", "1", "-o", str(tmp_path / "a.pagescan")]
    words = words.replace("PID", str(made.pid))
    done = subprocess.run(
        [sys.executable, "-c", AS_IT_BEGINS, "record", *words.split(), *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert list(tmp_path.iterdir()) == []


AS_IT_ARMS = """
import os, sys
from pagescan.__main__ import main
from pagescan.tracking.tracking import Tracking

start = Tracking.start.__func__

def asked_to_end(*words, **more):
    tracking = start(*words, **more)
    os.kill(os.getpid(), int(os.environ["NUMBER"]))
    return tracking

Tracking.start = classmethod(asked_to_end)
main()
"""


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    "words",
    [
        "arm PID",
        "arm --tree PID",
        "watch PID -n 1",
        "watch --tree PID -n 1",
        "record PID -n 1 -o FILE",
        "record --tree PID -n 1 -o FILE",
        "who PID --format speedscope -o FILE",
        "who --tree PID --format speedscope -o FILE",
    ],
)
def test_asked_to_end_while_it_arms(
    words: str, number: signal.Signals, target: Callable[..., Target], tmp_path: Path
) -> None:
    """SIGTERM and SIGHUP undo what has begun: no session and no file is left."""
    made = target("m=anon,pages=40,fill=1")
    words = words.replace("PID", str(made.pid)).replace("FILE", f"{tmp_path}/a")
    done = subprocess.run(
        [sys.executable, "-c", AS_IT_ARMS, *words.split()],
        capture_output=True,
        env={**os.environ, "NUMBER": str(int(number))},
        text=True,
        check=False,
    )
    assert done.returncode == -number, done.stderr
    assert witness.registered(made.pid) == 0
    assert session_files() == set()
    assert list(tmp_path.iterdir()) == []
