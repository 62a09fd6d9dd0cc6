"""`report` says the cost that `record` said at its end."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import command

pytestmark = pytest.mark.needs("tracking")

SHARE = re.compile(r"(\S+ %) of (?:its|their) (?:own|processor time)")
# Busy at first and idle later: an average over time would be another figure.
BUSY = """
import mmap, sys, time
memory = mmap.mmap(-1, 16 << 20)
for round in range(30):
    for at in range(0, len(memory), 4096):
        memory[at] = round & 255
for _ in range(10):
    sum(range(20_000))
    time.sleep(0.1)
print("done", flush=True)
"""
MEMBER = """
import mmap, sys, time
memory = mmap.mmap(-1, 4 << 20)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for at in range(0, len(memory), 4096):
        memory[at] = 1
    time.sleep(0.02)
"""
FAMILY = f"""
import subprocess, sys
code = {MEMBER!r}
both = [subprocess.Popen([sys.executable, "-c", code, at]) for at in ("4", "60")]
sys.stdin.read()
for one in both:
    one.kill()
"""


def share_in(text: str) -> str:
    """Return the share of processor time in a line; it is there once."""
    (found,) = SHARE.findall(text)
    return str(found)


def recorded(path: Path, *words: str) -> str:
    """Record, and return what the last line says of the cost."""
    done = subprocess.run(
        [sys.executable, "-m", "pagescan", "record", "-o", str(path), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = re.compile("tracking cost (it|them) about")
    (line,) = filter(said.search, done.stderr.splitlines())
    return share_in(line)


def reported(*paths: Path) -> str:
    """Return the share that the report says; it is the same in JSON."""
    (line,) = [
        one
        for one in command("report", *paths).stdout.splitlines()
        if one.startswith("cost ")
    ]
    cost = command("report", *paths, "--json").json()["summary"]["cost"]
    assert cost["target_ns"] > 0
    return share_in(line)


@pytest.mark.parametrize("more", [(), ("--budget", "2"), ("--rotate", "0.4")])
def test_of_a_command(tmp_path: Path, more: tuple[str, ...]) -> None:
    words = ("-i", "0.1", *more, "--", sys.executable, "-c", BUSY)
    said = recorded(tmp_path / "a.pagescan", *words)
    assert reported(*tmp_path.glob("a*.pagescan")) == said


def test_of_a_group(tmp_path: Path) -> None:
    """Members that have gone count, too."""
    family = subprocess.Popen([sys.executable, "-c", FAMILY], stdin=subprocess.PIPE)
    try:
        path = tmp_path / "a.pagescan"
        words = ("--tree", str(family.pid), "-i", "0.1", "-n", "50")
        said = recorded(path, *words)
    finally:
        family.communicate()
    assert reported(path) == said
