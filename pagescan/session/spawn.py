"""Starts and ends a keeper, on the command's side."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from pagescan import native

if TYPE_CHECKING:
    from pagescan.model.errors import PagescanError
    from pagescan.model.results import Cost
    from pagescan.session.locks import Lock
    from pagescan.session.record import Session
from pagescan.session.files import DESCRIPTORS
from pagescan.session.held_session import CLIENTS
from pagescan.session.keeper import FAILED, READY

_END_TIMEOUT = 10.0
_A_MOMENT_MS = 50


def join(
    session: Session, lock: Lock, uffd: int, pidfd: int, pagemap: int, beside: Session
) -> Session:
    """Hand a session over to the keeper of another member of its group.

    The caller keeps its own copies of the descriptors, and closes them.

    Args:
        session: The session; its lock file gets its facts.
        lock: The lock on its target.
        uffd: Its userfaultfd.
        pidfd: That of its target.
        pagemap: That of its target.
        beside: A session of the same group.

    Raises:
        PagescanError: The keeper did not take it; the caller still has everything.
    """
    from pagescan.session.client import Client

    # If this process is killed before the keeper has it, it was never a session.
    lock.write(replace(session, keeper_pid=0))
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server,
        Client(beside) as client,
    ):
        _listen(server, lock)
        fds = {
            "server": server.fileno(),
            "lock": lock.fd,
            "directory": lock.directory,
            "uffd": uffd,
            "pidfd": pidfd,
            "pagemap": pagemap,
        }
        session.keeper_pid = client.adopt([fds[name] for name in DESCRIPTORS])
    return session


def start(session: Session, lock: Lock, uffd: int, pidfd: int, pagemap: int) -> Session:
    """Hand a session over to a new keeper; return when it has confirmed.

    The caller keeps its own copies of the descriptors, and closes them.

    Raises:
        PagescanError: The keeper did not start, or could not store the facts on disk;
            the caller still has everything.
    """
    from pagescan.target.causes import oom_kills

    before = oom_kills()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        _listen(server, lock)
        ready, answer = os.pipe2(os.O_CLOEXEC)
        fds = {
            "server": server.fileno(),
            "answer": answer,
            "lock": lock.fd,
            "directory": lock.directory,
            "uffd": uffd,
            "pidfd": pidfd,
            "pagemap": pagemap,
        }
        try:
            keeper_pid = _spawn(fds, session)
        finally:
            os.close(answer)
        with open(ready, "rb") as said:
            _await_answer(ready, keeper_pid)
            answered = said.read(len(READY))
            if answered != READY:
                answered += said.read()
    if answered != READY:
        raise _failed(session, keeper_pid, answered, before)
    session.keeper_pid = keeper_pid
    return session


def _await_answer(ready: int, pid: int) -> None:
    """Wait until a keeper says something; kill it if this process is asked to end."""
    import select
    import signal

    from pagescan.console.interrupts import raise_if_put_off

    waiter = select.poll()
    waiter.register(ready, select.POLLIN)
    try:
        while not waiter.poll(_A_MOMENT_MS):
            raise_if_put_off()
    except BaseException:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def _failed(session: Session, pid: int, said: bytes, before: int) -> PagescanError:
    """Return the error that tells why the keeper did not start, and reap it."""
    from pagescan.model.errors import PagescanError
    from pagescan.session.locks import not_on_disk
    from pagescan.target.causes import how_it_ended

    code = said.removeprefix(FAILED)
    if said.startswith(FAILED) and code.isdigit():
        how_it_ended(pid, before)
        return not_on_disk(OSError(int(code), ""), session.target.pid)
    why = how_it_ended(pid, before)
    lines = said.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return PagescanError(
        f"the keeper of the session did not start: {last or why}",
        hint=None if not last else f"{sys.executable} runs it; {why}",
        pid=session.target.pid,
    )


def _listen(server: socket.socket, lock: Lock) -> None:
    """Listen beside the lock file."""
    from pagescan.model.errors import from_oserror

    try:
        _bind(server, lock)
    except OSError as error:
        raise from_oserror(
            error, doing=f"make the socket of session {lock.pid}", call="bind"
        ) from error


def _bind(server: socket.socket, lock: Lock) -> None:
    """Bind a socket beside the lock file, whatever the caller's umask."""
    name = f"/proc/self/fd/{lock.directory}/{lock.pid}.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)
    server.bind(name)
    os.chmod(name, 0o600)
    server.listen(CLIENTS)


def _spawn(fds: dict[str, int], session: Session) -> int:
    """Start the keeper's process; it gets the facts on its stdin."""
    import subprocess

    facts, feed = os.pipe2(os.O_CLOEXEC)
    moved = [fd for fd in fds.values() if fd < 3]  # of a host that has closed 0 to 2
    above = {fd: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in moved}
    fds = {name: above.get(fd, fd) for name, fd in fds.items()}
    try:
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-s", "-m", "pagescan.session.keeper"),
                *_target_words(session),
                json.dumps(fds),
            ],
            stdin=facts,
            stdout=subprocess.DEVNULL,
            # until it is ready: messages of Python that cannot run it
            stderr=fds["answer"],
            pass_fds=list(fds.values()),
            start_new_session=True,
            cwd="/",
            env={"PYTHONPATH": _path(), "PYTHONDONTWRITEBYTECODE": "1"},
        )
    finally:
        os.close(facts)
        for fd in above.values():
            os.close(fd)
    with contextlib.suppress(BrokenPipeError), os.fdopen(feed, "wb") as stream:
        stream.write(json.dumps(session.to_json()).encode())
    process.returncode = 0  # it outlives this process: no one waits for it
    return process.pid


def _target_words(session: Session) -> list[str]:
    """Return what ps(1) shows of the session: a pid, or the option of a group.

    The name of the process is not among it: `pkill -f NAME` would find the keeper.
    """
    if session.group is None:
        return [str(session.target.pid)]
    return [f"--{session.group.kind}", session.group.name]


def _path() -> str:
    """Return PYTHONPATH for the keeper: where this process found its modules."""
    import _cffi_backend

    package = os.path.abspath(__file__ + 3 * "/..")
    needed = os.path.dirname(os.path.abspath(_cffi_backend.__file__))
    return os.pathsep.join(dict.fromkeys([package, needed]))


def end(session: Session, max_stall_ns: int = native.MAX_STALL_NS) -> Cost:
    """Disarm a session and return the cost; wait for its keeper's end, if it ends.

    Args:
        session: A session whose keeper lives.
        max_stall_ns: How long one call may hold the target's mmap lock.
    """
    import select

    from pagescan.session.client import Client

    with Client(session) as client:
        try:
            pidfd = os.pidfd_open(session.keeper_pid)
        except ProcessLookupError:  # it has just died, or is in another pid namespace
            return client.end(max_stall_ns)
        try:
            cost = client.end(max_stall_ns)
            if client.was_last:
                gone = select.poll()
                gone.register(pidfd, select.POLLIN)
                gone.poll(_END_TIMEOUT * 1000)
        finally:
            os.close(pidfd)
    return cost
