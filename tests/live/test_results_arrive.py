"""A baseline moves only when its result has arrived; otherwise pages come again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pagescan
from tests import machine, witness
from tests.conftest import ROOTS_SESSIONS, Target, command

pytestmark = [pytest.mark.needs("tracking", "root")]
Start = Callable[..., Target]
PLACE = Path(ROOTS_SESSIONS)
MANY = set(range(0, 2000, 2))
"""Pages that make more lines than a pipe holds."""

REARMS = [
    ["diff", "--rearm"],
    ["scan", "--wp", "--require", "written"],
    ["scan", "--wp-only", "--require", "written"],
]


def diff(made: Target, *words: str) -> dict[str, Any]:
    """Return the document, unchecked because it is long."""
    result = command("diff", made.pid, "--json", *words)
    assert result.code == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def begin(made: Target, verb: list[str], stdout: int) -> subprocess.Popen[bytes]:
    """Start a command that rearms."""
    words = [sys.executable, "-m", "pagescan", verb[0], str(made.pid), *verb[1:]]
    return subprocess.Popen([*words, "--json"], stdout=stdout, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Return its exit code and its messages."""
    _, said = process.communicate(timeout=60)
    return process.returncode, said.decode()


def assert_found_again(made: Target, pages: set[int]) -> None:
    """Assert that the next diff has these pages, and one after a rearm has not."""
    assert made.pages(diff(made), "m") == pages
    more = (max(pages) + 3) | 1
    made.write("m", {more})
    assert made.pages(diff(made, "--rearm"), "m") == pages | {more}
    assert made.pages(diff(made), "m") == set()
    assert not (PLACE / f"{made.pid}.found").exists()


@pytest.fixture
def written(armed: Start) -> Target:
    """An armed target with some pages written since the last rearm."""
    made = armed("m=anon,pages=3000,fill=1")
    assert command("diff", made.pid, "--rearm", "-q").code == 0
    made.write("m", MANY)
    return made


@pytest.mark.parametrize("verb", REARMS, ids=" ".join)
def test_full_disk(verb: list[str], written: Target) -> None:
    """After a full disk all pages are found again, with the earlier `since`."""
    before = diff(written)["session"]["since"]
    with open("/dev/full", "wb") as full:
        code, said = ended(begin(written, verb, full.fileno()))
    assert code == 1
    assert "no space left" in said
    after = diff(written)["session"]["since"]
    assert after == (before if verb[0] == "diff" else None)
    assert_found_again(written, MANY)


@pytest.mark.parametrize(
    "how", ["reader", signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
)
@pytest.mark.parametrize("verb", REARMS[:2], ids=" ".join)
def test_it_ends_while_it_writes(
    verb: list[str], how: str | int, written: Target
) -> None:
    """The same after a reader went away, and after each signal."""
    ours, theirs = os.pipe()
    process = begin(written, verb, theirs)
    os.close(theirs)
    witness.wait_for(lambda: len(os.read(ours, 1000)) == 1000)
    if isinstance(how, int):
        process.send_signal(how)
        code, _ = ended(process)
        assert code == (130 if how == signal.SIGINT else -how)
        os.close(ours)
    else:
        os.close(ours)
        code, said = ended(process)
        assert (code, said.splitlines()[:0]) == (0, [])
    assert_found_again(written, MANY)


def test_again_and_again(written: Target) -> None:
    """After two failed looks with a plan between, the next has all pages."""
    with open("/dev/full", "wb") as full:
        ended(begin(written, REARMS[0], full.fileno()))
        written.write("m", {2001})
        ended(begin(written, REARMS[0], full.fileno()))
    assert pagescan.changed(written.pid)
    assert_found_again(written, MANY | {2001})


def test_a_plan_takes_nothing_of_it(written: Target) -> None:
    """Plans of checkpoints and looks do not affect each other."""
    with open("/dev/full", "wb") as full:
        ended(begin(written, REARMS[0], full.fileno()))
    plan = pagescan.dump_plan(written.pid, 0)
    assert plan.epoch
    assert_found_again(written, MANY)


def test_what_goes_meanwhile_is_left_out(written: Target) -> None:
    """Memory that was unmapped since is not reported."""
    with open("/dev/full", "wb") as full:
        ended(begin(written, REARMS[0], full.fileno()))
    written.tell("munmap m 0-1023")
    document = diff(written)
    assert written.pages(document, "m") == {page for page in MANY if page > 1023}
    assert "[gone]" not in json.dumps(document)


def test_a_lost_session_leaves_the_next_nothing(written: Target) -> None:
    """Undelivered pages of a dead session are no part of a new one."""
    with open("/dev/full", "wb") as full:
        ended(begin(written, REARMS[0], full.fileno()))
    (session,) = command("sessions", "--json").json()["sessions"]
    os.kill(session["keeper_pid"], signal.SIGKILL)
    witness.wait_for(lambda: not os.path.exists(f"/proc/{session['keeper_pid']}"))
    assert (PLACE / f"{written.pid}.found").exists()
    assert command("arm", written.pid).code == 0
    assert written.pages(diff(written), "m") == set()
    written.write("m", {7})
    assert_found_again(written, {7})


def test_both_disks_are_full(target: Start) -> None:
    """If the result cannot be stored, a message says so; no baseline remains."""
    made = target("m=anon,pages=3000,fill=1")
    with machine.tmpfs(PLACE, "size=64k,mode=700"):
        assert command("arm", made.pid).code == 0
        made.write("m", MANY)
        with contextlib.suppress(OSError), open(PLACE / "fill", "wb") as fill:
            while fill.write(bytes(4096)):
                fill.flush()
        with open("/dev/full", "wb") as full:
            code, said = ended(begin(made, REARMS[0], full.fileno()))
        assert code == 1
        assert "are lost" in said
        result = command("diff", made.pid, "--json")
        assert json.loads(result.stdout)["session"]["since"] is None
        assert "no common baseline" in result.stderr
        assert command("disarm", made.pid).code == 0


def test_the_library_delivers_by_returning(written: Target) -> None:
    """A result that a library function returns counts as arrived."""
    look = pagescan.look_at_session(written.pid, rearm=True)
    assert sum(region.pages for region in look.batch.regions()) >= len(MANY)
    assert not (PLACE / f"{written.pid}.found").exists()
    assert pagescan.look_at_session(written.pid).batch.summary().pages < 100
