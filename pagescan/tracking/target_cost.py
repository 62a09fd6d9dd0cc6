"""Estimates what share of a target's processor time tracking has cost it.

The estimate is the number of first writes to protected pages, times the cost of one
(`fault_cost`), divided by the processor time that the target used; all since the
previous look. The target's own figures bound both factors: its page faults, its growth,
its time in the kernel.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from pagescan.model.memory import PAGE_SIZE
from pagescan.target.process import read_status
from pagescan.tracking.fault_cost import USUAL, FaultCost, Trial

_TICKS = os.sysconf("SC_CLK_TCK")
_FLUSH = 5e-6  # seconds that other running threads lose when a call changes protections
_WORTH_A_TRIAL = 0.005  # of the target's time; below it the usual figure is good enough
_KEPT = 0.9  # weight of earlier looks, at each look
_ENOUGH_FAULTS = 100_000
# Times the time in the kernel: limit of a fault's cost with its aftermath. Programs
# whose time in the kernel is all faults lost 0.8 to 1.0 times that time when measured.
_WHOLE = 1.2
_POPULATED = ("VmRSS", "VmSwap", "HugetlbPages")
_LEAST = 0.5  # of the measured cost: the bound reduces it no further


class Usage(NamedTuple):
    """The totals of a process, over all its threads.

    Attributes:
        processor: Seconds, user and system, to the nanosecond.
        system: Seconds in the kernel, to the clock tick.
        faults: Minor page faults.
        resident: Its resident pages.
    """

    processor: float
    system: float
    faults: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Read the totals; None: the process has ended, or is hidden."""
        try:
            # A process's clock is the complement of its pid; CPUCLOCK_SCHED is 2.
            processor = time.clock_gettime((~pid << 3) | 2)
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            return None
        ticks = int(fields[12])
        return cls(processor, ticks / _TICKS, int(fields[7]), int(fields[21]))

    def since(self, before: Self) -> "Usage":
        """Return the differences to earlier totals."""
        return Usage(
            self.processor - before.processor,
            self.system - before.system,
            self.faults - before.faults,
            self.resident - before.resident,
        )


def populated_pages(pid: int) -> int:
    """Return how many pages of a process are present or swapped; 0: it has ended."""
    try:
        status = read_status(pid)
    except OSError:
        return 0
    sizes = (status.get(name, "0 kB") for name in _POPULATED)
    return sum(int(size.split()[0]) for size in sizes) * 1024 // PAGE_SIZE


def usual_use(pid: int, started: int) -> float:
    """Return how many processors a process has used, on average since its start.

    Args:
        pid: The process.
        started: When it started, in clock ticks since boot.
    """
    usage = Usage.of(pid)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started / _TICKS
    return usage.processor / max(age, 1 / _TICKS) if usage else 1.0


class TargetCost:
    """The cost of tracking one target, look by look.

    Attributes:
        pid: The target.
        used: Seconds of processor time that it used in all looks.
        spent: The estimated part of it that tracking cost.
        last: Seconds that it lost between the last two looks.
        last_used: Seconds that it used between them.
        fault: The cost of one first write, as far as known.
        sample_seconds: What a sample of each page fault costs more; 0: none is taken.
    """

    def __init__(self, fault: FaultCost | None = None) -> None:
        """Take a known cost of a write; None: it is measured once it matters."""
        self.pid = 0
        self.used = self.spent = self.sample_seconds = 0.0
        self.last = self.last_used = 0.0
        self.fault = fault or FaultCost(USUAL, "it matters too little")
        self.on_measured: Callable[[FaultCost], None] = lambda _: None
        self._measured = fault is not None
        self._trial: Trial | None = None
        self._before: Usage | None = None
        self._system = self._faults = 0.0  # recent values; see `fault_seconds`

    def begin(self, pid: int) -> None:
        """Count from now on; called again after the target's exec."""
        self.pid = pid
        self._before = Usage.of(pid)

    @property
    def settled(self) -> bool:
        """Whether the figure is final: no trial is running."""
        return self._trial is None

    @property
    def share(self) -> float | None:
        """The share over all looks; None: no processor time was used."""
        return min(1.0, self.spent / self.used) if self.used > 0 else None

    @property
    def fault_seconds(self) -> float:
        """Return the cost of one fault, bounded by the target's time in the kernel.

        The faults took no longer than all that time. The cost after them, in user mode,
        is at most a fifth of it if that time is all faults.
        """
        cost = self.fault.seconds
        if self._faults < _ENOUGH_FAULTS:
            return cost
        most = _WHOLE * self._system / self._faults
        return max(cost * _LEAST, min(cost, most))

    @property
    def write_seconds(self) -> float:
        """Return the cost of one first write, with its sample."""
        return self.fault_seconds + self.sample_seconds

    def look(
        self, written: int, new: int = 0, *, grows: bool = True, calls: int = 0
    ) -> float | None:
        """Count the writes since the last call; return their share of the time.

        Args:
            written: Written pages, including new ones.
            new: Those that were never protected.
            grows: Whether the written pages include all growth of the target.
            calls: Calls since then that changed protections.

        Returns:
            0 to 1; None: unknown, because it used no processor time, or is gone.
        """
        now = Usage.of(self.pid)
        before, self._before = self._before, now
        if now is None or before is None:
            return None
        used = now.since(before)
        if used.processor <= 0:
            return None
        # Newly populated pages had no protection: their fault is their own.
        grown = max(new, used.resident if grows else 0)
        first = max(0, min(written - grown, used.faults))
        self._system = self._system * _KEPT + used.system
        self._faults = self._faults * _KEPT + used.faults
        self._measure(first / used.processor)
        spent = first * self.fault_seconds + calls * _FLUSH
        spent += used.faults * self.sample_seconds
        self.used += used.processor
        self.last_used = used.processor
        self.last = min(spent, used.processor)
        self.spent += self.last
        return self.last / used.processor

    def _measure(self, rate: float) -> None:
        """Start the trial once it matters; take its result at a later look."""
        if self._measured:
            return
        if self._trial is None:
            if rate * self.fault.seconds >= _WORTH_A_TRIAL:
                self._trial = Trial()
            return
        result = self._trial.poll()
        if result is not None:
            self.fault, self._measured = result, True
            self.close()
            self.on_measured(result)

    def close(self) -> None:
        """End a running trial."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
