"""What each command reports on a kernel that cannot track: `make kernels`, Linux 6.1.

The table below has all expected answers. A command that stops its target is noticed as
a context switch of a sleeping target.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from tests import witness
from tests.conftest import Result, command

NO_SCAN = "cannot use PAGEMAP_SCAN (Linux 6.7)"
NO_ASYNC = "this kernel's userfaultfd has no asynchronous write-protect (Linux 6.7)"
DOCTOR = "hint: pagescan doctor shows what this kernel can do"
NO_SESSION = "no session for "
NOT_HERE = f"hint: no session can be started here: {NO_ASYNC}"
PID = "PID"  # stands for the target's pid


class Refusal(NamedTuple):
    """A command and its answer.

    Attributes:
        words: The command; PID is replaced.
        code: Its exit code.
        said: What stderr contains.
    """

    words: str
    code: int
    said: tuple[str, ...] = ()


REFUSALS = (
    Refusal("scan PID", 5, (NO_SCAN, DOCTOR)),
    Refusal("maps PID", 5, (NO_SCAN, DOCTOR)),
    Refusal("dump-plan PID", 5, (NO_SCAN, DOCTOR)),
    Refusal("arm PID", 5, (NO_ASYNC, DOCTOR)),
    Refusal("watch PID -n1", 5, (NO_ASYNC, DOCTOR)),
    Refusal("watch -- true", 5, (NO_ASYNC, DOCTOR)),
    Refusal("demo", 5, (NO_ASYNC, DOCTOR)),
    Refusal("diff PID", 1, (NO_SESSION, NOT_HERE)),
    Refusal("changed PID", 2, (NO_SESSION, NOT_HERE)),
    Refusal("scan PID --wp", 1, (NO_SESSION, NOT_HERE)),
    Refusal("dump-plan PID --epoch 0", 1, (NO_SESSION, NOT_HERE)),
    Refusal("doctor", 5, ("nothing can be tracked here",)),
    Refusal("sessions", 0),
    Refusal("disarm --all", 0),
    Refusal("schema", 0),
    Refusal("--version", 0),
)


@pytest.fixture(scope="module")
def sleeper() -> Iterator[int]:
    """The pid of a sleeping process."""
    with subprocess.Popen(["sleep", "100000"]) as process:
        witness.wait_for(lambda: witness.status(process.pid, "Name") == "sleep")
        witness.wait_for(lambda: witness.status(process.pid, "State")[0] == "S")
        yield process.pid
        process.kill()


def switches(pid: int) -> tuple[str, str]:
    """Return how often a process was switched away from."""
    one = witness.status(pid, "voluntary_ctxt_switches")
    return one, witness.status(pid, "nonvoluntary_ctxt_switches")


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.words)
def test_what_it_says(
    refusal: Refusal,
    sleeper: int,
    record_property: Callable[[str, object], None],
) -> None:
    """The exit code and the cause are right, and the target sleeps on."""
    before = switches(sleeper)
    words = [str(sleeper) if word == PID else word for word in refusal.words.split()]
    result: Result = command(*words)
    after = switches(sleeper)
    first = "".join(result.stderr.splitlines()[:1]).replace(str(sleeper), PID)
    counts = f"{'+'.join(before)}, {'+'.join(after)}"
    record_property("said", json.dumps([refusal.words, result.code, first, counts]))
    assert (result.code, result.stderr) == (refusal.code, result.stderr)
    for text in refusal.said:
        assert text in result.stderr
    assert after == before, "the target was stopped"


def test_the_fixes_of_doctor_follow_from_the_cause() -> None:
    """The fix is a newer kernel: no row asks for a bug report or mentions ptrace."""
    document = command("doctor", "--json")
    rows = {row["name"]: row for row in document.json()["checks"]}
    for name in ("pagemap-scan", "wp-async", "exact-private", "exact-shared"):
        assert rows[name]["ok"] is False
        assert rows[name]["fix"].startswith("run Linux 6.7 or newer")
    assert rows["attach-child"]["fix"] == rows["wp-async"]["fix"]
