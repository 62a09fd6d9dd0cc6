"""Page-fault samples of perf: events, and rings that are emptied into columns."""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import mmap
import struct
from array import array
from itertools import compress
from typing import Any, NamedTuple

from pagescan.native.door import check, ffi, lib, u64

_CHILDREN, _USER, _LOST, _CALLERS, _STACK = 1, 2, 4, 8, 16  # PS_FAULTS_*
_COLUMNS = ("threads", "times", "ips", "addresses", "origins")
_CHAIN = 16  # PS_CHAIN
STACK_ROW = 265
"""Words per sampled stack: PS_STACK_ROW."""
_TASK_ROW = 6
_TASKS = 4096
FORK, EXIT, EXEC = 7, 4, 3
"""The types of a `Task`; source: PERF_RECORD_* in perf_event_open(2)."""
NAMED = 259
"""The type of a `Task` that tells a thread's new name; PS_TASK_NAMED."""


class Task(NamedTuple):
    """A thread or process that began, ended, or ran another program."""

    kind: int
    time: int
    """CLOCK_MONOTONIC, in nanoseconds."""
    pid: int
    parent: int
    tid: int
    maker: int
    """The thread that made it."""

    @property
    def name(self) -> str:
        """The new name, of a thread or a program; only of the types NAMED and EXEC."""
        raw = struct.pack("=QQ", self.parent, self.maker)
        return raw.partition(b"\0")[0].decode(errors="replace")


class Faults:
    """Columns of samples, to which rings are emptied.

    Attributes:
        threads: pid << 32 | tid.
        times: CLOCK_MONOTONIC, in nanoseconds.
        ips: Addresses of code.
        addresses: Addresses that were accessed.
        origins: Numbers of their chains of callers; 0: none.
        lost: Samples that the ring had no room for.
    """

    def __init__(
        self, capacity: int, *, callers: bool = False, stacks: bool = False
    ) -> None:
        """Make room for samples; `callers`, `stacks`: also for chains, or stacks."""
        zero = bytes(8 * capacity)
        self.threads, self.times, self.ips, self.addresses, self.origins = (
            array("Q", zero) for _ in _COLUMNS
        )
        self._chains = array("Q", bytes(8 * _CHAIN * capacity if callers else 0))
        self.stacks = array("Q", bytes(8 * STACK_ROW * capacity if stacks else 0))
        self._tasks = array("Q", bytes(8 * _TASK_ROW * _TASKS))
        self.c = ffi.new("struct ps_faults *")
        self._point(capacity)

    def _point(self, capacity: int) -> None:
        c = self.c
        c.thread, c.time = u64(self.threads), u64(self.times)
        c.ip, c.address = u64(self.ips), u64(self.addresses)
        c.origin = u64(self.origins)
        c.chain = u64(self._chains) if self._chains else ffi.NULL
        c.stack = u64(self.stacks) if self.stacks else ffi.NULL
        c.capacity, c.task_capacity = capacity, _TASKS
        c.tasks = u64(self._tasks)

    @classmethod
    def at(cls, pid: int, time: int, addresses: array[int]) -> Faults:
        """Return samples of one moment, without code and thread."""
        length = len(addresses)
        new = cls(0)
        new.addresses = addresses
        new.threads, new.times = (
            array("Q", [pid << 32]) * length,
            array("Q", [time]) * length,
        )
        new.ips, new.origins = (
            array("Q", bytes(8 * length)),
            array("Q", bytes(8 * length)),
        )
        new._point(length)
        new.c.length = length
        return new

    def number_chains(self, numbers: dict[bytes, int]) -> None:
        """Set the origins: the number of each chain, to which new chains are added."""
        size = 8 * _CHAIN
        raw = memoryview(self._chains).cast("B")
        for at in range(len(self) if self._chains else 0):
            chain = bytes(raw[at * size : (at + 1) * size])
            self.origins[at] = numbers.setdefault(chain, len(numbers) + 1)

    def __len__(self) -> int:
        return int(self.c.length)

    @property
    def lost(self) -> int:
        """Samples that the rings had no room for."""
        return int(self.c.lost)

    def tasks(self) -> list[Task]:
        """Return the threads and processes that began or ended, ring by ring."""
        count = self.c.task_length
        rows = [self._tasks[at : at + 6] for at in range(0, 6 * count, 6)]
        return [Task(*row) for row in rows]

    def copy(self) -> Faults:
        """Return a copy with room for nothing more."""
        length, tasks = len(self), self.c.task_length
        new = Faults(0)
        for name in _COLUMNS:
            setattr(new, name, getattr(self, name)[:length])
        new._tasks = self._tasks[: _TASK_ROW * tasks]
        new._point(length)
        new.c.length, new.c.task_length, new.c.lost = length, tasks, self.c.lost
        return new

    def extend(self, others: Faults) -> None:
        """Append the samples of other columns; their tasks are left out."""
        length, more = len(self), len(others)
        for name in _COLUMNS:
            column = getattr(self, name)
            del column[length:]
            column.extend(getattr(others, name)[:more])
        self._point(length + more)
        self.c.length = length + more

    def take_of(self, pid: int) -> Faults:
        """Return the samples of one process, and remove them here."""
        new = Faults(len(self))
        check(lib.ps_faults_move(self.c, pid, new.c))
        return new

    def drop_before(self, time: int) -> None:
        """Forget the samples before a moment."""
        mask = bytes(moment >= time for moment in self.times[: len(self)])
        for name in _COLUMNS:
            setattr(self, name, array("Q", compress(getattr(self, name), mask)))
        self._point(len(self.times))
        self.c.length = len(self.times)

    def clear(self) -> None:
        """Forget all samples; the room stays."""
        self.c.length = self.c.task_length = self.c.lost = 0


def open_faults(
    tid: int,
    cpu: int,
    *,
    children: bool,
    user_only: bool,
    period: int = 1,
    counts_lost: bool = True,
    callers: bool = False,
    stacks: bool = False,
) -> int:
    """Open the page-fault events of a thread on a processor; return the descriptor.

    Threads that it makes later are included.

    Args:
        tid: The thread.
        cpu: The processor.
        children: Include the processes that it forks.
        user_only: Leave out faults of the kernel, as in read(2).
        period: Faults per sample.
        counts_lost: Let `lost_samples` work; Linux 6.0.
        callers: Take the chain of frame pointers, too.
        stacks: Take registers and the top of the stack, too.

    Raises:
        OSError: ESRCH, the thread has ended; EACCES, perf_event_paranoid forbids it;
            EMFILE.
    """
    flags = _CHILDREN * children | _USER * user_only | _LOST * counts_lost
    flags |= _CALLERS * callers | _STACK * stacks
    return check(lib.ps_faults_open(tid, cpu, flags, period))


def share_ring(fd: int, ring: int) -> None:
    """Let the samples of an event go to the ring of another one of the processor."""
    check(lib.ps_faults_share(fd, ring))


def stop_faults(fd: int) -> None:
    """Let an event take no more samples; its ring stays."""
    check(lib.ps_faults_stop(fd))


def lost_samples(fd: int) -> int:
    """Return how many samples of an event the ring had no room for.

    Raises:
        OSError: The event cannot be read.
    """
    return check(lib.ps_faults_lost(fd))


def drain_faults(ring: mmap.mmap, out: Faults) -> bool:
    """Append the samples of a ring to columns; return whether these were too short."""
    memory: Any = ffi.from_buffer(ring)
    return bool(check(lib.ps_faults_drain(memory, len(ring) - mmap.PAGESIZE, out.c)))


def same_memory(pid: int, other: int) -> bool:
    """Whether two processes have one address space, as after vfork(2).

    Raises:
        OSError: ESRCH, one has ended; EPERM; ENOSYS.
    """
    return bool(check(lib.ps_same_memory(pid, other)))
