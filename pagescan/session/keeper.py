"""The keeper: a small process that holds the userfaultfds of sessions.

`python -m pagescan.session.keeper PID FDS` is the process, of a group with its option,
as `--tree PID`, in place of PID; `spawn` starts it with one session.
A session of a group has one keeper for all members: it takes over the session of each
further member. It is in a process session of its own, serves one socket per session,
ends with its last target or on request, and leaves nothing behind. SIGTERM is a
request: it also puts back the huge pages that tracking has split.

The process stays small: of pagescan it imports native and little else, and it stores
the facts of the sessions as the JSON that it received.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
from typing import Any

from pagescan.session.held_session import HeldSession
from pagescan.session.household import Household

READY = b"ready"
FAILED = b"errno "


def end_on_sigterm(household: Household) -> None:
    """After the signal, end as if a client had requested it."""
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    household.selector.register(woken, selectors.EVENT_READ, household.disarm_all)


def _raise_limit() -> None:
    """Raise the limit of descriptors: a group needs six per member."""
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Run the keeper's process; the words before its descriptors are for ps(1)."""
    fds: dict[str, int] = json.loads(sys.argv[-1])
    facts: dict[str, Any] = json.load(sys.stdin)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _raise_limit()
    household = Household()
    try:
        first = HeldSession(fds, facts, household)
        end_on_sigterm(household)
    except OSError as error:
        os.write(fds["answer"], FAILED + str(error.errno).encode())
        return
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.close(silent)
    try:
        os.write(fds["answer"], READY)
    except BrokenPipeError:  # the command was killed before it could report a session
        first.disarm()  # first: without files nobody could tell whose protection it is
        first.close()
        return
    os.close(fds["answer"])
    household.serve()
    if household.split:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # one more ends this, too
        with contextlib.suppress(ImportError):  # another version is installed by now
            from pagescan.session.restoring import put_back

            put_back(household.split)


if __name__ == "__main__":
    main()
