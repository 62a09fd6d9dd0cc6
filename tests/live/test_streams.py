"""Output that cannot arrive, unusual descriptors and encodings, hostile names."""

import ctypes
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests import witness
from tests.conftest import Target, command

Start = Callable[..., Target]

PAGESCAN = [sys.executable, "-m", "pagescan"]
BUFFERED = {"PYTHONUNBUFFERED": ""}
UNBUFFERED = {"PYTHONUNBUFFERED": "1"}

FORMS = ["", "--json", "--jsonl", "--csv", "--no-header", "--bytes"]
WITHOUT_TARGET = [
    "--version",
    "--help",
    "scan -h",
    "watch -h",
    "schema",
    "completion bash",
    "completion zsh",
    "completion fish",
    *(f"doctor {form}" for form in FORMS[:4]),
    *(f"sessions {form}" for form in FORMS[1:4]),
    *(f"demo --seconds 0.5 --size 16M {form}" for form in FORMS[:2]),
]
WITH_TARGET = [
    *(f"scan {form} PID" for form in FORMS),
    *(f"scan --by {rows} PID" for rows in ("page", "mapping")),
    *(f"maps {form} PID" for form in FORMS),
    *(f"dump-plan {form} PID" for form in FORMS),
    "dump-plan --binary PID",
    *(f"diff {form} PID" for form in FORMS),
    *(f"diff --rearm {form} PID" for form in FORMS[:4]),
    *(f"dump-plan --epoch 0 {form} PID" for form in FORMS[:4]),
    *(f"scan --wp --require written {form} PID" for form in FORMS[:4]),
]


def run(words: str | Sequence[str], **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command with the given descriptors."""
    if isinstance(words, str):
        words = words.split()
    environment = {**os.environ, **BUFFERED, **how.pop("env", {})}
    return subprocess.run(
        [*PAGESCAN, *words],
        env=environment,
        text=True,
        timeout=60,
        check=False,
        **how,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], said: str) -> None:
    """Assert exit code 1, the cause in the last line, and no traceback."""
    assert done.returncode == 1, (done.args, done.stderr)
    last = done.stderr.splitlines()[-1]
    if last.startswith("{"):
        last = json.loads(last)["error"]
    assert f"cannot write the output: {said}" in last, (done.args, done.stderr)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("unbuffered", [BUFFERED, UNBUFFERED], ids=["", "unbuffered"])
@pytest.mark.parametrize("words", WITHOUT_TARGET)
def test_full_disk(words: str, unbuffered: dict[str, str]) -> None:
    """Output that could not be written is reported, with exit code 1."""
    with open("/dev/full", "w") as full:
        done = run(words, stdout=full, stderr=subprocess.PIPE, env=unbuffered)
    assert_one_line(done, "no space left on device")


@pytest.mark.needs("tracking")
def test_full_disk_of_what_looks_at_a_target(armed: Start) -> None:
    """The same for each format of each command that looks at a target."""
    made = armed("m=anon,pages=40,fill=1")
    made.write("m", set(range(0, 40, 2)))
    for words, unbuffered in zip(WITH_TARGET, cycle([BUFFERED, UNBUFFERED])):
        line = words.replace("PID", str(made.pid))
        with open("/dev/full", "w") as full:
            done = run(line, stdout=full, stderr=subprocess.PIPE, env=unbuffered)
        assert_one_line(done, "no space left on device")


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("form", FORMS[:4])
def test_full_disk_of_watch(form: str, target: Start) -> None:
    """Watch ends, and leaves nothing in the target."""
    made = target("m=anon,pages=40,fill=1")
    words = f"watch -n 2 -i 0.1 {form} {made.pid}"
    with open("/dev/full", "w") as full:
        done = run(words, stdout=full, stderr=subprocess.PIPE)
    assert_one_line(done, "no space left on device: look 1 (")
    assert witness.registered(made.pid) == 0


@pytest.mark.needs("tracking")
def test_a_reader_that_went_away(armed: Start) -> None:
    """After a closed pipe there is no message, and the exit code is 0."""
    made = armed("m=anon,pages=40,fill=1")
    lines = [*WITHOUT_TARGET, *(w.replace("PID", str(made.pid)) for w in WITH_TARGET)]
    for line, unbuffered in zip(lines, cycle([BUFFERED, UNBUFFERED])):
        theirs, ours = os.pipe()
        os.close(theirs)
        done = run(line, stdout=ours, stderr=subprocess.PIPE, env=unbuffered)
        os.close(ours)
        assert done.returncode == 0, (line, done.stderr)
        assert "Error" not in done.stderr, line
        assert "Exception" not in done.stderr, line


def closed(*numbers: int) -> Callable[[], None]:
    """Return a function that closes descriptors in a child before its exec."""

    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_descriptors_that_are_closed(numbers: tuple[int, ...], target: Start) -> None:
    """No file of pagescan takes their numbers, and `arm` starts its session."""
    made = target("m=anon,pages=40,fill=1")
    done = run(f"arm {made.pid}", preexec_fn=closed(*numbers))
    assert done.returncode == 0
    made.write("m", {3})
    found = command("diff", made.pid, "--json")
    assert made.pages(found.json(), "m") == {3}
    assert command("disarm", made.pid).code == 0
    done = run(f"watch {made.pid} -n 1 -i 0.05 -q", preexec_fn=closed(*numbers))
    assert done.returncode == (1 in numbers)


def test_a_closed_stdout_is_said() -> None:
    """Commands that write to it fail with one line; others work."""
    for words in ("--version", "schema", "scan -h", f"scan {os.getpid()}"):
        done = run(words, stderr=subprocess.PIPE, preexec_fn=closed(1))
        assert_one_line(done, "standard output is closed")
    done = run(f"scan {os.getpid()}", stdout=subprocess.DEVNULL, preexec_fn=closed(2))
    assert done.returncode == 0


def test_stderr_that_is_full_changes_nothing() -> None:
    """The message is lost; the answer and the exit code are the same."""
    with open("/dev/full", "w") as full:
        done = run(f"scan {os.getpid()} -v", stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 0
        assert done.stdout
        assert run("scan 4194305", stdout=subprocess.PIPE, stderr=full).returncode == 3


def is_full(pipe: int) -> bool:
    """Whether a pipe is full, or nearly; source: FIONREAD."""
    held = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
    return int.from_bytes(held, sys.byteorder) > 60_000


@pytest.mark.parametrize("unbuffered", [BUFFERED, UNBUFFERED], ids=["", "unbuffered"])
@pytest.mark.parametrize("form", ["--json", "--jsonl", "--csv", "--by=page", "stopped"])
def test_a_slow_reader(form: str, unbuffered: dict[str, str], target: Start) -> None:
    """All output arrives through a non-blocking pipe, and after a stop."""
    made = target("m=anon,pages=8000")
    made.write("m", set(range(0, 8000, 2)))
    ours, theirs = os.pipe()
    os.set_blocking(theirs, form == "stopped")
    words = ["scan", str(made.pid), "--require", "present"]
    words.append("--json" if form == "stopped" else form)
    process = subprocess.Popen(
        [*PAGESCAN, *words], stdout=theirs, env={**os.environ, **unbuffered}
    )
    os.close(theirs)
    witness.wait_for(lambda: is_full(ours))
    if form == "stopped":
        for _ in range(20):
            process.send_signal(signal.SIGSTOP)
            os.read(ours, 3000)
            process.send_signal(signal.SIGCONT)
    else:
        os.read(ours, 3000)
    size = 3000 * (20 if form == "stopped" else 1)
    while piece := os.read(ours, 65536):
        size += len(piece)
    os.close(ours)
    assert process.wait(60) == 0
    whole = command(*words).stdout
    assert abs(size - len(whole)) < 200  # times and costs differ in length


# ---- names --------------------------------------------------------------------------

HOSTILE = b"\x1b]0;x\x07\n\x9b\xff\xe2\x80\xae(){"
"""Sets a title; a C1 control; no UTF-8; turns the direction of the text."""

SHOWN = [b"\x1b]0;", b"\x07", b"\x9b", "\u202e".encode()]
"""What must not reach a terminal."""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[int]:
    """A process and its library with hostile names."""
    library = os.fsencode(tmp_path) + b"/" + HOSTILE
    shutil.copy(b"/bin/true", library)
    code = (
        "import ctypes, mmap, sys\n"
        f"ctypes.CDLL(None).prctl(15, {HOSTILE!r})\n"
        f"f = open({library!r}, 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


def on_terminal(*words: object, env: dict[str, str] | None = None) -> tuple[bytes, int]:
    """Run on a terminal; return its text and the exit code."""
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update({"TERM": "xterm", **(env or {})})
        os.execv(sys.executable, [*PAGESCAN, *map(str, words)])
    text = b""
    try:
        while piece := os.read(fd, 65536):
            text += piece
    except OSError:
        pass
    os.close(fd)
    return text, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.needs("tracking")
def test_hostile_names_reach_no_terminal(hostile: int) -> None:
    """No command writes their control characters to a terminal."""
    zombie = os.fork()
    if zombie == 0:
        ctypes.CDLL(None).prctl(15, HOSTILE)
        os._exit(0)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    try:
        for words in (
            ["maps", hostile],
            ["maps", hostile, "--csv"],
            ["scan", hostile],
            ["scan", hostile, "--csv"],
            ["scan", hostile, "-c", "mapping"],
            ["scan", hostile, "no-such-mapping*"],
            ["dump-plan", hostile, "--csv"],
            ["arm", "-v", hostile],
            ["arm", hostile],
            ["sessions"],
            ["sessions", "--csv"],
            ["diff", hostile],
            ["diff", hostile, "--csv"],
            ["diff", hostile, "--debug", "-c", "nothing"],
            ["watch", hostile],
            ["disarm", hostile],
            ["diff", hostile],
            ["diff", hostile, "--debug"],
            ["watch", "-n", 2, "-i", 0.1, hostile],
            ["watch", "-n", 2, "-i", 0.1, hostile, "--csv"],
            ["scan", zombie],
            ["scan", os.fsdecode(HOSTILE) + "!"],
        ):
            text, _ = on_terminal(*words)
            found = [piece for piece in SHOWN if piece in text]
            assert not found, (words, text)
    finally:
        os.waitpid(zombie, 0)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("encoding", ["utf-8:strict", "iso8859-1", "ascii", "koi8-r"])
def test_encodings_that_lack_a_character(
    encoding: str, hostile: int, tmp_path: Path
) -> None:
    """A character that an encoding lacks is escaped; CSV in a pipe is exact."""
    env = {"PYTHONIOENCODING": encoding}
    path = os.fsencode(tmp_path) + b"/cat\xe9-" + "日本-é".encode()
    shutil.copy(b"/bin/sleep", path)
    process = subprocess.Popen([path, "1000"])
    witness.wait_for(lambda: os.readlink(f"/proc/{process.pid}/exe").startswith("/tmp"))
    try:
        for pid in (process.pid, hostile):
            for words in (
                ["scan", pid, "--csv"],
                ["maps", pid],
                ["maps", pid, "--jsonl"],
                ["dump-plan", pid],
                ["watch", "-n", 1, "-i", 0.1, "--csv", pid],
                ["watch", "-n", 1, "-i", 0.1, pid],
            ):
                result = command(*words, env=env)
                assert result.code == 0, (words, result.stderr)
            for line in (
                ("scan", pid),
                ("maps", pid),
                ("watch", "-n", 2, "-i", 0.1, pid),
                ("sessions",),
            ):
                text, code = on_terminal(*line, env=env)
                assert code == 0, (line, text)
                assert text.count(b"\x1b[?1049h") == text.count(b"\x1b[?1049l")
                assert not re.search(rb"\\u2[1-5]", text), (line, text)  # our own
        names = command("maps", process.pid, "--csv", env=env).stdout
        assert "cat\\xe9-" in names
        assert ("日本" if "utf" in encoding else "\\u65e5\\u672c") in names
    finally:
        process.kill()
        process.wait()


@pytest.mark.needs("tracking")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT]
)
def test_the_screen_is_restored(number: int, target: Start) -> None:
    """Whatever ends the live view, the terminal is left as it was."""
    made = target("m=anon,pages=40,fill=1")
    pid, fd = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [*PAGESCAN, "watch", str(made.pid), "-i", "0.1"])
    text = b""
    while b"since start" not in text:
        text += os.read(fd, 65536)
    os.kill(pid, number)
    try:
        while piece := os.read(fd, 65536):
            text += piece
    except OSError:
        pass
    local = termios.tcgetattr(fd)[3]
    os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert local & termios.ICANON
    assert local & termios.ECHO
    assert code == (-number if number == signal.SIGQUIT else 0)
    assert text.rfind(b"\x1b[?1049l") > text.rfind(b"\x1b[?1049h") >= 0
    assert text.rfind(b"\x1b[?25h") > text.rfind(b"\x1b[?25l") >= 0


def test_the_screen_is_restored_after_an_error(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same if the drawing itself fails."""
    from pagescan.render.live_view import screen

    class Broken:
        def __rich_console__(self, *_: object) -> object:
            raise RuntimeError("drawn no more")

    broken: Any = Broken()
    with pytest.raises(RuntimeError), screen.shown(broken, color=None) as made:
        made.refresh()
    text = capfdbinary.readouterr().out
    assert text.rfind(b"\x1b[?1049l") > text.rfind(b"\x1b[?1049h")


@pytest.mark.parametrize(
    "name", ["データベース索引ファイル.idx", "🦊.bin", "e\u0301.so"]
)
def test_wide_names_align(name: str) -> None:
    """Columns align although a character may take two cells, or none."""
    from pagescan.render.cells import elide_middle, pad, width_of

    assert width_of(pad(name, 40)) == 40
    assert pad(name, 40, right=True).endswith(name)
    for width in range(4, 30):
        assert width_of(elide_middle(name, width)) <= width
