"""Targets that intercept system calls or swap descriptors are detected, unharmed.

If a fact about a thread cannot be found out, another thread is taken, or none. The
programs are in targets/wary.c; each must end by itself, with 0.
"""

import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import STRANGER, command
from tests.live.test_hard_targets import (
    BARE,
    Start,
    as_nobody,
    attach,
    build,
    refused,
    start,
)

__all__ = ["start"]
pytestmark = pytest.mark.needs("tracking")


@pytest.fixture(scope="session")
def wary() -> Iterator[Path]:
    """The program, in a place where an ordinary user can run it."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield build(place, "wary")


@pytest.mark.parametrize("where", ["libc", "inside", "allow"])
def test_dispatched_calls_that_go_through(start: Start, wary: Path, where: str) -> None:
    """Calls are exempt from libc, from a few bytes of the program, or everywhere."""
    attach(start(wary, "dispatch", where), "restore it")


def test_dispatched_calls_are_not_made(start: Start, wary: Path) -> None:
    """The attach is refused, because each call would be a SIGSYS."""
    pid = start(wary, "dispatch", "nowhere")
    results = [command("arm", pid)]
    while not results[-1].code:  # it allows them for a moment, each 20 ms
        assert command("disarm", pid).code == 0
        results.append(command("arm", pid))
        assert len(results) < 9
    refused(results[-1], "Syscall User Dispatch")


def test_thread_without_dispatch_is_taken(start: Start, wary: Path) -> None:
    attach(start(wary, "dispatch-thread"), "restore it")


@pytest.mark.needs("root")
def test_filter_of_many_groups(start: Start, wary: Path) -> None:
    """The line about the filter stands behind 11 KiB of groups."""
    pid = start(wary, "groups")
    assert len(Path(f"/proc/{pid}/status").read_bytes()) > 10_000
    attach(pid, "restore it")


@pytest.mark.needs("root")
def test_filter_of_many_groups_and_an_ordinary_user(start: Start, wary: Path) -> None:
    pid = start(wary, "groups", str(STRANGER))
    refused(as_nobody("arm", pid, user=STRANGER), "has a seccomp filter")


@pytest.mark.needs("root", "io_uring")
def test_worker_of_io_uring_is_no_thread(start: Start, wary: Path) -> None:
    """The worker stops and makes no call, so the next thread is tried."""
    pid = start(wary, "worker")
    task = Path(f"/proc/{pid}/task")

    def has_worker() -> bool:
        names = [(thread / "comm").read_text() for thread in task.iterdir()]
        return any(name.startswith("iou-wrk") for name in names)

    witness.wait_for(has_worker)
    attach(pid, "restore it")


@pytest.mark.needs("root")
def test_thread_with_descriptors_of_its_own(start: Start, wary: Path) -> None:
    """The thread's descriptor 3 is not the process's: that one is not used."""
    pid = start(wary, "table")
    before = witness.descriptors(pid)
    attach(pid, "restore it")
    assert witness.descriptors(pid) == before


@pytest.mark.parametrize("what", ["pipe", "socket", "userfaultfd"])
def test_swapped_descriptor(start: Start, wary: Path, what: str) -> None:
    """A file that replaces the descriptor is not set up, kept or closed.

    The swap may come too late: then the number is closed only if it is pagescan's.
    """
    pid = start(wary, "swapped", what)
    result = command("arm", pid)
    if result.code:
        refused(result, "another file in the place")
    else:
        assert witness.registered(pid)
        assert command("disarm", pid).code == 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert [witness.registered(int(child)) for child in children] in ([], [0])


@pytest.mark.needs("root")
def test_path_of_code_is_not_followed(start: Start) -> None:
    """A link in place of a mapped file of code is not followed.

    The target is another user's; it notices an open by inotify.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    heard = libc.inotify_init1(os.O_NONBLOCK)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        program = build(place, "changeling", *BARE, "-fcf-protection=none")
        theirs, mine = place / "theirs", place / "mine"
        theirs.mkdir()
        mine.mkdir(mode=0o700)
        os.mkfifo(mine / "pipe", 0o600)
        for file in ("code", "second"):
            (theirs / file).touch()
            os.truncate(theirs / file, 64 << 20)
        for path in (theirs, *theirs.iterdir()):
            os.chown(path, STRANGER, STRANGER)
        assert libc.inotify_add_watch(heard, bytes(mine / "pipe"), 0x20) >= 0  # IN_OPEN
        paths = (theirs / "code", theirs / "second", mine / "pipe")
        pid = start(program, *paths, user=STRANGER)
        command("arm", pid)
        command("disarm", pid)
        assert (theirs / "second").is_symlink(), "else nothing is tested"
        with pytest.raises(BlockingIOError):
            os.read(heard, 4096)
    os.close(heard)
