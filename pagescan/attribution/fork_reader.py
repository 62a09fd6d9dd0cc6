"""The process that reads the events of a target's forks, for `cow --exact`.

While an event waits to be read, the fork waits, in a sleep that only a fatal signal
ends. It goes on when the last userfaultfd is closed. So these are held by a process of
its own, which can be ended at any time:

- a kernel timer kills it half a second after it last asked for events, also while it
  is stopped or frozen;
- it has a session of its own, and ignores the signals of a terminal;
- one thread does nothing but read events, and the memory before them; arming and
  disarming are done by another one. Neither writes to a terminal or to a disk;
- some descriptors are kept in reserve. When they are needed, it ends.
"""

import contextlib
import functools
import glob
import json
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from pagescan import native
from pagescan.model.errors import PagescanError, from_oserror
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Kind
from pagescan.native import Pace
from pagescan.scanner.rules import protection_scan
from pagescan.scanner.scanner import Scanner
from pagescan.target import maps
from pagescan.target.process import Target, read_stat, time_offset
from pagescan.target.selection import Selection
from pagescan.tracking import attach
from pagescan.tracking.arm import Armed, Armer

SILENT_SECONDS = 0.5
"""How long the process may go without a question for events."""
_LARGEST_SCANNED = 16 << 30
"""Bytes of armed memory: reading the bits of more may take longer than a fork may wait.

It takes 8 to 13 ms per GiB (Linux 6.18).
"""
_MOST_UNSENT = 64 << 20
"""Bytes that wait for pagescan; with more it does not read them any more: the end."""
_RESERVE = 16
_ROUND_MS = 100
_PRIVATE = (Kind.ANON, Kind.PRIVATE_FILE)


class Side:
    """A process whose forks are read.

    Attributes:
        number: Its number in messages; 0 is the target.
        uffd: Its userfaultfd.
        target: None: its pid is not known yet.
        mappings: The armed memory; None: it is not armed yet.
    """

    def __init__(
        self, number: int, uffd: int, target: Target | None, mappings: MappingSet | None
    ) -> None:
        """Take over the descriptors."""
        self.number, self.uffd = number, uffd
        self.target, self.mappings = target, mappings

    def written(self) -> native.Columns | None:
        """Return what it has written since the last call, and protect it again.

        None: that is not known: it is not armed, has ended, or is too large.
        """
        if self.target is None or self.mappings is None:
            return None
        if sum(mapping.length for mapping in self.mappings) > _LARGEST_SCANNED:
            return None
        spans, rules = protection_scan(self.mappings)
        try:
            return Scanner(self.target, Pace(pause_ns=0)).scan_ranges(spans, rules)
        except PagescanError:
            return None

    def close(self) -> None:
        """Close its descriptors."""
        os.close(self.uffd)
        if self.target is not None:
            self.target.close()


class Reader:
    """Reads events until the other end of its socket is closed, or asks for the end."""

    def __init__(self, target: Target, channel: socket.socket) -> None:
        """Attach to a target; from now on its forks wait for this process.

        Raises:
            PagescanError: It cannot be attached to.
        """
        self._channel = channel
        self._reserve = [
            os.open("/", os.O_PATH | os.O_CLOEXEC) for _ in range(_RESERVE)
        ]
        self._deadline = native.Deadline()
        self._target = target
        self._scanner = Scanner(target)
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        taken = attach.take(target, features=native.UFFD_FORKS)
        refuse_copies(target, begun)
        self._sides = {0: Side(0, taken.uffd, target, None)}
        self._armed = Armed(Selection())
        self._armer = Armer(self._scanner, taken.uffd, self._armed)
        self._numbers = 1
        self._unsent = bytearray()
        self._received = bytearray()
        self._worker: threading.Thread | None = None
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(taken.uffd, select.POLLIN)

    def serve(self) -> NoReturn:
        """Arm the target, and read events until the end."""
        self._deadline.put_off(SILENT_SECONDS)
        self._work(self._arm)
        while True:
            self._deadline.put_off(SILENT_SECONDS)
            ready = {fd for fd, _ in self._poll.poll(_ROUND_MS)}
            for side in [*self._sides.values()]:
                if side.uffd in ready:
                    self._forked(side)
            self._exchange(readable=self._channel.fileno() in ready)

    def _work(self, job: Callable[[], None], name: str = "arm") -> None:
        self._worker = threading.Thread(target=job, name=name, daemon=True)
        self._worker.start()

    def _arm(self) -> None:
        """Register and protect the private memory of the target."""
        side = self._sides[0]
        try:
            rows = maps.read(self._target)
            private = [
                row for row in rows if row.kind in _PRIVATE and row.perms[1] == "w"
            ]
            registered = self._armer.register(private, rows)
            self._armer.protect(registered)
        except PagescanError as error:
            self._send({"error": facts_of(error)})
            return
        side.mappings = MappingSet(registered, rows)
        cost = self._scanner.take_cost()
        self._send(
            {"ready": self._armed.tracked_bytes, "max_wait_ns": cost.max_wait_ns}
        )

    def _forked(self, side: Side) -> None:
        """Read an event; before that, what the process has written until now."""
        self._deadline.put_off(SILENT_SECONDS)  # several may have forked at once
        begun = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        written = side.written()
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        try:
            child = native.read_fork(side.uffd)
        except BlockingIOError:
            return
        except OSError:
            if not self._reserve:
                os._exit(1)  # it closes the userfaultfds: the fork goes on
            while self._reserve:
                os.close(self._reserve.pop())
            self._send({"full": True})
            self._end()
            return
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        number, self._numbers = self._numbers, self._numbers + 1
        self._sides[number] = Side(number, child, None, side.mappings)
        self._poll.register(child, select.POLLIN)
        held = now - begun
        head = {"side": side.number, "child": number, "held": held}
        head |= {"begun": begun, "time": before}
        self._send(head, written)

    def _send(
        self, head: dict[str, Any], regions: native.Columns | None = None
    ) -> None:
        """Queue a message: a line of JSON, and the columns of regions behind it."""
        rows = None if regions is None else len(regions.starts)
        message = json.dumps({**head, "rows": rows}).encode() + b"\n"
        if regions is not None:
            message += regions.starts.tobytes() + regions.ends.tobytes()
        self._unsent += message
        if len(self._unsent) > _MOST_UNSENT:
            self._end()

    def _exchange(self, *, readable: bool) -> None:
        try:
            while self._unsent:
                piece = bytes(self._unsent[: 1 << 16])  # a thread may add to the rest
                del self._unsent[: self._channel.send(piece)]
        except BlockingIOError:
            pass
        except OSError:
            self._end()
        if not readable:
            return
        try:
            piece = self._channel.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._poll.unregister(self._channel)
            self._end()
        self._received += piece
        while b"\n" in self._received:
            line, _, self._received = self._received.partition(b"\n")
            self._obey(json.loads(line))

    def _obey(self, request: dict[str, Any]) -> None:
        side = self._sides.get(request.get("side", -1))
        if request["op"] == "end":
            self._end()
        elif side is not None and request["op"] == "name":
            with contextlib.suppress(PagescanError):
                side.target = Target.open(request["pid"])
        elif side is not None and request["op"] == "close" and side.number:
            self._poll.unregister(side.uffd)
            del self._sides[side.number]
            side.close()

    def _end(self) -> None:
        """Let another thread disarm; events are read until it is done."""
        if self._worker is not None and self._worker.name == "end":
            return
        before = self._worker
        self._work(functools.partial(self._disarm, before), name="end")

    def _disarm(self, arming: threading.Thread | None) -> None:
        """Unregister the target and the children that live, in slices; then exit."""
        if arming is not None:
            arming.join()
        for side in [*self._sides.values()]:
            if side.target is None:
                continue
            with contextlib.suppress(PagescanError, OSError):
                scanner = Scanner(side.target)
                armer = Armer(scanner, side.uffd, Armed(Selection()))
                armer.disarm(maps.read(side.target))
        with contextlib.suppress(PagescanError, OSError):
            self._armed.huge.restore(self._scanner, maps.read(self._target))
        os._exit(0)  # the other thread polls the userfaultfds: only an exit closes them


def refuse_copies(target: Target, begun: float) -> None:
    """Check that no child has a copy of the userfaultfd, forked within the attach.

    It would keep the events alive after the end of this process: forks of the target
    would then wait for a reader that is gone.

    Args:
        target: The target.
        begun: When the attach began, in seconds since boot.

    Raises:
        PagescanError: A child has one.
    """
    oldest = int(begun * os.sysconf("SC_CLK_TCK")) - 1
    for task in glob.glob(f"/proc/{target.pid}/task/*/children"):
        with contextlib.suppress(OSError), open(task) as file:
            for pid in map(int, file.read().split()):
                if _is_copied(pid, oldest):
                    raise PagescanError(
                        f"{target} has forked {pid} within the attach, which has a copy"
                        " of the userfaultfd",
                        hint="try again",
                        pid=target.pid,
                    )


def _is_copied(pid: int, oldest: int) -> bool:
    """Whether a process that is not older has a userfaultfd."""
    if read_stat(pid).start_time + time_offset() < oldest:
        return False
    for link in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):  # it has been closed
            if os.readlink(link) == "anon_inode:[userfaultfd]":
                return True
    return False


def facts_of(error: PagescanError) -> dict[str, Any]:
    """Return an error in a form that JSON can hold; `fork_events` makes it again."""
    facts = {"pid": error.pid, "call": error.call, "errno": error.errno}
    return {
        "kind": type(error).__name__,
        "text": str(error),
        "hint": error.hint,
        **facts,
    }


def _hurry() -> None:
    """Run before ordinary threads: a fork waits, while other threads may write."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        return  # the caller has chosen another policy
    with contextlib.suppress(OSError):  # it needs CAP_SYS_NICE
        parameters = os.sched_param(os.sched_get_priority_min(os.SCHED_RR))
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, parameters)


def main() -> None:
    """Run the process: its arguments are a pid and the descriptor of a socket."""
    ignored = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
    for number in (*ignored, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    sys.setswitchinterval(0.0005)  # the thread that reads events must not wait
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channel = socket.socket(fileno=int(sys.argv[2]))
    try:
        target = Target.open(int(sys.argv[1]))
        try:
            reader = Reader(target, channel)
        except OSError as error:
            raise from_oserror(
                error, doing="read fork events", pid=target.pid, call="timer_create"
            ) from error
    except PagescanError as error:
        head = {"error": facts_of(error), "rows": None}
        channel.sendall(json.dumps(head).encode() + b"\n")
        return
    channel.setblocking(False)
    _hurry()
    reader.serve()


if __name__ == "__main__":
    main()
