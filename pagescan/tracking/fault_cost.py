"""Measures in a child what a first write to a protected page costs its writer.

Measured as a target meets it: the pages are random ones of a memory larger than the
caches, and there is code to run between two of them. For the fault is only a part of
what it costs: afterwards caches, TLB and branch predictors are cold for the target's
own code. A loop of stores to warm pages in order shows half of it.

The child is a process of its own: the memory, and the peak of it, are not ours.
"""

import contextlib
import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess


USUAL = 1.3e-6  # seconds: an AMD EPYC, virtual, Linux 6.18, with its mitigations
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MOST, _LEAST = 64 << 20, 16 << 20  # bytes: L2 and TLB reach less
_PART = 8  # of what is free, the child takes one
_STRETCHES, _WRITES = 2, 8192  # a stretch, too, is more than L2 holds
_DEADLINE = 2.0  # seconds; it takes 0.2


class FaultCost(NamedTuple):
    """What one first write costs.

    Attributes:
        seconds: Of processor time, user and system, beside a plain write.
        why: Why it was not measured, and is the usual figure; "": it was measured.
    """

    seconds: float
    why: str = ""

    def __str__(self) -> str:
        text = f"a first write to a page costs about {self.seconds * 1e6:.2f} µs"
        return f"{text} here" if not self.why else f"{text} (not measured: {self.why})"


class Trial:
    """The child that measures; `close` ends it if it has not ended."""

    def __init__(self) -> None:
        """Start it."""
        import subprocess

        self._begun = time.monotonic()
        self._child: subprocess.Popen[bytes] | None = None
        self._result: FaultCost | None = None
        size = memory_to_use()
        if size < _LEAST:
            self._result = FaultCost(USUAL, "too little memory is free")
            return
        package = os.path.abspath(__file__ + 3 * "/..")
        try:
            self._child = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-s", "-m", "pagescan.tracking.fault_cost"),
                    str(size),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": package, "PYTHONDONTWRITEBYTECODE": "1"},
                process_group=0,  # Ctrl-C is for its parent, which then ends it
            )
        except OSError as error:
            self._result = FaultCost(USUAL, str(error.strerror).lower())

    def poll(self) -> FaultCost | None:
        """Return the result; None: it is still at work."""
        child = self._child
        if self._result is None and child is not None:
            if child.poll() is not None:
                self._result = _read(child)
            elif time.monotonic() > self._begun + _DEADLINE:
                self._result = FaultCost(USUAL, "it took too long")
                self.close()
        return self._result

    def wait(self) -> FaultCost:
        """Return the result, after 2 s at the latest."""
        import subprocess

        if self._result is None and self._child is not None:
            left = self._begun + _DEADLINE - time.monotonic()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(max(0.0, left))
        return self.poll() or FaultCost(USUAL, "it took too long")

    def close(self) -> None:
        """End the child; twice does no harm."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _read(child: "subprocess.Popen[bytes]") -> FaultCost:
    """Return what the ended child said."""
    text = child.stdout.read() if child.stdout is not None else b""
    if child.stdout is not None:
        child.stdout.close()
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if 1e-8 < seconds < 1e-3:
            return FaultCost(seconds)
    return FaultCost(USUAL, "the trial failed")


def memory_to_use() -> int:
    """Return how many bytes the child may populate: 64 MiB, or an eighth of the free.

    What is free is the least of the machine's and of our own control group's memory.
    """
    free = [_MOST * _PART]
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":") for line in file)
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/cgroup") as file:
            groups = [line[3:].strip() for line in file if line.startswith("0::")]
        for path in (*(f"/sys/fs/cgroup{group}" for group in groups), "/sys/fs/cgroup"):
            with contextlib.suppress(OSError, ValueError):
                free.append(
                    _number(f"{path}/memory.max") - _number(f"{path}/memory.current")
                )
    return max(0, min(free)) // _PART // _PAGE * _PAGE


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())  # ValueError: "max"


# ---- the child ----------------------------------------------------------------------


def measure(size: int) -> float:
    """Return the seconds that a first write to random pages of `size` bytes costs.

    Processor time of this process, user and system; the mean of two stretches, each
    beside the same writes without protection, before and after.
    """
    import random
    from statistics import fmean

    from pagescan.writewatch import WriteWatch

    offsets = list(range(0, size, _PAGE))
    random.Random(1).shuffle(offsets)  # noqa: S311 - an order, not a secret
    costs = []
    with WriteWatch(size) as watch, watch.buffer as view:
        for offset in range(0, size, _PAGE):
            view[offset] = 1
        for stretch in range(_STRETCHES):
            pages = offsets[stretch::_STRETCHES][:_WRITES]
            before = _write(view, pages)
            watch.reset()
            protected = _write(view, pages)
            plain = (before + _write(view, pages)) / 2
            costs.append((protected - plain) / len(pages))
    return fmean(costs)


def _write(view: memoryview, pages: Sequence[int]) -> float:
    """Write a part of each page, and work a while after it, as a program does."""
    body, other = bytes(800), {}
    begun = time.process_time()
    for offset in pages:
        view[offset : offset + 800] = body
        for step in range(4):
            other[(offset + step) & 1023] = f"{offset * step:x}".partition("3")
    return time.process_time() - begun


def main() -> None:
    """Run as the child."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # before anything of the user's goes
    sys.stdout.write(f"{measure(int(sys.argv[1]))}\n")


if __name__ == "__main__":
    main()
