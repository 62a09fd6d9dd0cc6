"""A million regions: a reader of three lines waits for the scan alone."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SANITIZED

TARGET = Path(__file__).parents[2] / "benchmarks/target.c"
COUNT = 1_000_000
COLUMNS = 4 * 8  # bytes per region in the columns
# One object per region, with its numbers, would be more than 200 bytes. (The peak that
# wait4(2) reports for a child is that of its parent, if this was larger.)
MEMORY = 30_000_000 + 3 * COLUMNS * COUNT
LIMITED = [] if SANITIZED else ["prlimit", f"--data={MEMORY}"]


@pytest.fixture
def million(tmp_path: Path) -> Iterator[list[str]]:
    """A process whose every second page was read, and its RANGE."""
    program = str(tmp_path / "target")
    subprocess.run(["cc", "-O1", "-o", program, str(TARGET), "-pthread"], check=True)
    with subprocess.Popen(
        [program, str(1 << 20)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["pid"]
        process.stdin.write(f"holes {2 * 4096 * COUNT}\n".encode())
        process.stdin.flush()
        made = json.loads(process.stdout.readline())
        yield [str(pid), f"{made['start']:#x}-{made['end']:#x}", "--require", "present"]
        process.stdin.close()


def piped(
    words: list[str], *reader: str
) -> tuple[int, bytes, bytes, resource.struct_rusage]:
    """Return the exit code, the reader's output, the messages and the cost."""
    with (
        subprocess.Popen(
            [*LIMITED, sys.executable, "-m", "pagescan", "scan", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as scan,
        subprocess.Popen(reader, stdin=scan.stdout, stdout=subprocess.PIPE) as reads,
    ):
        assert scan.stdout is not None
        assert scan.stderr is not None
        scan.stdout.close()
        out, _ = reads.communicate()
        said = scan.stderr.read()
        _, status, usage = os.wait4(scan.pid, 0)
        scan.returncode = os.waitstatus_to_exitcode(status)
    return scan.returncode, out, said, usage


def test_the_first_lines_are_there_at_once(million: list[str]) -> None:
    """`| head -3` works in each form: silent, exit code 0, no more memory."""
    _, lines, _, whole = piped([*million, "--csv"], "wc", "-l")
    assert int(lines) == COUNT + 1
    for words in ([], ["--json"], ["--jsonl"], ["--csv"], ["--by", "page"]):
        code, out, said, usage = piped([*million, *words], "head", "-3")
        assert (code, said) == (0, b""), words
        assert out.count(b"\n") == 3
        spent = usage.ru_utime + usage.ru_stime
        assert spent < 0.8 * (whole.ru_utime + whole.ru_stime)
