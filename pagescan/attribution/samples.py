"""Takes a sample of every page fault of processes: perf events, rings, a drain thread.

Nothing in the target is stopped or armed. A sample costs the target about half a
microsecond per fault. Every thread that exists needs its own event per processor; one
ring per processor takes the samples of all.
"""

from __future__ import annotations  # array[int] is no type at run time before 3.12

import contextlib
import errno
import mmap
import os
import resource
import threading
import time
from collections import deque
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Self

from pagescan import native
from pagescan.model.errors import (
    AccessDeniedError,
    KernelUnsupportedError,
    NoSuchTargetError,
    PagescanError,
    from_oserror,
)
from pagescan.model.memory import PAGE_SIZE
from pagescan.target.proc_files import if_it_lives

if TYPE_CHECKING:
    from pagescan.attribution.python_frames import PythonFrames

RING_BYTES = 4 << 20
"""Bytes per processor: 100,000 samples, or 0.1 s of the fastest writers."""
STACK_RING_BYTES, _STACK_RINGS = 32 << 20, 256 << 20
"""With stacks: 15,000 samples; and the most for all processors together."""
_LEAST_RING = 64 << 10
DRAIN_SECONDS = 0.004
_ROOM, _ROOM_OF_STACKS = 1 << 16, 1 << 12
_PASSES = 50


class FaultSampler:
    """The page faults of some processes. A context manager.

    Attributes:
        user_only: Faults of the kernel, as in read(2), are not sampled.
        ring_bytes: Bytes of the ring of each processor: halved until the kernel agreed.
        lost: Samples that the rings had no room for, so far.
        chains: The number of each chain of callers that was seen, from 1.
    """

    def __init__(
        self,
        pids: list[int],
        *,
        children: bool,
        ring_bytes: int | None = None,
        period: int = 1,
        user_only: bool = False,
        callers: bool = False,
        python: PythonFrames | None = None,
    ) -> None:
        """Begin to take samples.

        Args:
            pids: The processes.
            children: Include the children that they fork from now on.
            ring_bytes: Bytes per processor, a power of two; None: chosen.
            period: Faults per sample.
            user_only: Leave out faults of the kernel, as in read(2).
            callers: Take chains of frame pointers; `chains` numbers them.
            python: Takes the top of the stack of each sample; it stays the caller's.

        Raises:
            PagescanError: The kernel does not allow it, or has too few descriptors.
        """
        self._children, self._callers, self._python = children, callers, python
        self._cpus = sorted(os.sched_getaffinity(0) | set(_online()))
        self._fds: list[int] = []
        self._leaders: dict[int, int] = {}
        self._rings: list[mmap.mmap] = []
        self._threads: dict[int, set[int]] = {}
        self._events: dict[int, list[int]] = {}
        self._lost_before = self.lost = 0
        self._batches: deque[native.Faults] = deque()
        self._lock = threading.Lock()
        self.chains: dict[bytes, int] = {}
        self._buffer = _columns(callers=callers, stacks=bool(python))
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self.user_only, self._period = user_only, period
        self._counts_lost = True  # the kernel counts what its rings lose: 6.0
        self.ring_bytes = ring_bytes or _ring_bytes(self._cpus, stacks=bool(python))
        _raise_limit()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            for pid in pids:
                self.add(pid)
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
            undo.pop_all()

    def add(self, pid: int) -> None:
        """Take samples of the threads of one more process; twice is as good as once.

        The list of threads is read until it has no new thread: one that begins during a
        reading is in the next list, or inherits the events of the thread that made it.

        Raises:
            PagescanError: As for the class; NoSuchTargetError: the process has ended.
        """
        known = self._threads.setdefault(pid, set())
        try:
            found = self._add_threads(pid, known)
        except BaseException:
            self.remove(pid)
            raise
        if not found and pid not in known:
            del self._threads[pid]
            raise NoSuchTargetError(f"process {pid} has ended", pid=pid)

    def _add_threads(self, pid: int, known: set[int]) -> bool:
        """Open events of all threads that are not known; return whether any opened."""
        found = False
        for _ in range(_PASSES):
            tids: set[int] = set()
            with if_it_lives(pid, doing=f"list the threads of {pid}", call="open"):
                tids = {int(tid) for tid in os.listdir(f"/proc/{pid}/task")}
            new = tids - known
            if not new:
                break
            for tid in sorted(new):
                found |= self._open_thread(pid, tid)
            known |= new
        return found

    def remove(self, pid: int) -> None:
        """Take no more samples of a process, which may have ended.

        The events that own a ring stay open: the others write to it.
        """
        self._threads.pop(pid, None)
        owners = set(self._leaders.values())
        for fd in self._events.pop(pid, []):
            if fd in owners:
                native.stop_faults(fd)
                continue
            if self._counts_lost:
                self._lost_before += native.lost_samples(fd)
            self._fds.remove(fd)
            os.close(fd)

    def _open_thread(self, pid: int, tid: int) -> bool:
        for cpu in self._cpus:
            try:
                fd = self._open(tid, cpu)
            except OSError as error:
                if error.errno in (errno.ESRCH, errno.ENODEV):  # ended; CPU is off
                    continue
                raise _explained(error, pid) from error
            self._fds.append(fd)
            self._events.setdefault(pid, []).append(fd)
            if cpu in self._leaders:
                native.share_ring(fd, self._leaders[cpu])
            else:
                self._rings.append(self._map(fd, pid))
                self._leaders[cpu] = fd
        return True

    def _open(self, tid: int, cpu: int) -> int:
        try:
            return native.open_faults(
                tid,
                cpu,
                children=self._children,
                user_only=self.user_only,
                period=self._period,
                counts_lost=self._counts_lost,
                callers=self._callers,
                stacks=self._python is not None,
            )
        except PermissionError:
            if self.user_only:
                raise
            self.user_only = True
        except OSError as error:
            if error.errno != errno.EINVAL or not self._counts_lost or self._fds:
                raise
            self._counts_lost = False
        return self._open(tid, cpu)

    def _map(self, fd: int, pid: int) -> mmap.mmap:
        while True:
            try:
                return mmap.mmap(fd, self.ring_bytes + PAGE_SIZE)
            except OSError as error:
                if error.errno != errno.EPERM or self.ring_bytes <= _LEAST_RING:
                    raise from_oserror(
                        error, doing="map a ring for samples", pid=pid, call="mmap"
                    ) from error
                self.ring_bytes //= 2  # perf_event_mlock_kb and RLIMIT_MEMLOCK

    def _run(self) -> None:
        while not self._end.wait(DRAIN_SECONDS):
            self._drain()

    def _drain(self) -> None:
        """Empty all rings into batches."""
        with self._lock:
            for ring in self._rings:
                more = True
                while more:
                    more = native.drain_faults(ring, self._buffer)
                    if more:
                        self._keep()
            self._keep()

    def _keep(self) -> None:
        if len(self._buffer) or self._buffer.tasks() or self._buffer.lost:
            self.lost += self._buffer.lost
            self._buffer.number_chains(self.chains)
            if self._python is not None:
                self._python.name(self._buffer)
            self._batches.append(self._buffer.copy())
            self._buffer.clear()

    def take(self) -> list[native.Faults]:
        """Return the batches of samples since the last call.

        They include all events before the call; a batch has no order.
        """
        self._drain()
        with self._lock:
            batches = [*self._batches]
            self._batches.clear()
        if self._counts_lost:  # the rings tell of a loss only with their next sample
            self.lost = self._lost_before + sum(map(native.lost_samples, self._fds))
        return batches

    @property
    def pids(self) -> set[int]:
        """The processes that were added, without the children that they have forked."""
        return {*self._threads}

    @property
    def descriptors(self) -> int:
        """How many events are open."""
        return len(self._fds)

    def close(self) -> None:
        """End the thread and the events; a second call has no effect."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
        for ring in self._rings:
            ring.close()
        self._rings.clear()
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _ring_bytes(cpus: list[int], *, stacks: bool) -> int:
    """Return the bytes of the ring of each processor."""
    size = STACK_RING_BYTES if stacks else RING_BYTES
    while size > RING_BYTES and size * len(cpus) > _STACK_RINGS:
        size //= 2
    return size


def _columns(*, callers: bool, stacks: bool) -> native.Faults:
    """Return columns for a drain of a ring."""
    room = _ROOM_OF_STACKS if stacks else _ROOM
    return native.Faults(room, callers=callers, stacks=stacks)


def clock_ns() -> int:
    """Return the time on the clock of the samples."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@cache
def _offset_ns() -> int:
    """Return how far the time of day is ahead of the clock of the samples."""
    return time.time_ns() - clock_ns()


def to_time(clock: int) -> datetime:
    """Return a moment on the clock of the samples as a time."""
    return datetime.fromtimestamp((clock + _offset_ns()) / 1e9, UTC)


def _online() -> list[int]:
    """Return the numbers of the processors that are on; source: sysfs."""
    cpus: list[int] = []
    with contextlib.suppress(OSError), open("/sys/devices/system/cpu/online") as file:
        for part in file.read().strip().split(","):
            first, _, last = part.partition("-")
            cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def _raise_limit() -> None:
    """Allow as many descriptors as this process may have: one per thread and CPU."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _explained(error: OSError, pid: int) -> PagescanError:
    """Return the error for an event that cannot be opened, with a remedy."""
    code = error.errno
    if code in (errno.EACCES, errno.EPERM):
        return AccessDeniedError(
            f"cannot sample the page faults of {pid}: perf_event_paranoid is"
            f" {paranoid_level()}, or the process belongs to another user",
            hint="run as root, or: sysctl kernel.perf_event_paranoid=2",
            pid=pid,
            call="perf_event_open",
            errno=code,
        )
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
        return KernelUnsupportedError(
            f"cannot sample the page faults of {pid}:"
            " this kernel has no software events of perf that are inherited",
            hint="pagescan doctor shows what this kernel can do",
            pid=pid,
            call="perf_event_open",
            errno=code,
        )
    return from_oserror(
        error,
        doing=f"sample the page faults of {pid}",
        pid=pid,
        call="perf_event_open",
    )


def paranoid_level() -> str:
    """Return kernel.perf_event_paranoid as text; "unknown" if it cannot be read."""
    try:
        with open("/proc/sys/kernel/perf_event_paranoid") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
