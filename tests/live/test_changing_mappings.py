"""Mappings that change between and during looks, and programs that exec."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import pagescan
from pagescan.target.process import Target as Opened
from pagescan.tracking.tracking import Tracking
from tests import witness
from tests.conftest import Result, Target, command

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]


def look(made: Target, pagescan: Run, *words: str) -> set[int]:
    """Return the written pages of the range m."""
    return made.pages(pagescan("diff", made.pid, "--json", *words).json(), "m")


def test_shrunk(armed: Start, pagescan: Run) -> None:
    """After mremap(2) to a smaller size, the rest stays exact."""
    made = armed("m=anon,pages=64,fill=1")
    made.write("m", {3, 50})
    made.tell("mremap m size 32")
    made.where("m")
    assert look(made, pagescan, "--rearm") == {3}
    made.write("m", {31})
    assert look(made, pagescan) == {31}


def test_grown(armed: Start, pagescan: Run) -> None:
    """After mremap(2) to a larger size, stores to the new part are found."""
    made = armed("m=anon,pages=64,fill=1")
    made.tell("mremap m size 6400")
    moved = made.where("m")
    assert moved
    made.write("m", {5000})
    found = look(made, pagescan, "--rearm")
    # If it had to move, all its populated pages are new.
    assert found in ({5000}, {*range(64), 5000})
    made.expected["m"].clear()
    made.write("m", {6000, 3})
    assert look(made, pagescan) == {3, 6000}


def test_mapped_in_a_narrow_hole_meanwhile(target: Start) -> None:
    """A mapping that appears amid a look is found in this look or in the next one."""
    made = target("m=anon,pages=64,fill=1")
    made.tell("munmap m 16-47")
    low, _ = made.ranges["m"]
    with Opened.open(made.pid) as process, Tracking.start(process) as tracking:

        def written(*, rearm: bool = True) -> set[int]:
            batch = tracking.look(rearm=rearm).batch
            found = {(page.start - low) // witness.PAGE for page in batch.pages()}
            return {page for page in found if 0 <= page < 64}

        made.write("m", {1, 50})
        assert written() == {1, 50}
        before = tracking.mappings.reader.read()
        made.tell("again m")  # the neighbours are new as well
        made.write("m", {2, 20, 60})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking.mappings.reader, "read", lambda: before)
            assert written(rearm=False) == {2, 60}
            first = written()
        second = written()
        assert first | second == {2, 20, 60}
        assert not first & second
        made.write("m", {21})
        assert written() == {21}


def test_a_userfaultfd_of_its_own(target: Start, pagescan: Run) -> None:
    """`untracked` names memory with the target's own userfaultfd; the rest is exact."""
    made = target("own=anon,pages=16,fill=1", "m=anon,pages=16,fill=1")
    made.tell("ro own 15")  # so that the two stay separate mappings
    made.tell("uffd own 0-14")
    made.own_userfaultfds = 1
    result = pagescan("arm", made.pid)
    assert result.code == 0
    assert "another userfaultfd has it" in result.stderr
    made.write("m", {3})
    made.write("own", {4})
    document = pagescan("diff", made.pid, "--json").json()
    assert made.pages(document, "m") == {3}
    assert made.pages(document, "own") == set()
    why = {int(item["start"], 16): item["why"] for item in document["untracked"]}
    assert "another userfaultfd" in why[made.ranges["own"][0]]


def test_while_it_is_looked_at(armed: Start, pagescan: Run) -> None:
    """While mappings come and go, the others stay exact and nothing fails."""
    made = armed("m=many,pages=2000,fill=1")
    made.tell("churn")
    for turn in range(20):
        pages = {turn, 1000 + turn, 1999}
        made.write("m", pages)
        assert look(made, pagescan, "--rearm") == pages
        made.expected["m"].clear()


def test_quiet_looks_agree(armed: Start, pagescan: Run) -> None:
    """Two looks at an idle target give the same output, to the byte."""
    made = armed("m=anon,pages=512,fill=1", "s=shmem,pages=512")
    made.write("m", {5, 100})
    made.write("s", {7})
    with witness.stopped(made.pid):
        one, other = (pagescan("diff", made.pid, "--csv").stdout for _ in "ab")
    assert one == other
    assert one.count("\n") > 2


def test_exec_ends_the_session(target: Start, pagescan: Run) -> None:
    """After an exec the session has ended: exit code 3 and a message."""
    made = target("m=anon,pages=16,fill=1")
    assert pagescan("arm", made.pid).code == 0
    assert made.process.stdin is not None
    assert made.process.stdout is not None
    made.process.stdin.write("exec\n")
    made.process.stdin.flush()
    made.process.stdout.readline()
    result = pagescan("diff", made.pid)
    assert result.code == 3, result
    assert "exec" in result.stderr
    # The lock is gone too: the new program can be armed.
    assert pagescan("arm", made.pid).code == 0


def test_the_end_is_no_look(armed: Start, pagescan: Run) -> None:
    made = armed("m=anon,pages=16,fill=1")
    made.tell("quit")
    made.process.wait()
    assert pagescan("diff", made.pid).code in (1, 3)


def with_pid(pid: int, words: list[str]) -> subprocess.Popen[bytes]:
    """Start programs until one has a given pid, and wait until it is ready."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(200):
        last.write_text(f"{pid - 1}\n")
        made = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert made.stdout is not None
        made.stdout.readline()
        if made.pid == pid:
            return made
        made.communicate(b"quit\n")
    raise AssertionError("nobody else left the number free")


@pytest.mark.needs("root")
@pytest.mark.parametrize("keeper_lives", [True, False])
def test_a_pid_used_again_is_another_target(mkmem: Path, keeper_lives: bool) -> None:
    """A session never applies to a later process with the same pid."""
    words = [str(mkmem), "m=anon,pages=16,fill=1"]
    first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    assert command("arm", first.pid).code == 0
    (listed,) = command("sessions", "--json").json()["sessions"]
    if not keeper_lives:
        os.kill(listed["keeper_pid"], signal.SIGKILL)
    first.communicate(b"quit\n")
    witness.wait_for(lambda: not os.path.exists(f"/proc/{listed['keeper_pid']}"))
    second = with_pid(first.pid, words)
    result = command("diff", second.pid, "--json")
    assert result.code == 1, result
    assert result.stdout == ""
    # The new process was never tracked, so no session was lost.
    assert "no session" in result.error()["error"]
    assert command("arm", second.pid).code == 0
    second.communicate(b"quit\n")
    assert os.waitstatus_to_exitcode(second.returncode) == 0


@pytest.mark.needs("root")
def test_a_pid_used_again_while_it_is_watched(mkmem: Path) -> None:
    """An open target stays the process that was opened, even if its pid is reused."""
    words = [str(mkmem), "m=anon,pages=16,fill=1"]
    first = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()
    with pagescan.track(first.pid) as tracking:
        first.communicate(b"quit\n")
        second = with_pid(first.pid, words)
        with pytest.raises(pagescan.NoSuchTargetError, match="has ended"):
            list(tracking.written())
    with pytest.raises(pagescan.NoSuchTargetError, match="belongs to"):
        Opened.open(second.pid, start_time=1)
    second.communicate(b"quit\n")


MOVABLE = ("x=anon,pages=64,fill=1", "between=shmem,pages=4096", "y=anon,pages=32")


def lose_registration(made: Target) -> None:
    """Let the kernel unregister `x`: unused memory is moved next to it."""
    low, _ = made.ranges["x"]
    made.tell("munmap x 32-63")
    made.tell(f"mremap y at {low + 32 * witness.PAGE}")


def test_neighbour_of_moved_memory(armed: Start, pagescan: Run) -> None:
    """It counts as new once, and no later store to it is missed."""
    made = armed(*MOVABLE)
    lose_registration(made)
    made.write("x", {3})
    for rearm in ([], ["--rearm"]):
        look = pagescan("diff", made.pid, "--json", *rearm).json()
        assert made.pages(look, "x") == set(range(32))
    for page in (3, 5, 3):
        made.write("x", {page})
        look = pagescan("diff", made.pid, "--rearm", "--json").json()
        assert made.pages(look, "x") == {page}


def test_bits_of_an_earlier_session(armed: Start, pagescan: Run) -> None:
    """Memory that the kernel unregistered keeps its bits; arming lifts them."""
    made = armed(*MOVABLE)
    lose_registration(made)
    made.write("x", {3})
    assert pagescan("disarm", made.pid).code == 0
    assert pagescan("arm", made.pid).code == 0
    for page in (3, 5):
        made.write("x", {page})
        look = pagescan("diff", made.pid, "--rearm", "--json").json()
        assert made.pages(look, "x") == {page}
