"""The live view in a real terminal: the test reads the screen of tmux."""

import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.authors import Author
from tests.conftest import HERE, Target, session_files

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

    def press(self, *keys: str) -> None:
        """Send keys, by the names that tmux has for them."""
        self.tmux("send-keys", *keys)

    def row(self, text: str) -> str:
        """Return the line on the screen with a text; "": no line has it."""
        return next((line for line in self.screen() if text in line), "")

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
    """Head, rows, strip and foot fit any size; Ctrl-C leaves a summary and code 0."""
    made = target("m=anon,pages=4000,fill=1")
    terminal.start(f"{PAGESCAN} watch {made.pid} -i 0.2", width, height)
    witness.wait_for(lambda: terminal.shows("since start"))
    made.write("m", set(range(1000)))
    witness.wait_for(lambda: terminal.shows("▏"))
    witness.wait_for(lambda: terminal.shows("3.9M"))
    screen = terminal.screen()
    assert len(screen) <= height
    assert max(map(len, screen)) <= width
    witness.wait_for(lambda: f"{made.pid} mkmem" in terminal.screen()[0])
    witness.wait_for(lambda: terminal.shows("cost: stopped once"))
    terminal.tmux("resize-window", "-x", str(width + 20), "-y", str(height + 5))
    witness.wait_for(lambda: len(terminal.screen()) > height)
    witness.wait_for(lambda: "q quit" in terminal.screen()[-1])
    terminal.tmux("send-keys", "C-c")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("[anon]")
    assert terminal.shows("interrupted:")


def test_messages_break_at_blanks(
    terminal: Terminal, target: Callable[..., Target]
) -> None:
    """On a terminal a long message becomes lines; no figure is divided."""
    made = target("m=anon,pages=4000,fill=1")
    terminal.start(f"{PAGESCAN} watch {made.pid} -n 1 -i 0.1 >/dev/null", 40, 24)
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    rows = terminal.screen()
    begin = f"pagescan: watching {made.pid} (mkmem),"
    assert any(row.startswith(begin) for row in rows)
    assert any("every 100 ms; Ctrl-C to end" in row for row in rows)
    assert any("1 look" in row for row in rows)


@pytest.fixture
def watched(
    terminal: Terminal, target: Callable[..., Target]
) -> tuple[Terminal, Target]:
    """A target with two mappings that were written, watched at 80x24."""
    made = target("m=anon,pages=4000,fill=1", "n=memfd,pages=500,fill=1")
    terminal.start(f"{PAGESCAN} watch {made.pid} -i 0.2", 80, 24)
    witness.wait_for(lambda: terminal.shows("distinct pages in the last look"))
    made.write("m", set(range(0, 4000, 4)))
    made.write("n", set(range(500)))
    witness.wait_for(lambda: terminal.shows("3.9M"))
    witness.wait_for(lambda: terminal.shows("2.0M"))
    return terminal, made


def marked(terminal: Terminal) -> str:
    """Return the line of the selected row."""
    return terminal.row("▸")


def test_keys_of_the_table(watched: tuple[Terminal, Target]) -> None:
    """Each key does what the foot says."""
    terminal, _ = watched
    terminal.press("s")
    witness.wait_for(lambda: terminal.shows("since▾"))
    witness.wait_for(lambda: "3.9M" in marked(terminal))
    terminal.press("Down")
    witness.wait_for(lambda: "2.0M" in marked(terminal))
    assert not terminal.shows("[vdso]")
    terminal.press("h", "End")
    witness.wait_for(lambda: not terminal.shows("never written"))
    terminal.press("h", "g")
    witness.wait_for(lambda: terminal.shows("[anon] ×"))
    terminal.press("Home", "Enter")
    witness.wait_for(lambda: terminal.shows(" in [anon] "))
    terminal.press("Escape")
    witness.wait_for(lambda: not terminal.shows(" in [anon] "))
    terminal.press("g", "g", "/", "s", "t", "a", "c", "k")
    witness.wait_for(lambda: terminal.shows("Enter keeps it"))
    terminal.press("Enter")
    witness.wait_for(lambda: terminal.shows("without “stack”"))
    # Its label has the thread's name and id, and is cut where it does not fit.
    witness.wait_for(lambda: "[stac" in marked(terminal) or terminal.shows("0 B"))
    terminal.press("Escape", "+")
    witness.wait_for(lambda: "every 0.5 s" in terminal.screen()[0])
    terminal.press("-", "-")
    witness.wait_for(lambda: "every 0.1 s" in terminal.screen()[0])
    terminal.press("?")
    witness.wait_for(lambda: terminal.shows("select a mapping"))
    terminal.press("x", "q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("ended by q:")


def test_page_map_says_where_and_when(watched: tuple[Terminal, Target]) -> None:
    """Every fourth page of a mapping was written, and some seconds ago."""
    terminal, made = watched
    terminal.press("s")
    witness.wait_for(lambda: terminal.shows("since▾"))
    terminal.press("Enter")
    witness.wait_for(lambda: terminal.shows("4,000 pages populated"))
    start = made.ranges["m"][0]
    witness.wait_for(lambda: terminal.row(f"{start:x} "))
    terminal.press("Enter", "Enter", "Enter")
    witness.wait_for(lambda: terminal.shows("pages 0 to 64 of 4,000"))
    witness.wait_for(lambda: "█···█···█···" in terminal.row(f"{start:x} "))
    terminal.press("Right")
    witness.wait_for(lambda: terminal.shows("0 of 1 page written"))
    terminal.press("Left")
    witness.wait_for(lambda: terminal.shows("1 of 1 page written, the last "))
    made.write("m", {1, 2})
    witness.wait_for(lambda: "███·█···" in terminal.row(f"{start:x} "))
    terminal.tmux("resize-window", "-x", "160", "-y", "50")
    witness.wait_for(lambda: len(terminal.screen()) == 50)
    witness.wait_for(lambda: terminal.shows("Esc back"))
    terminal.press("Escape")
    witness.wait_for(lambda: terminal.shows("where it wrote"))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))


@pytest.mark.needs("root")
@pytest.mark.parametrize("width", [60, 80, 160])
def test_writers(width: int, terminal: Terminal, tmp_path: Path) -> None:
    """`w` names the function that writes each mapping; a pause ends the samples."""
    program = tmp_path / "authors"
    source = str(HERE / "targets/authors.c")
    subprocess.run(["cc", "-O2", "-w", "-pthread", "-o", program, source], check=True)
    author = Author(program)
    try:
        terminal.start(f"{PAGESCAN} watch {author.pid} -i 0.2", width, 24)
        witness.wait_for(lambda: terminal.shows("distinct pages"))
        pid = int(terminal.tmux("list-panes", "-F", "#{pane_pid}"))
        assert not events_below(pid)
        terminal.press("w")
        witness.wait_for(lambda: terminal.shows("first writer"))

        def names_the_writer() -> bool:
            author.say("again")
            return terminal.shows(" by_store")

        witness.wait_for(names_the_writer)
        assert events_below(pid)
        terminal.press("p")
        witness.wait_for(lambda: terminal.shows("PAUSED") and not events_below(pid))
        terminal.press("p")
        witness.wait_for(names_the_writer)
        terminal.press("w")
        witness.wait_for(lambda: not terminal.shows("first writer"))
        witness.wait_for(lambda: not events_below(pid))
        terminal.press("q")
        witness.wait_for(lambda: terminal.shows("CODE=0"))
    finally:
        author.process.kill()
        author.process.communicate()


def events_below(pid: int) -> list[str]:
    """Return the events of perf that the processes of a terminal have open."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for one in [pid, *map(int, children)]:
        for link in Path(f"/proc/{one}/fd").iterdir():
            with contextlib.suppress(OSError):
                if "[perf_event]" in str(link.readlink()):
                    found.append(f"{one} {link.name}")
    return found


@pytest.mark.needs("root")
def test_writers_that_are_denied(
    terminal: Terminal, target: Callable[..., Target], tmp_path: Path
) -> None:
    """One line says so, and the view goes on; with --budget, too."""
    made = target("m=anon,pages=4000,fill=1")
    code = (
        "import errno\n"
        "from pagescan import native\n"
        "from pagescan.attribution import samples\n"
        "def denied(*_, **__):\n"
        "    raise PermissionError(errno.EACCES, 'denied')\n"
        "native.open_faults = denied\n"
        "from pagescan.cli import run\n"
        "raise SystemExit(run())\n"
    )
    script = tmp_path / "denied.py"
    script.write_text(code)
    terminal.start(f"{sys.executable} {script} watch {made.pid} -i 0.2", 80, 24)
    witness.wait_for(lambda: terminal.shows("distinct pages"))
    terminal.press("w")
    witness.wait_for(lambda: terminal.shows("w: samples are denied"))
    assert not terminal.shows("first writer")
    made.write("m", {1, 2, 3})
    witness.wait_for(lambda: terminal.shows(" 12K "))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    terminal.tmux("kill-session")
    terminal.start(f"{PAGESCAN} watch {made.pid} -i 0.2 --budget 90", 80, 24)
    witness.wait_for(lambda: terminal.shows("distinct pages"))
    terminal.press("w")
    witness.wait_for(lambda: terminal.shows("w: not with --budget"))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))


def test_pause_loses_nothing(watched: tuple[Terminal, Target]) -> None:
    """No look is taken; the next one finds what was written while it was paused."""
    terminal, made = watched
    terminal.press("p")
    witness.wait_for(lambda: terminal.shows(" PAUSED "))
    made.write("n", set(range(100)))
    time.sleep(0.5)  # long enough for two looks
    assert not terminal.shows("2.3M")
    assert witness.registered(made.pid)
    terminal.press("p")
    witness.wait_for(lambda: terminal.shows("2.3M"))
    witness.wait_for(lambda: not terminal.shows("PAUSED"))


def test_growth_is_shown(watched: tuple[Terminal, Target]) -> None:
    """Memory that is mapped and filled after the start is growth."""
    terminal, made = watched
    made.tell("map late=anon,pages=700,fill=1")
    terminal.press("s", "s")
    witness.wait_for(lambda: "+2.7M" in marked(terminal))
    assert re.search(r" \+2\.[789]M$", terminal.row("since start").rstrip())


def test_stopped_by_ctrl_z(terminal: Terminal, target: Callable[..., Target]) -> None:
    """While it is stopped the shell has the terminal; fg brings the view back."""
    made = target("m=anon,pages=40,fill=1")
    terminal.tmux("new-session", "-d", "-x", "80", "-y", "24", "exec bash --norc -i")
    terminal.press(f"{PAGESCAN} watch {made.pid} -i 0.2", "Enter")
    witness.wait_for(lambda: terminal.shows("distinct page"))
    terminal.press("C-z")
    witness.wait_for(lambda: terminal.shows("Stopped"))
    terminal.press("stty -a", "Enter")
    witness.wait_for(lambda: terminal.shows("icanon") and not terminal.shows("-icanon"))
    terminal.press("fg", "Enter")
    witness.wait_for(lambda: terminal.shows("q quit"))
    terminal.press("s")
    witness.wait_for(lambda: terminal.shows("since▾"))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("ended by q:"))
    terminal.press("clear; stty -a | grep -o -w -e -*icanon -e -*echo", "Enter")
    witness.wait_for(lambda: terminal.screen()[0:2] == ["icanon", "echo"])


def test_no_keys_where_stdin_is_no_terminal(
    terminal: Terminal, target: Callable[..., Target]
) -> None:
    """The foot names no keys, and typed text stays in the terminal."""
    made = target("m=anon,pages=40,fill=1")
    terminal.start(f"{PAGESCAN} watch {made.pid} -i 0.2 </dev/null", 80, 24)
    witness.wait_for(lambda: terminal.shows("distinct page"))
    witness.wait_for(lambda: terminal.screen()[-1] == "Ctrl-C ends it")
    terminal.press("q")
    time.sleep(0.5)  # a key takes effect at the next look at the latest: 0.2 s
    assert terminal.shows("distinct page")
    terminal.press("C-c")
    witness.wait_for(lambda: terminal.shows("CODE=0"))


def test_end_of_the_target_restores_the_terminal(
    watched: tuple[Terminal, Target],
) -> None:
    """The view closes by itself, and the summary is there."""
    terminal, made = watched
    made.tell("quit")
    made.process.wait()
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("the target has ended")


BUSY = """
import mmap
memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
while True:
    for offset in range(0, len(memory), 4096):
        memory[offset] = 1
"""


def test_foot_says_what_tracking_costs(terminal: Terminal) -> None:
    """The foot shows the target's share, and the remedy while it is high."""
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        terminal.start(f"{PAGESCAN} watch {busy.pid} -i 0.2", 120, 24)
        witness.wait_for(lambda: terminal.shows("% of its processor time"))
        witness.wait_for(lambda: terminal.shows("time: --budget 2 keeps that to 2 %"))
        terminal.tmux("send-keys", "C-c")
        witness.wait_for(lambda: terminal.shows("CODE=0"))
        assert terminal.shows("tracking cost it about ")
    finally:
        busy.kill()
        busy.wait()


def test_demo_on_a_terminal(terminal: Terminal) -> None:
    """The demo ends with its verdict."""
    terminal.start(f"{PAGESCAN} demo --seconds 1.5", 100, 30)
    witness.wait_for(lambda: terminal.shows("a workload that knows its writes"))
    witness.wait_for(lambda: terminal.shows("CODE=0"))
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


GROWING = """
import mmap, sys
kept = []
while sys.stdin.readline():
    for _ in range(4):
        block = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"x" * (1 << 20))
        kept.append(block)
    print(len(kept), flush=True)
"""


def test_mapping_that_grows_stays_one_row(terminal: Terminal) -> None:
    """Tracking divides it at each look; the view shows no part, and none as gone."""
    grower = subprocess.Popen(
        [sys.executable, "-c", GROWING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert grower.stdin is not None
    assert grower.stdout is not None
    given, taken = grower.stdin, grower.stdout

    def grow() -> None:
        given.write("\n")
        given.flush()
        taken.readline()

    def shows_growth(megabytes: int) -> bool:
        return bool(re.search(rf"\+{megabytes}(\.\d)?M", marked(terminal)))

    try:
        grow()
        terminal.start(f"{PAGESCAN} watch {grower.pid} -i 0.2", 100, 30)
        witness.wait_for(lambda: terminal.shows("distinct page"))
        terminal.press("s", "s")
        for megabytes in (4, 8, 12):
            grow()
            witness.wait_for(functools.partial(shows_growth, megabytes))
        assert not terminal.shows("unmapped")
        large = [line for line in terminal.screen() if re.search(r"\d\dM ", line)]
        terminal.press("q")
        witness.wait_for(lambda: terminal.shows("CODE=0"))
        assert terminal.shows("ended by q: ")
        [row] = [line for line in terminal.screen() if re.search(r"\+1[2-5]M", line)]
        assert "gone" not in row
        assert large
    finally:
        grower.kill()
        grower.communicate()


@pytest.mark.parametrize("words", ["doctor", "sessions"])
def test_lists_fit_into_a_window(
    words: str, terminal: Terminal, armed: Callable[..., Target]
) -> None:
    """No line is broken by the terminal at 80 columns; times are ages."""
    made = armed("m=anon,pages=4")
    terminal.start(f"{PAGESCAN} {words} >/dev/null; {PAGESCAN} {words}", 80, 60)
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    text = terminal.tmux("capture-pane", "-p", "-J").splitlines()
    assert max(map(len, text)) <= 80
    if words == "sessions":
        assert re.search(rf"{made.pid} +mkmem +\d+ s ago", "\n".join(text))
    else:
        assert terminal.shows("fix: ")


# ---- groups ------------------------------------------------------------------------


def test_a_group(
    terminal: Terminal, target: Callable[..., Target], mkmem: Path
) -> None:
    """A row per process; Enter shows the mappings of one, Esc all processes again."""
    made, other = (target("m=anon,pages=4000,fill=1") for _ in range(2))
    terminal.start(f"{PAGESCAN} watch --match {mkmem} -i 0.2", 80, 24)
    witness.wait_for(lambda: terminal.shows("distinct pages in the last look"))
    witness.wait_for(lambda: "2 processes" in terminal.screen()[0])
    assert max(map(len, terminal.screen())) <= 80
    made.write("m", set(range(1000)))
    witness.wait_for(lambda: terminal.shows("wrote 3.9 MiB"))
    witness.wait_for(lambda: str(made.pid) in terminal.row("▸"))
    terminal.press("Enter")
    witness.wait_for(lambda: terminal.shows("Esc: all processes"))
    witness.wait_for(lambda: f"{made.pid} mkmem" in terminal.screen()[0])
    made.write("m", set(range(500)))
    witness.wait_for(lambda: terminal.shows("2.0M"))
    terminal.press("Escape")
    witness.wait_for(lambda: terminal.shows("2 processes"))
    terminal.press("s", "s", "s", "s")  # by pid
    witness.wait_for(lambda: terminal.shows("pid▾"))
    terminal.press("/", *str(other.pid), "Enter")
    witness.wait_for(lambda: not any(f" {made.pid} " in x for x in terminal.screen()))
    witness.wait_for(lambda: terminal.row(f" {other.pid} "))
    terminal.press("Escape")
    child = int(made.tell("fork m 0-3"))
    witness.wait_for(lambda: terminal.shows("3 processes"))
    made.tell(f"reap {child}")
    witness.wait_for(lambda: terminal.shows("1 gone"))
    witness.wait_for(lambda: not terminal.row(f" {child} "))
    terminal.press("h")
    witness.wait_for(lambda: "exited" in terminal.row(f" {child} "))
    terminal.press("?")
    witness.wait_for(lambda: terminal.shows("PgUp"))
    terminal.press("x")
    witness.wait_for(lambda: terminal.shows("3 processes") or terminal.shows("pid▾"))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows("1 process went")
    assert terminal.row(f"{made.pid}")


def test_an_exec_of_a_member_is_seen(
    terminal: Terminal, target: Callable[..., Target], mkmem: Path
) -> None:
    """It stands in the view until it is old, and on stderr when the view has closed."""
    made, _ = (target("m=anon,pages=40,fill=1") for _ in range(2))
    terminal.start(f"{PAGESCAN} watch --match {mkmem} -i 0.2", 100, 24)
    witness.wait_for(lambda: terminal.shows("distinct pages in the last look"))
    said = "was exec'd: attached again"
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.write("exec\n")
    made.process.stdin.flush()
    assert "ranges" in made.process.stdout.readline()
    made.tell("checksum m")  # it runs
    witness.wait_for(lambda: terminal.shows(said))
    assert terminal.screen()[2].startswith(f"{made.pid} (")
    terminal.press("Enter")
    witness.wait_for(lambda: terminal.shows("Esc: all processes"))
    assert terminal.shows(said)
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert terminal.shows(said)


@pytest.mark.parametrize(("width", "height"), [(160, 50), (40, 12)])
def test_a_group_fits(
    width: int,
    height: int,
    terminal: Terminal,
    target: Callable[..., Target],
    mkmem: Path,
) -> None:
    """More processes than lines: the table scrolls, and no line is too long."""
    targets = [target("m=anon,pages=4,fill=1") for _ in range(8)]
    terminal.start(f"{PAGESCAN} watch --match {mkmem} -i 0.2", width, height)
    witness.wait_for(lambda: terminal.shows("in the last look"))
    assert max(map(len, terminal.screen())) <= width
    assert len(terminal.screen()) <= height
    terminal.press(*("s" * (4 if width > 70 else 1)), "End")  # by pid
    last = max(made.pid for made in targets)
    witness.wait_for(lambda: f" {last}" in terminal.row("▸"))
    terminal.press("C-c")
    witness.wait_for(lambda: terminal.shows("CODE=0"))


STANDS = """
import os, sys, time
from pathlib import Path
from pagescan.__main__ import main
from pagescan.model.errors import PagescanError
from pagescan.tracking.tracking import Tracking

arm, when, place = Tracking.arm, sys.argv.pop(1), Path(sys.argv.pop(1))

def stand(tracking):
    (place / "pid").write_text(str(os.getpid()))
    while not (place / "go").exists():
        time.sleep(0.01)

def arm_or_stand(tracking):
    if when == "before":
        stand(tracking)
    arm(tracking)
    if when == "behind":
        stand(tracking)
    if when == "fails":
        raise PagescanError("no more memory")

Tracking.arm = arm_or_stand
main()
"""
"""A pagescan that stands before its arming, or behind it until a file exists."""


def standing(when: str, place: Path) -> str:
    """Return the command line of such a pagescan."""
    script = place / "stands.py"
    script.write_text(STANDS)
    return f"{sys.executable} {script} {when} {place}"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (160, 50), (40, 12)])
def test_the_view_is_shown_before_the_arming(
    width: int,
    height: int,
    terminal: Terminal,
    target: Callable[..., Target],
    tmp_path: Path,
) -> None:
    """Many mappings: the view says so while nothing is registered, then goes on."""
    made = target("m=many,pages=6000,fill=1")
    line = f"{standing('before', tmp_path)} watch {made.pid} -i 0.2"
    terminal.start(line, width, height)
    witness.wait_for(lambda: terminal.row("arming 6,0"))
    assert f"{made.pid} mkmem" in terminal.screen()[0]
    assert "mappings, 2" in terminal.row("arming")  # MiB
    assert "tracking" not in terminal.screen()[0]
    assert terminal.screen()[-1] == "Ctrl-C ends it"
    assert not terminal.shows("cost:")
    witness.wait_for(lambda: terminal.row("▸"))  # the largest mappings
    assert max(map(len, terminal.screen())) <= width
    witness.wait_for((tmp_path / "pid").exists)
    assert not terminal.shows(" below")
    assert witness.registered(made.pid) == 0
    assert terminal.row("arming 6,0")
    (tmp_path / "go").touch()
    made.write("m", {7, 5000})
    witness.wait_for(lambda: "q quit" in terminal.screen()[-1])
    witness.wait_for(lambda: not terminal.shows("arming"))
    made.write("m", {7, 5000})
    witness.wait_for(lambda: terminal.shows("4.0K"))
    terminal.press("q")
    witness.wait_for(lambda: terminal.shows("CODE=0"))
    assert not terminal.shows("arming")
    witness.wait_for(lambda: witness.registered(made.pid) == 0)


@pytest.mark.parametrize(("end", "code"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_interrupted_while_the_view_waits_for_the_arming(
    end: str,
    code: int,
    terminal: Terminal,
    target: Callable[..., Target],
    tmp_path: Path,
) -> None:
    """The command restores the terminal, and undoes what it has armed."""
    made = target("m=many,pages=6000,fill=1")
    terminal.start(f"{standing('behind', tmp_path)} watch {made.pid}", 80, 24)
    witness.wait_for(lambda: terminal.row("arming 6,0"))
    witness.wait_for((tmp_path / "pid").exists)
    witness.wait_for(lambda: witness.registered(made.pid) >= 6000)
    assert terminal.tmux("display", "-p", "#{alternate_on}").strip() == "1"
    if end == "INT":
        terminal.press("C-c")
    else:
        os.kill(int((tmp_path / "pid").read_text()), signal.Signals[f"SIG{end}"])
    witness.wait_for(lambda: terminal.shows(f"CODE={code}"))
    assert witness.registered(made.pid) == 0
    assert session_files() == set()
    state = terminal.tmux("display", "-p", "#{alternate_on} #{cursor_flag}")
    assert state.strip() == "0 1"
    terminal.press("echoed", "Enter")  # a line is read as a whole again
    witness.wait_for(lambda: sum("echoed" in row for row in terminal.screen()) == 2)


def test_an_error_while_the_view_waits_for_the_arming(
    terminal: Terminal, target: Callable[..., Target], tmp_path: Path
) -> None:
    """It stands on the screen that is there when the view has gone."""
    made = target("m=many,pages=6000,fill=1")
    line = f"{standing('fails', tmp_path)} watch -v {made.pid}"
    terminal.start(line, 80, 24)
    witness.wait_for(lambda: terminal.shows("CODE=1"))
    assert terminal.row("no more memory") == "pagescan: no more memory"
    assert terminal.tmux("display", "-p", "#{alternate_on}").strip() == "0"
    assert witness.registered(made.pid) == 0
    assert session_files() == set()
