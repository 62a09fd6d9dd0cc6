"""Measures in a child what a first write to a protected page costs the writer.

The measurement resembles a target: the pages are random ones of memory larger than the
caches, and code runs between two of them. The fault is only a part of the cost: after
it, caches, TLB and branch predictors are cold for the target's own code. A loop of
stores to warm pages in order would show half of the cost.

The child is a separate process, so that its memory and its peak do not count here.
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
_PART = 8  # the child takes an eighth of the free memory
_STRETCHES, _WRITES = 2, 8192  # each stretch is also larger than the L2 cache
_DEADLINE = 2.0  # seconds; it takes 0.2


class FaultCost(NamedTuple):
    """The cost of one first write.

    Attributes:
        seconds: Processor time, user and system, in excess of a plain write.
        why: Why it is the usual figure and was not measured; "": it was measured.
    """

    seconds: float
    why: str = ""

    def __str__(self) -> str:
        text = f"a first write to a page costs about {self.seconds * 1e6:.2f} µs"
        return f"{text} here" if not self.why else f"{text} (not measured: {self.why})"


class Trial:
    """The measuring child; `close` ends it if necessary."""

    def __init__(self) -> None:
        """Start the child."""
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
                process_group=0,  # Ctrl-C goes to the parent, which then ends it
            )
        except OSError as error:
            self._result = FaultCost(USUAL, str(error.strerror).lower())

    def poll(self) -> FaultCost | None:
        """Return the result; None: the child is still measuring."""
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
        """End the child; a second call has no effect."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def measured() -> FaultCost:
    """Measure, and return the result; it takes 0.2 s, and 2 s at the most."""
    trial = Trial()
    try:
        return trial.wait()
    finally:
        trial.close()


def _read(child: "subprocess.Popen[bytes]") -> FaultCost:
    """Return the result that the ended child printed."""
    text = child.stdout.read() if child.stdout is not None else b""
    if child.stdout is not None:
        child.stdout.close()
    with contextlib.suppress(ValueError):
        seconds = float(text)
        if 1e-8 < seconds < 1e-3:
            return FaultCost(seconds)
    return FaultCost(USUAL, "the trial failed")


def memory_to_use() -> int:
    """Return the bytes that the child may populate: 64 MiB or an eighth of the free.

    Free is the smaller of the machine's free memory and that of this control group.
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

    The cost is processor time of this process, user and system: the mean of two
    stretches, each compared with the same writes without protection, before and after.
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
    """Write to each page, and compute for a while after it, like a program."""
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
        # so that the kernel kills it before any process of the user's
        file.write("1000")
    sys.stdout.write(f"{measure(int(sys.argv[1]))}\n")


if __name__ == "__main__":
    main()
