"""Signals that come while a command undoes what it has begun: it still undoes all.

A trace function counts the lines that are run, and sends the first signal at one of
them; three more come in the milliseconds after it.
PAGESCAN_SIGNALS is the number of moments for each command; the run of a moment takes
half a second.
"""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import Target, command, session_files

pytestmark = [pytest.mark.needs("tracking", "root")]

MOMENTS = int(os.environ.get("PAGESCAN_SIGNALS", "4"))
SEED = int(os.environ.get("PAGESCAN_SEED", "0")) or random.SystemRandom().getrandbits(
    32
)
TAIL = 300  # lines: the undo of each command has fewer
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PROGRAM = """
import os, sys, threading, time

count_file, moments, *words = sys.argv[1:]
moments = [tuple(map(int, item.split(":"))) for item in moments.split(",") if item]
lines, begun = 0, False

def line(frame, event, _):
    global lines
    if event == "line":
        lines += 1
        if moments and lines >= moments[0][0]:
            first, *others = moments
            moments.clear()
            threading.Thread(target=send, args=(others,), daemon=True).start()
            os.kill(os.getpid(), first[1])
    return line

def send(others):
    # Python ends the tracing when the first signal raises: these come by the clock.
    for microseconds, number in others:
        time.sleep(microseconds / 1e6)
        os.kill(os.getpid(), number)

def call(frame, *_):
    global begun
    name = frame.f_code.co_filename
    begun = begun or frame.f_code.co_name == "command" and "/commands/" in name
    ours = "/pagescan/" in name or name.endswith("/contextlib.py")
    return line if begun and ours else None

sys.settrace(call)
sys.argv = ["pagescan", *words]
from pagescan.__main__ import main
try:
    main()
finally:
    sys.settrace(None)
    with open(count_file, "w") as file:
        file.write(str(lines))
"""

COMMANDS = {
    "watch": "watch PID -n 2 -i 0.02 --json",
    "watch group": "watch --tree PID -n 2 -i 0.02 --json",
    "watch CMD": "watch -i 0.02 --json -- sleep 0.06",
    "who": "who PID -i 0.02 --duration 0.05",
    "record": "record PID -o FILE -i 0.02 -n 2",
    "record group": "record --tree PID -o FILE -i 0.02 -n 2",
    "cow": "cow PID --exact -i 0.02 --duration 0.05",
    "demo": "demo --seconds 0.4 --size 16M --json",
    "exporter": "exporter --tree PID --track --textfile METRICS -i 0.05",
    "arm": "arm PID",
}


def interrupted(words: str, made: Target, moments: str, folder: Path) -> int:
    """Run a command with signals; return how many lines it ran, 0: it was ended."""
    count = folder / "lines"
    count.unlink(missing_ok=True)
    names = {"PID": str(made.pid), "FILE": str(folder / "one.pagescan")}
    names["METRICS"] = str(folder / "one.prom")
    line = [names.get(word, word) for word in words.split()]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(count), moments, *line],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if "METRICS" in words and not moments:
                witness.wait_for((folder / "one.prom").exists)
                process.send_signal(signal.SIGTERM)
            _, stderr = process.communicate(timeout=30 * witness.PATIENCE)
        finally:
            process.kill()
    told = f"{moments} (seed {SEED}): {stderr}"
    codes = {0, 130, *(-number for number in SIGNALS)}
    if "before the first round" in stderr:  # of a demo
        codes.add(1)
    assert process.returncode in codes, told
    assert "Traceback" not in stderr, told
    assert "internal error" not in stderr, told
    return int(count.read_text() or 0) if count.exists() else 0


def end_session(made: Target) -> None:
    """End the session that `arm` has begun, if it did."""
    if any(".sock" in name for name in session_files()):
        done = command("disarm", made.pid, "-q")
        assert done.code == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_an_undo_is_complete(
    name: str, target: Callable[..., Target], tmp_path: Path
) -> None:
    """Nothing stays behind in the target, in the sessions or beside the file."""
    made = target("m=anon,pages=400,fill=1")
    words = COMMANDS[name]
    lines = interrupted(words, made, "", tmp_path)
    assert lines > TAIL
    end_session(made)
    rolled = random.Random(SEED)
    for number in range(MOMENTS):
        (tmp_path / "one.pagescan").unlink(missing_ok=True)
        first = rolled.randrange(1 if number % 3 == 2 else lines - TAIL, lines)
        at = [first, *(rolled.randrange(1, 3000) for _ in range(3))]
        moments = ",".join(f"{place}:{rolled.choice(SIGNALS):d}" for place in at)
        interrupted(words, made, moments, tmp_path)
        end_session(made)
        told = f"{moments} (seed {SEED})"
        assert not session_files(), told
        assert not witness.registered(made.pid), told
        left = {path.name for path in tmp_path.iterdir()}
        assert left <= {"lines", "one.pagescan"}, told


SLOW = """
import sys
from pagescan.cli import run
from pagescan.session import spawn

class Slow:
    executable = sys.argv[1]

spawn.sys = Slow
sys.exit(run(["arm", sys.argv[2]]))
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_keeper_that_does_not_start(
    number: int, target: Callable[..., Target], tmp_path: Path
) -> None:
    """`arm` waits for it until a signal comes; then the keeper is ended, too."""
    made = target("m=anon,pages=400,fill=1")
    slow = tmp_path / "slow"
    slow.write_text('#!/bin/sh\necho $$ >"$0.pid"; exec sleep 1000\n')
    slow.chmod(0o755)
    line = [sys.executable, "-c", SLOW, str(slow), str(made.pid)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        witness.wait_for((tmp_path / "slow.pid").exists)
        witness.wait_for((tmp_path / "slow.pid").read_text)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=30 * witness.PATIENCE)
    assert process.returncode == (130 if number == signal.SIGINT else -number), stderr
    assert not session_files()
    assert not witness.registered(made.pid)
    keeper = int((tmp_path / "slow.pid").read_text())
    witness.wait_for(lambda: not Path(f"/proc/{keeper}").exists())
