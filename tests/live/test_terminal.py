"""The live view in a real terminal: the test reads the screen of tmux."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import Target

pytestmark = [pytest.mark.needs("tracking", "tmux")]


class Terminal:
    """A separate tmux server with one window."""

    def __init__(self, socket: Path) -> None:
        self.socket = str(socket)

    def tmux(self, *words: str) -> str:
        """Run a tmux command and return what it prints."""
        done = subprocess.run(
            ["tmux", "-u", "-S", self.socket, "-f", "/dev/null", *words],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def start(self, line: str, width: int, height: int) -> None:
        """Open a window of some size and run a command in it."""
        size = ("-x", str(width), "-y", str(height))
        line = f"unset COLUMNS LINES; {line}; echo CODE=$?; exec cat"
        self.tmux("new-session", "-d", *size, line)

    def screen(self) -> list[str]:
        """Return the lines on the screen."""
        return self.tmux("capture-pane", "-p").splitlines()

    def shows(self, text: str) -> bool:
        """Whether a text is on the screen."""
        return any(text in line for line in self.screen())


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    made = Terminal(tmp_path / "tmux")
    yield made
    subprocess.run(
        ["tmux", "-S", made.socket, "kill-server"], capture_output=True, check=False
    )


PAGESCAN = f"{sys.executable} -m pagescan"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (40, 12)])
def test_watch_fits(
    width: int, height: int, terminal: Terminal, target: Callable[..., Target]
) -> None:
    """Head, rows, strip and foot fit; Ctrl-C leaves a summary and code 0."""
    made = target("m=anon,pages=4000,fill=1")
    terminal.start(f"{PAGESCAN} watch {made.pid} -i 0.2", width, height)
    witness.wait_for(lambda: terminal.shows("since start"))
    made.write("m", set(range(1000)))
    witness.wait_for(lambda: terminal.shows("▏"))
    witness.wait_for(lambda: terminal.shows("3.9M"))
    screen = terminal.screen()
    assert len(screen) <= height
    assert max(map(len, screen)) <= width
    assert f"{made.pid} mkmem" in screen[0]
    witness.wait_for(lambda: terminal.shows("cost: stopped once"))
    terminal.tmux("resize-window", "-x", str(width + 20), "-y", str(height + 5))
    witness.wait_for(lambda: len(terminal.screen()) > height)
    witness.wait_for(lambda: "Ctrl-C" in terminal.screen()[-1])
    terminal.tmux("send-keys", "C-c")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("[anon]")
    assert terminal.shows("interrupted:")


BUSY = """
import mmap
memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
while True:
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
"""


def test_foot_says_what_tracking_costs(terminal: Terminal) -> None:
    """The foot shows the target's share; the advice comes after the live view."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        terminal.start(f"{PAGESCAN} watch {busy.pid} -i 0.2", 120, 24)
        witness.wait_for(lambda: terminal.shows("% of its processor time"), 30)
        [foot] = [line for line in terminal.screen() if line.startswith("cost: ")]
        assert "% of its processor time; stopped once " in foot
        assert not terminal.shows("--budget")
        terminal.tmux("send-keys", "C-c")
        witness.wait_for(lambda: terminal.shows("CODE=0"))
        assert terminal.shows("tracking cost it about ")
        assert terminal.shows("--budget 2 keeps that to 2 %")
    finally:
        busy.kill()
        busy.wait()


def test_demo_on_a_terminal(terminal: Terminal) -> None:
    """The demo ends with its verdict."""
    terminal.start(f"{PAGESCAN} demo --seconds 1.5", 100, 30)
    witness.wait_for(lambda: terminal.shows("a workload that knows its writes"))
    witness.wait_for(lambda: terminal.shows("CODE=0"), 30)
    assert terminal.shows("0 missed, 0 extra")
    assert terminal.shows("exact: every page")


def test_dumb_terminal(terminal: Terminal, target: Callable[..., Target]) -> None:
    """TERM=dumb: no cursor motion and no colour, the plain form."""
    made = target("m=anon,pages=40,fill=1")
    terminal.start(f"TERM=dumb {PAGESCAN} watch {made.pid} -i 0.2 -n 1", 100, 30)
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("tick 1:")


def test_table_elides_in_the_middle(
    terminal: Terminal, target: Callable[..., Target]
) -> None:
    """A long path keeps both its ends in a narrow window."""
    made = target("m=anon,pages=4")
    words = f"{made.pid} '*libc*' -c start,mapping --no-header --max-pages 1"
    terminal.start(f"{PAGESCAN} scan {words}", 50, 10)
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    (line,) = [line for line in terminal.screen() if "0x" in line]
    assert len(line) <= 50
    assert "…" in line
    assert line.endswith((".so.6", ".so"))


def test_no_color(terminal: Terminal, target: Callable[..., Target]) -> None:
    """NO_COLOR turns colours off; --color always overrides it."""
    made = target("m=anon,pages=4")
    line = f"{PAGESCAN} scan {made.pid} --max-pages 3"
    terminal.start(f"NO_COLOR=1 {line}; NO_COLOR=1 {line} --color always", 90, 40)
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    heads = [
        head
        for head in terminal.tmux("capture-pane", "-p", "-e").splitlines()
        if "mapping" in head
    ]
    assert ["\x1b[1m" in head for head in heads] == [False, True]


def test_progress_on_a_terminal_only(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """A long scan shows a bar on stderr, except with -q or into a file."""
    made = target("m=anon,pages=4")
    code = (
        "import pagescan.render.progress as p, sys, pagescan.cli as c;"
        "p._PATIENCE = -1; sys.exit(c.run())"
    )
    words = f"{sys.executable} -c '{code}' scan {made.pid} --json --max-pages 1"
    seen = tmp_path / "seen"
    lines = [
        f'script -qc "{words} >{tmp_path}/out{option}" {seen}{number} </dev/null'
        for number, option in enumerate(("", " -q", " 2>/dev/null"))
    ]
    for line in lines:
        subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    shown = ["looking" in Path(f"{seen}{number}").read_text() for number in range(3)]
    assert shown == [True, False, False]


def test_writing_says_how_far_it_is(
    target: Callable[..., Target], tmp_path: Path
) -> None:
    """Writing to a slow reader shows a bar; writing to a terminal does not."""
    made = target("m=anon,pages=16384")
    made.write("m", set(range(0, 16384, 2)))
    out, seen = tmp_path / "out", tmp_path / "seen"
    # The reader is slow after its first input:
    reader = f"| (read -r line; sleep 0.7; cat >{out})"

    def shown(words: str) -> str:
        line = f"TERM=xterm {PAGESCAN} scan {made.pid} {words}"
        subprocess.run(
            ["script", "-eqc", f"set -o pipefail; {line}", str(seen)],
            env={**os.environ, "SHELL": "/bin/bash"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        return seen.read_text(errors="replace")

    for form in ("--json", "--jsonl", "--csv", ""):
        said = shown(f"{form} {reader}")
        assert "writing ▕" in said, form
        assert " regions" in said
        assert said.rpartition("writing ▕")[2].count("\x1b[K") == 1  # taken away
        assert "writing ▕" not in out.read_text()
    assert " pages" in shown(f"--by page --csv {reader}")
    for words in (f"--json -q {reader}", f"--json 2>/dev/null {reader}", "--csv"):
        assert "writing ▕" not in shown(words)
