"""Estimates which part of a target's processor time tracking has cost it.

That is the first writes to protected pages, times what one costs (`fault_cost`), beside
the processor time that the target used; all since the look before. What the target
itself shows bounds both factors: its page faults, its growth, its time in the kernel.
"""

import os
import time
from collections.abc import Callable
from typing import NamedTuple, Self

from pagescan.tracking.fault_cost import USUAL, FaultCost, Trial

_TICKS = os.sysconf("SC_CLK_TCK")
_FLUSH = 5e-6  # seconds: what a call that changes protections costs who runs meanwhile
_WORTH_A_TRIAL = 0.005  # of the target's time; below it the usual figure will do
_KEPT = 0.9  # of what the looks before showed, at each look
_ENOUGH_FAULTS = 100_000
# Times the time in the kernel: what a fault costs with what comes after. Programs that
# do nothing there but fault have little of that: 0.8 to 1.0 was measured.
_WHOLE = 1.2
_LEAST = 0.5  # of the measured cost: no more is taken off


class Usage(NamedTuple):
    """What a process has used so far, all its threads together.

    Attributes:
        processor: Seconds, user and system, to the nanosecond.
        system: Seconds in the kernel, to the clock tick.
        faults: Minor page faults.
        resident: Pages that it has now.
    """

    processor: float
    system: float
    faults: int
    resident: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Read it; None: the process has ended, or hides."""
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
        """Return the differences."""
        return Usage(
            self.processor - before.processor,
            self.system - before.system,
            self.faults - before.faults,
            self.resident - before.resident,
        )


class TargetCost:
    """What tracking costs one target, look by look.

    Attributes:
        pid: The target.
        used: Seconds of processor time that it used in all looks.
        spent: Seconds of them that tracking cost it, estimated.
        last: Seconds that it lost since the look before the last one.
        fault: What one first write costs, as far as is known.
    """

    def __init__(self, fault: FaultCost | None = None) -> None:
        """Take a figure that is known; None: it is measured once it matters."""
        self.pid = 0
        self.used = self.spent = self.last = 0.0
        self.fault = fault or FaultCost(USUAL, "it matters too little")
        self.on_measured: Callable[[FaultCost], None] = lambda _: None
        self._measured = fault is not None
        self._trial: Trial | None = None
        self._before: Usage | None = None
        self._system = self._faults = 0.0  # recent ones; see `fault_seconds`

    def begin(self, pid: int) -> None:
        """Count from now; again after the target's exec."""
        self.pid = pid
        self._before = Usage.of(pid)

    @property
    def settled(self) -> bool:
        """Whether the figure stays as it is: no trial is at work."""
        return self._trial is None

    @property
    def share(self) -> float | None:
        """The part of all looks together; None: it used no processor time."""
        return min(1.0, self.spent / self.used) if self.used > 0 else None

    @property
    def fault_seconds(self) -> float:
        """What one fault costs, as the target's own time in the kernel bounds it.

        Its faults took no longer than all its time there, and what comes after them,
        in user mode, is a fifth of that where there is nothing else.
        """
        cost = self.fault.seconds
        if self._faults < _ENOUGH_FAULTS:
            return cost
        most = _WHOLE * self._system / self._faults
        return max(cost * _LEAST, min(cost, most))

    def look(
        self, written: int, new: int = 0, *, grows: bool = True, calls: int = 0
    ) -> float | None:
        """Count what was written since the last call; return its share of the time.

        Args:
            written: Pages, the new ones too.
            new: Those of them that were never protected.
            grows: Whether all growth of the target is among the pages written.
            calls: Made since, that changed protections.

        Returns:
            0 to 1; None where nothing is known: it used no processor time, or is gone.
        """
        now = Usage.of(self.pid)
        before, self._before = self._before, now
        if now is None or before is None:
            return None
        used = now.since(before)
        if used.processor <= 0:
            return None
        # What was populated since had no protection: its fault is its own.
        grown = max(new, used.resident if grows else 0)
        first = max(0, min(written - grown, used.faults))
        self._system = self._system * _KEPT + used.system
        self._faults = self._faults * _KEPT + used.faults
        self._measure(first / used.processor)
        spent = first * self.fault_seconds + calls * _FLUSH
        self.used += used.processor
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
        """End a trial that is at work."""
        if self._trial is not None:
            self._trial.close()
            self._trial = None
