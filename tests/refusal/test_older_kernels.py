"""What pagescan reports on a kernel that cannot track, without disturbing a target."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests import witness
from tests.conftest import HERE, Result, command
from tests.filtered import LINUX_6_1
from tests.refusal.test_refusals import refused

NO_SCAN = "cannot use PAGEMAP_SCAN (Linux 6.7)"
NO_ASYNC = "this kernel's userfaultfd has no asynchronous write-protect (Linux 6.7)"
DOCTOR = "hint: pagescan doctor shows what this kernel can do\n"


def under(names: str, *words: object) -> Result:
    """Run pagescan, or -c CODE, under a filter that answers for the kernel."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.filtered", names, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=HERE.parent,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def sleeper() -> Iterator[int]:
    """The pid of a process that is asleep and does nothing else."""
    process = subprocess.Popen(["sleep", "1000"])
    witness.wait_for(
        lambda: (
            os.readlink(f"/proc/{process.pid}/exe") != os.path.realpath(sys.executable)
            and witness.status(process.pid, "State")[0] == "S"
        )
    )
    yield process.pid
    process.kill()
    process.wait()


def switches(pid: int) -> tuple[int, int]:
    """Return how often a process was switched away from: a stop would be counted."""
    fields = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
    one, two = (int(witness.status(pid, field)) for field in fields)
    return one, two


@pytest.mark.parametrize(
    "words", [("scan",), ("maps",), ("dump-plan",)], ids=lambda words: words[0]
)
def test_no_pagemap_scan(sleeper: int, words: tuple[str, ...]) -> None:
    """Commands that need the ioctl name it, and hint at doctor."""
    before = switches(sleeper)
    result = under(LINUX_6_1, *words, sleeper)
    refused(result, 5, NO_SCAN, DOCTOR)
    assert switches(sleeper) == before


@pytest.mark.parametrize("words", [("arm",), ("watch", "-n1")], ids=lambda it: it[0])
def test_nothing_is_stopped_for_a_no(sleeper: int, words: tuple[str, ...]) -> None:
    """The kernel is tried on pagescan's own memory, so the target sleeps on."""
    before = switches(sleeper)
    result = under(LINUX_6_1, *words, sleeper)
    assert switches(sleeper) == before
    refused(result, 5, NO_ASYNC, DOCTOR)


@pytest.mark.parametrize("words", [("watch", "--", "true"), ("demo",)])
def test_nothing_is_started_for_a_no(words: tuple[str, ...]) -> None:
    """The kernel is tried before the command is started."""
    result = under(f"{LINUX_6_1},no-exec", *words)
    refused(result, 5, NO_ASYNC, DOCTOR)


@pytest.mark.parametrize(
    "code",
    [
        "pagescan.written_pages().__enter__()",
        "pagescan.track().__enter__()",
        "pagescan.track({pid})",
        "pagescan.start_session({pid})",
        "pagescan.writewatch.WriteWatch(4096)",
    ],
)
def test_the_library_says_the_same(sleeper: int, code: str) -> None:
    """The library raises KernelUnsupportedError with cause and hint."""
    before = switches(sleeper)
    text = (
        "import pagescan, pagescan.writewatch\n"
        f"try: {code.format(pid=sleeper)}\n"
        "except pagescan.KernelUnsupportedError as error: print(error, error.hint)"
    )
    result = under(LINUX_6_1, "-c", text)
    assert switches(sleeper) == before
    assert result.stderr == ""
    assert result.stdout == f"{NO_ASYNC} {DOCTOR.removeprefix('hint: ')}"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("diff",), 1),
        (("changed",), 2),
        (("scan", "--wp"), 1),
        (("dump-plan", "--epoch", "0"), 1),
        (("disarm",), 1),
    ],
    ids=lambda it: it[0] if isinstance(it, tuple) else str(it),
)
def test_no_hint_to_arm(sleeper: int, words: tuple[str, ...], code: int) -> None:
    """If no session can be started, no message hints at `pagescan arm`."""
    verb, *options = words
    result = under(LINUX_6_1, verb, sleeper, *options)
    refused(result, code, f"hint: no session can be started here: {NO_ASYNC}")
    assert "pagescan arm" not in result.stderr
    refused(command(verb, sleeper, *options), code, f"hint: pagescan arm {sleeper}")


def test_no_hint_to_arm_without_a_target() -> None:
    """The same without a TARGET."""
    result = under(LINUX_6_1, "diff")
    refused(result, 1, f"hint: no session can be started here: {NO_ASYNC}")


@pytest.mark.parametrize("words", [("sessions",), ("disarm", "--all"), ("schema",)])
def test_what_needs_no_kernel_works(words: tuple[str, ...]) -> None:
    """Commands that need nothing of the kernel work."""
    assert under(LINUX_6_1, *words).code == 0


def doctor(names: str) -> dict[str, dict[str, str | bool | None]]:
    """Return the rows of doctor by name, and check that it refuses."""
    result = under(names, "doctor", "--json")
    document = json.loads(result.stdout)
    assert (result.code, document["can_track"]) == (5, False)
    return {row["name"]: row for row in document["checks"]}


def test_doctor_names_the_cause() -> None:
    """A row that fails because of another row says so, and shows that row's fix."""
    rows = doctor(LINUX_6_1)
    newer = rows["wp-async"]["fix"]
    assert str(newer).startswith("run Linux 6.7 or newer")
    assert rows["wp-async"]["why"] == NO_ASYNC
    assert rows["pagemap-scan"]["fix"] == newer
    for name in ("exact-private", "exact-shared", "attach-child"):
        assert rows[name]["ok"] is False
        assert rows[name]["why"] == "follows from wp-async"
        assert rows[name]["fix"] == newer
    for name in ("guard-category", "soft-dirty-category"):
        assert rows[name]["why"] == "follows from pagemap-scan"
        assert rows[name]["fix"] == newer
    assert not [row for row in rows.values() if "report it" in str(row["fix"])]


@pytest.mark.parametrize("names", ["forbidden", "unknown"])
def test_a_filter_around_pagescan_is_named(names: str) -> None:
    """The message names the filter, since pagescan's own memory cannot be tried."""
    text = (
        "import pagescan, pagescan.writewatch\n"
        "for make in (pagescan.written_pages().__enter__,"
        " lambda: pagescan.writewatch.WriteWatch(4096)):\n"
        "    try: make()\n"
        "    except pagescan.AccessDeniedError as error: print(error, '|', error.hint)"
    )
    result = under(names, "-c", text)
    said = [line.partition(" | ") for line in result.stdout.splitlines()]
    assert len(said) == 2, result
    for message, _, hint in said:
        assert message.startswith(
            "a seccomp filter around this process forbids userfaultfd:"
        )
        assert "profile" in hint
    rows = doctor(names)
    assert "seccomp filter" in str(rows["userfaultfd"]["why"])
    assert "profile" in str(rows["userfaultfd"]["fix"])
    assert rows["wp-async"]["why"] == "follows from userfaultfd"
    assert rows["wp-async"]["fix"] == rows["userfaultfd"]["fix"]


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("names", ["forbidden", "unknown"])
def test_a_filter_around_pagescan_stops_no_attach(sleeper: int, names: str) -> None:
    """The target makes the userfaultfd, so a filter around pagescan does not matter."""
    assert under(names, "arm", sleeper).code == 0
    assert command("diff", sleeper, "--json").json()["session"]["name"] == str(sleeper)
    assert command("disarm", sleeper).code == 0
    assert under(names, "watch", sleeper, "-n1", "-i0.1").code == 0


def elsewhere(*words: object) -> Result:
    """Run pagescan as on a processor without an attach."""
    code = (
        "import runpy, sys; from pagescan import native;"
        "native.can_attach = lambda: False; sys.argv[0] = 'pagescan';"
        "runpy.run_module('pagescan', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


WRONG_PROCESSOR = "another process can be tracked on x86-64 only"


@pytest.mark.needs("tracking")
@pytest.mark.parametrize(
    "words", [["arm", 0], ["watch", 0, "-n1"], ["watch", "--", "true"]]
)
def test_another_processor(sleeper: int, words: list[object]) -> None:
    """The target is not at fault: code 5, and the hint names commands that work."""
    before = switches(sleeper)
    result = elsewhere(*(word or sleeper for word in words))
    assert switches(sleeper) == before
    refused(result, 5, WRONG_PROCESSOR, "hint: pagescan scan and pagescan maps work")
    result = elsewhere("diff", sleeper)
    refused(result, 1, f"hint: no session can be started here: {WRONG_PROCESSOR}")


@pytest.mark.needs("tracking")
def test_doctor_on_another_processor() -> None:
    """The row names the processor, and its fix does not mention ptrace."""
    result = elsewhere("doctor", "--json")
    assert result.code == 5
    rows = {row["name"]: row for row in result.json()["checks"]}
    assert WRONG_PROCESSOR in rows["attach-child"]["why"]
    assert "ptrace" not in rows["attach-child"]["fix"]
    assert rows["exact-private"]["ok"] is True
    assert elsewhere("demo").code == 5
