"""Signals that come while a command undoes what it has begun: it still undoes all.

A trace function counts the lines that are run, and sends the signals at some of them.
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
import os, sys

count_file, moments, *words = sys.argv[1:]
moments = [tuple(map(int, item.split(":"))) for item in moments.split(",") if item]
lines, begun = 0, False

def line(frame, event, _):
    global lines
    if event == "line":
        lines += 1
        while moments and lines >= moments[0][0]:
            os.kill(os.getpid(), moments.pop(0)[1])
    return line

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
    return int(count.read_text()) if count.exists() else 0


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
        at = [first, *sorted(first + rolled.randrange(100) for _ in range(3))]
        moments = ",".join(f"{line}:{rolled.choice(SIGNALS):d}" for line in at)
        interrupted(words, made, moments, tmp_path)
        end_session(made)
        told = f"{moments} (seed {SEED})"
        assert not session_files(), told
        assert not witness.registered(made.pid), told
        left = {path.name for path in tmp_path.iterdir()}
        assert left <= {"lines", "one.pagescan"}, told
