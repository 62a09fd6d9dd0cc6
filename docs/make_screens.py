"""Makes the screens in the documents again, from the present program: `make screens`.

    make_screens.py                 all screens of README.md and docs/
    make_screens.py NAME...         only those of these targets: redis set leak
                                    java shop python prefork crew frozen writer workers
                                    none

A comment before a block of text says how it is made:

    <!-- screen redis 80x24 6: pagescan watch redis-server -->
        The screen of a terminal of that size, after that many seconds. Keys may follow
        the seconds: "8 s s".
    <!-- output java: pagescan maps java | head -5 -->
        What a command prints into a pipe.
    <!-- transcript redis: pagescan arm 4242 -->
        The block has lines that begin with "$ ": each is run again, after that command.

4242 stands for the pid of the target. The commands run as root in a PID namespace of
their own, so that each name is unique, and everything ends with it.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")))
BLOCK = re.compile(
    r"<!-- (screen|output|transcript) (\w+)(?: (\d+)x(\d+) (\d+)((?: [^\s:]+)*))?: "
    r"([^\n]*) -->\n\n?```text\n(.*?)```",
    re.DOTALL,
)
_REDIS = """
redis-server --port 7001 --save '' --daemonize yes >/dev/null
sleep 1
redis-benchmark -p 7001 -q -n 200000 -r 200000 -d 500 -t set >/dev/null
redis-benchmark -p 7001 -q -l -r 200000 -d 500 -t set >/dev/null &
pidof redis-server >target
"""
_LEAK = """
import time
open("/proc/self/comm", "w").write("leaky")
print(open("/proc/self/stat").read().split()[0], file=open("target", "w"), flush=True)
kept, cache = [], {}
while True:
    kept.append([bytes(100) for _ in range(200)])
    cache[len(kept) % 50] = bytes(10_000)
    time.sleep(0.02)
"""
_JAVA = """
javac -d . "$TREE/tests/targets/Steady.java"
tail -f /dev/null | java -Xmx256m -cp . Steady >/dev/null &
sleep 4
pidof java >target
"""
_PREFORK = """
import os, time
def name(word):
    with open("/proc/self/comm", "w") as comm:
        comm.write(word)
name("web")
print(os.getpid(), file=open("target", "w"), flush=True)
for worker in range(4):
    if os.fork() == 0:
        name(f"web worker {worker}")
        while True:
            cache = bytearray(400_000 * (worker + 1))
            for at in range(0, len(cache), 4096):
                cache[at] = 1
            sum(cache)
            time.sleep(0.1)
time.sleep(1e6)
"""
# Objects of Python, and workers that touch them once the file "go" exists.
_CREW = """
import gc, os, sys, time
def name(word):
    with open("/proc/self/comm", "w") as comm:
        comm.write(word)
rows = [{"name": f"customer {n}", "basket": [n]} for n in range(600_000)]
gc.collect()
if sys.argv[1:]:
    gc.freeze()
work = {
    "idle": lambda: None,
    "collects": gc.collect,
    "reads": lambda: [row["basket"] for row in rows] and None,
    "walks": lambda: any(row is None for row in rows),
}
name("parent")
print(os.getpid(), file=open("target", "w"), flush=True)
for worker, act in work.items():
    if os.fork() == 0:
        name(worker)
        while not os.path.exists("go"):
            time.sleep(0.1)
        act()
        break
time.sleep(1e6)
"""
_FORKED = "while [ $(pgrep -c -P $! .) != 4 ]; do sleep 0.1; done"
# Writes 30,000 different pages per second, and notes how many in the file "wrote".
_WRITER = """
import os, time
open("/proc/self/comm", "w").write("writer")
print(os.getpid(), file=open("target", "w"), flush=True)
heap, begin, pages = bytearray(256 << 20), time.monotonic(), 0
while True:
    for _ in range(100):
        heap[pages * 17 * 4096 % len(heap)] = pages & 255
        pages += 1
    while time.monotonic() < begin + pages / 30_000:
        pass
    if pages % 30_000 == 0:
        rate = pages / (time.monotonic() - begin)
        print(f"{rate:.0f} pages per second", file=open("wrote", "w"))
"""
_WORKERS = """
import gc, os, time
open("/proc/self/comm", "w").write("web")
print(os.getpid(), file=open("target", "w"), flush=True)
gc.disable()
data = [{"name": f"customer {n}", "basket": [n]} for n in range(100_000)]
for worker in range(3):
    if os.fork() == 0:
        time.sleep(5)
        if worker == 1:
            gc.collect()
        elif worker == 2:
            sum(row["basket"][0] for row in data)
        time.sleep(1e6)
time.sleep(1e6)
"""
# The program of docs/who.md, as a reader copies it from there.
_SHOP = """
sed -n '/^cat > Shop.java/,/^END/p' "$TREE/docs/who.md" | bash
java -Xmx512m Shop.java >/dev/null &
sleep 4
pidof java >target
"""
# Commands without a target, beside the examples and a test that writes too much.
_NONE = """
echo 4242 >target
ln -s "$TREE/examples" "$TREE/tests" .
cat >test_index.py <<END
import pytest


@pytest.mark.dirty_pages(max=2000)
def test_index():
    names = {n: str(n) for n in range(100_000)}
    assert names[7] == "7"
END
"""
_PYTHON = """
sed -n '/^cat > shop.py/,/^END/p' "$TREE/docs/who.md" | bash
python3 shop.py &
echo $! >target
sleep 4
"""
_SET = """
redis-server --port 7001 --save '' --daemonize yes >/dev/null
sleep 1
redis-benchmark -p 7001 -q -n 400000 -r 100000 -d 1000 -P 16 -t set >/dev/null
redis-benchmark -p 7001 -q -l -r 100000 -d 1000 -t set >/dev/null &
sleep 4
pidof redis-server >target
"""
TARGETS = {
    "redis": _REDIS,
    "set": _SET,
    "shop": _SHOP,
    "python": _PYTHON,
    "prefork": f"python3 -c '{_PREFORK}' & sleep 1",
    "workers": f"python3 -c '{_WORKERS}' & sleep 2",
    "leak": f"python3 -c '{_LEAK}' & sleep 1",
    "java": _JAVA,
    "crew": f"python3 -c '{_CREW}' & {_FORKED}",
    "frozen": f"python3 -c '{_CREW}' frozen & {_FORKED}",
    "writer": f"python3 -c '{_WRITER}' & sleep 2",
    "none": _NONE,
}


def _run(line: str, folder: str) -> str:
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout


def _screen(line: str, folder: str, size: tuple[str, str], wait: str, keys: str) -> str:
    """Return the screen of a terminal in which a command has run for a while."""
    socket = f"{folder}/tmux{time.monotonic_ns()}"  # the last server may not be gone
    tmux = ["tmux", "-u", "-S", socket, "-f", "/dev/null"]
    line = f"unset COLUMNS LINES; cd {folder}; {line}; exec cat"
    width, height = size
    start = [*tmux, "new-session", "-d", "-x", width, "-y", height, line]
    subprocess.run(start, check=True)
    time.sleep(int(wait))
    for key in keys.split():
        subprocess.run([*tmux, "send-keys", key], check=True)
        time.sleep(0.5)
    shown = subprocess.run(
        [*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True
    ).stdout
    subprocess.run([*tmux, "kill-server"], check=True)
    return "\n".join(row.rstrip() for row in shown.rstrip().splitlines()) + "\n"


def _transcript(block: str, pid: str, folder: str) -> str:
    """Return the lines of a block that are commands, each with what it prints."""
    commands = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
    return "".join(
        f"$ {line}\n{_run(line.replace('4242', pid), folder)}" for line in commands
    )


def make(page: Path, name: str, pid: str, folder: str) -> None:
    """Write the blocks of one target in a page again."""

    def block(match: re.Match[str]) -> str:
        kind, of, width, height, wait, keys, line, text = match.groups()
        if of != name:
            return match[0]
        sys.stdout.write(f"{page.name}: {kind} {line}\n")
        line = line.replace("4242", pid)
        if kind == "screen":
            made = _screen(line, folder, (width, height), wait, keys)
        elif kind == "output":
            made = _run(line, folder)
        else:
            _run(line, folder)
            made = _transcript(text, pid, folder)
            _run(f"pagescan disarm {pid} -q", folder)
        made = re.sub(r"(Linux \d[\d.]*)-[^,\s]+", r"\1", made)  # of one machine only
        return match[0][: -len(text) - 3] + made + "```"

    page.write_text(BLOCK.sub(block, page.read_text()))


def main() -> None:
    """Start each target, and make its screens."""
    if os.environ.get("PAGESCAN_SCREENS") is None:
        os.environ["PAGESCAN_SCREENS"] = "1"
        words = ["unshare", "--mount", "--pid", "--fork", "--mount-proc"]
        os.execvp(words[0], [*words, sys.executable, __file__, *sys.argv[1:]])
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    os.environ["TREE"] = str(ROOT)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "mode=0700", "none", "/run/pagescan"], check=True
    )
    for name in sys.argv[1:] or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["bash", "-c", TARGETS[name]], cwd=folder, check=True)
            pid = Path(folder, "target").read_text().strip()
            for page in PAGES:
                make(ROOT / page, name, pid, folder)
            if name != "none":
                subprocess.run(["kill", "-9", pid], check=True)
                os.waitpid(int(pid), 0)  # its port is free then, for the next target


if __name__ == "__main__":
    main()
