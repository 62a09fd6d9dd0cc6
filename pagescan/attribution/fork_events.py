"""Starts the reader of fork events, and receives what it has read: fork_reader.py."""

import contextlib
import json
import os
import select
import socket
import sys
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pagescan import native
from pagescan.attribution.samples import clock_ns
from pagescan.model import errors
from pagescan.model.errors import PagescanError, from_oserror
from pagescan.target import wp_async

if TYPE_CHECKING:
    import subprocess

_START_SECONDS = 300.0
_END_SECONDS = 10.0
_END_SECONDS_PER_BYTE = 2e-9
"""To unregister, and to put huge pages back, takes 0.4 s per GiB (Linux 6.18)."""
_WAIT_NS = 50_000_000
_OLDEST_NS = 1_000_000_000
_FORGOTTEN_NS = 60_000_000_000


class ForkEvent(NamedTuple):
    """A fork that has waited for the reader, and what was written before it.

    Attributes:
        side: The number of the process that forked; 0 is the target.
        child: The number of its child.
        begun: When the reader began: the memory had been forked before, and other
            threads of the process have run since.
        time: Right before the fork went on, on the clock of the samples.
        held_ns: How long the reader had taken for it.
        written: What the process had written since its last fork, or since arming;
            None: not known.
    """

    side: int
    child: int
    begun: int
    time: int
    held_ns: int
    written: native.Columns | None


class ForkEvents:
    """The events of a target's forks. A context manager.

    Attributes:
        tracked_bytes: The memory that was armed.
        longest_ns: The longest time that the reader has taken for a fork.
    """

    def __init__(self, pid: int) -> None:
        """Start the reader; return when the target is armed.

        Raises:
            PagescanError: This user may not have fork events, or the target cannot be
                attached to.
        """
        wp_async.check_fork_events()
        self._events: list[ForkEvent] = []
        self._received = b""
        self._rows: tuple[dict[str, Any], int] | None = None
        self._full = False
        self._lost: str | None = None
        self.tracked_bytes: int | None = None
        self.longest_ns = 0
        with contextlib.ExitStack() as undo:
            try:
                self._channel, theirs = socket.socketpair()
                undo.callback(self.close)
                with theirs:
                    self._process = _start(pid, theirs)
            except OSError as error:
                raise from_oserror(
                    error, doing="start the reader of forks", call="fork"
                ) from error
            self._wait_until_armed(pid)
            undo.pop_all()

    def _wait_until_armed(self, pid: int) -> None:
        until = clock_ns() + round(_START_SECONDS * 1e9)
        while self.tracked_bytes is None:
            self._receive(1.0)
            if self.lost is not None or clock_ns() > until:
                raise PagescanError(
                    f"the reader of forks did not start: {self.lost or 'too late'}",
                    pid=pid,
                )

    @property
    def lost(self) -> str | None:
        """Why no events come any more; None: they come."""
        return self._lost

    @property
    def reader_pid(self) -> int:
        """The pid of the process that reads the events."""
        return self._process.pid

    def take(self) -> list[ForkEvent]:
        """Return the events that have come and were not asked for by `of`."""
        while self._receive(0):
            pass
        return self._events

    def of(self, side: int, time: int) -> ForkEvent | None:
        """Return and remove the event of a fork; None: no event has come in time.

        Args:
            side: The number of the process that forked.
            time: When its child began, by perf's record.
        """
        until = clock_ns() + _WAIT_NS
        while True:
            for event in self.take():
                if event.side == side and time - _OLDEST_NS < event.time < time:
                    self._events.remove(event)
                    return event
            left = until - clock_ns()
            if left <= 0 or self.lost is not None:
                return None
            self._receive(left / 1e9)

    def drop_old(self) -> None:
        """Forget the events that no fork has asked for: the fork had failed."""
        oldest = clock_ns() - _FORGOTTEN_NS
        for event in [*self.take()]:
            if event.time < oldest:
                self._events.remove(event)
                self.forget(event.child)

    def name(self, side: int, pid: int) -> None:
        """Tell the reader the pid of a side, so that it can look at its forks."""
        self._ask({"op": "name", "side": side, "pid": pid})

    def forget(self, side: int) -> None:
        """Tell the reader that a child has ended: a userfaultfd does not tell that."""
        self._ask({"op": "close", "side": side})

    def _ask(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(request).encode() + b"\n")

    def _receive(self, seconds: float) -> bool:
        """Receive for at most that long; return whether something came."""
        if (
            self.lost is not None
            or not select.select([self._channel], [], [], seconds)[0]
        ):
            return False
        try:
            piece = self._channel.recv(1 << 20)
        except OSError:
            piece = b""
        if not piece:
            self._lost = self._how_it_ended()
            return False
        self._received += piece
        while self._take_message():
            pass
        return True

    def _how_it_ended(self) -> str:
        import subprocess

        if self._full:
            return "no descriptor was left for one more child"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        code = self._process.returncode
        return f"it was ended by signal {-code}" if code and code < 0 else "it ended"

    def _take_message(self) -> bool:
        """Take one whole message, if there is one."""
        line, end, rest = self._received.partition(b"\n")
        if not end:
            return False
        head = json.loads(line)
        rows, columns = head["rows"], None
        if rows is not None:
            if len(rest) < 16 * rows:
                return False
            columns = native.Columns(*(array("Q") for _ in range(3)))
            columns.starts.frombytes(rest[: 8 * rows])
            columns.ends.frombytes(rest[8 * rows : 16 * rows])
            columns.categories.frombytes(bytes(8 * rows))
            rest = rest[16 * rows :]
        self._received = rest
        if "error" in head:
            raise _made_again(head["error"])
        if "ready" in head:
            self.tracked_bytes = head["ready"]
        elif "full" in head:
            self._full = True
        else:
            side, child, held = head["side"], head["child"], head["held"]
            event = ForkEvent(side, child, head["begun"], head["time"], held, columns)
            self.longest_ns = max(self.longest_ns, event.held_ns)
            self._events.append(event)
        return True

    def close(self) -> None:
        """Let the reader disarm and end; a second call has no effect.

        The reader has time for that by its memory: a kill would let the kernel do it in
        one step, in which the target waits.
        """
        import subprocess

        process = getattr(self, "_process", None)
        if self._channel.fileno() < 0:
            return
        self._ask({"op": "end"})
        self._channel.close()
        if process is not None:
            size = self.tracked_bytes or 0
            try:
                process.wait(_END_SECONDS + _END_SECONDS_PER_BYTE * size)
            except subprocess.TimeoutExpired:
                process.kill()  # the kernel disarms
                process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _start(pid: int, theirs: socket.socket) -> "subprocess.Popen[bytes]":
    import subprocess

    import _cffi_backend

    package = os.path.abspath(__file__ + 3 * "/..")
    needed = os.path.dirname(os.path.abspath(_cffi_backend.__file__))
    module = "pagescan.attribution.fork_reader"
    return subprocess.Popen(
        [sys.executable, "-P", "-s", "-m", module, str(pid), str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
        cwd="/",
        env={
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([package, needed])),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def _made_again(facts: dict[str, Any]) -> PagescanError:
    kind = getattr(errors, facts["kind"], PagescanError)
    error: PagescanError = kind(
        facts["text"],
        hint=facts["hint"],
        pid=facts["pid"],
        call=facts["call"],
        errno=facts["errno"],
    )
    return error
