"""The child process of `demo`: it writes to a heap, and reports which pages it wrote.

It reads commands on stdin and answers on stdout, one line each: "go" runs one round,
and the answer is the JSON list of the pages written in that round. It ends at the end
of its input. In a round

- it writes several times to a hot spot, which moves through the heap,
- it writes to single pages all over the heap,
- it reads pages that are populated, and pages that never were,
- it writes to a page that it shares with a forked child (copy-on-write).
"""

import contextlib
import json
import mmap
import os
import random
import subprocess
import sys
import time
from typing import IO, Self

from pagescan import native

PAGE = os.sysconf("SC_PAGE_SIZE")
_HOT_PAGES = 1500
_RANDOM_WRITES = 400
_READS = 800
_STEPS = 20


class Workload:
    """The parent's side: starts the child, and asks it which pages it wrote.

    Attributes:
        pid: The pid of the child.
        start: The address of the heap in the child.
        pages: The length of the heap in pages.
    """

    def __init__(self, size: int, seconds_a_round: float) -> None:
        """Start a child with a heap of `size` bytes."""
        package = os.path.abspath(__file__ + 3 * "/..")
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-P", "-s", "-m", "pagescan.commands.workload"),
                *(str(size), str(seconds_a_round)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
            process_group=0,  # Ctrl-C is for the demo, which then ends it
        )
        self.pid = self._child.pid
        self.start, self.pages = self._answer()

    def go(self) -> None:
        """Start a round."""
        stdin: IO[bytes] | None = self._child.stdin
        if stdin is not None:
            stdin.write(b"go\n")
            stdin.flush()

    def wrote(self) -> set[int]:
        """Wait for the end of the round; return the page numbers that it wrote."""
        return set(self._answer())

    def fileno(self) -> int:
        """Return the descriptor that becomes readable at the end of a round."""
        stdout = self._child.stdout
        return stdout.fileno() if stdout is not None else -1

    def _answer(self) -> list[int]:
        stdout = self._child.stdout
        line = stdout.readline() if stdout is not None else b""
        if not line:
            raise ProcessLookupError("the demo's workload has ended")
        answer: list[int] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._child.communicate(timeout=10)


def _round(heap: mmap.mmap, quiet: range, number: int, seconds: float) -> set[int]:
    """Write and read for one round; return the page numbers that were written."""
    rolled = random.Random(number)  # noqa: S311 - not for secrets
    busy = quiet.start
    wrote: set[int] = set()
    hot = number * _HOT_PAGES // 2 % max(1, busy - _HOT_PAGES)
    for step in range(_STEPS):
        begun = time.monotonic()
        for page in range(hot, hot + min(_HOT_PAGES, busy)):
            heap[page * PAGE + step] = step + 1
            wrote.add(page)
        for _ in range(_RANDOM_WRITES // _STEPS):
            page = rolled.randrange(busy)
            heap[page * PAGE + 100] = 1
            wrote.add(page)
        for _ in range(_READS // _STEPS):
            _ = heap[rolled.randrange(len(heap) // PAGE) * PAGE]
        time.sleep(max(0.0, seconds / _STEPS - (time.monotonic() - begun)))
    page = rolled.choice(quiet)
    heap[page * PAGE] = 7
    wrote.add(page)
    return wrote


def main() -> None:
    """Run as the child."""
    size, seconds = int(sys.argv[1]), float(sys.argv[2])
    pages = size // PAGE
    heap = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # One store would populate a whole huge page, but the answer counts single pages.
    heap.madvise(mmap.MADV_NOHUGEPAGE)
    # The last tenth is never populated; the tenth before it is shared with a child.
    quiet = range(pages * 8 // 10, pages * 9 // 10)
    for page in range(quiet.stop):
        heap[page * PAGE + 1] = 1
    alive, held = os.pipe()
    if os.fork() == 0:
        os.close(held)
        os.read(alive, 1)  # waits for the end of its parent
        os._exit(0)
    os.close(alive)
    _say([native.address_of(heap), pages])
    for number, line in enumerate(sys.stdin):
        if line == "go\n":
            _say(sorted(_round(heap, quiet, number, seconds)))


def _say(answer: list[int]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
