"""The attach harms nothing, at whatever moment it is killed.

The targets check themselves (targets/steadfast.c). The shim's own code attaches to
them, in a program that kills itself at each step of the attach, or is killed at random
moments (targets/surgeon.c). PAGESCAN_KILLS sets the number of such kills per kind: 250
make more than 10,000.
"""

import errno
import json
import os
import shlex
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import machine, witness

HERE = Path(__file__).parents[1]
NATIVE = HERE.parent / "pagescan/native"
KILLS = int(os.environ.get("PAGESCAN_KILLS", "10"))
FIELDS = (
    "rounds",
    "faults",
    "last",
    "late",
    "interrupted",
    "lost",
    "signals",
    "unaborted",
)

COMPUTING = (
    *("registers-256", "registers-512", "signal-storm", "signal-queue"),
    *("small-stack", "no-slack", "rseq"),
    *("fiber-pool", "fiber-array", "fiber-pool-nap", "fiber-array-nap"),
)
WAITING = ("read", "poll", "epoll", "futex", "wait4", "accept", "sigtimedwait")
TIMED = (
    *("nanosleep", "clock-relative", "clock-absolute", "poll-timeout"),
    *("ppoll-timeout", "select-timeout", "futex-timeout", "epoll-timeout"),
)
# These calls write the remaining time into the program's memory and start again with
# it: the time of the stop is added, with any tracer.
SHIFTED = ("ppoll-timeout", "select-timeout")
# A signal at the very moment of the death may not wake these: docs/harmless.md.
SUSPENDED = ("sigsuspend", "pause")
# Calls without a timeout: targets/waiting.c. Several return EINTR after a bare stop.
CALLS = (
    *("epoll_wait", "epoll_pwait", "epoll_pwait2", "semop", "semtimedop"),
    *("fallocate", "io_getevents", "io_uring_enter"),
    *("ppoll", "pselect", "recv", "msgrcv", "mq_receive", "eventfd", "inotify"),
    *("flock", "setlkw"),
)
# Syscall User Dispatch as in Wine, a storm of execs, a host: targets/wild.c.
WILD = ("dispatch", "dispatch-nap", "execs", "reaps")
MEMORY = (
    *("registers-512", "nanosleep", "read", "small-stack", "futex-timeout"),
    *("fiber-pool", "fiber-array", "fiber-pool-nap", "fiber-array-nap"),
)
# signal(7): every stop interrupts these, with any tracer.
INTERRUPTED = ("epoll-timeout",)

SOURCES = (
    *("shim_mappings.c", "shim_attach.c", "shim_calls_x86_64.c", "shim_candidates.c"),
    *("shim_descriptor.c", "shim_facts.c", "shim_files.c", "shim_frame_x86_64.c"),
    *("shim_gadgets_x86_64.c", "shim_maps.c", "shim_operator.c", "shim_probe.c"),
    *("shim_remote.c", "shim_socket.c", "shim_stack_x86_64.c", "shim_surgeon.c"),
    "shim_uffd.c",
)


def build(program: Path, *words: str) -> Path:
    """Compile one of the programs in targets/."""
    subprocess.run(
        ["cc", "-O2", "-std=gnu11", "-Wall", "-o", str(program), *words, "-pthread"],
        check=True,
    )
    return program


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The target, and surgeons: normal, plain method only, without PROCMAP_QUERY."""
    place = tmp_path_factory.mktemp("native")
    shim = [str(NATIVE / name) for name in SOURCES]
    shim += shlex.split(os.environ.get("PAGESCAN_CFLAGS", ""))  # sanitizers
    surgeon = ["-DPS_FAULT", str(HERE / "targets/surgeon.c"), *shim]
    steadfast = str(HERE / "targets/steadfast.c")
    wrapped = ["-DPLAIN", "-Wl,--wrap=ps_build_chain"]
    return {
        "steadfast": build(place / "steadfast", steadfast),
        "static": build(place / "static", steadfast, "-static"),
        "waiting": build(place / "waiting", str(HERE / "targets/waiting.c"), "-lrt"),
        "wild": build(place / "wild", str(HERE / "targets/wild.c")),
        "surgeon": build(place / "surgeon", *surgeon),
        "plain": build(place / "plain", *wrapped, *surgeon),
        "older": build(place / "older", "-DOLDER", "-Wl,--wrap=ioctl", *surgeon),
    }


@dataclass
class Patient:
    """A running steadfast (the target)."""

    process: subprocess.Popen[bytes]
    path: Path
    programs: dict[str, Path]

    def status(self) -> dict[str, int]:
        """Return its counters."""
        values = struct.unpack("8Q", self.path.read_bytes())
        return dict(zip(FIELDS, values, strict=True))

    def operate(
        self, mode: str, rounds: int, victim: str = "surgeon", program: str = "surgeon"
    ) -> Any:
        """Attach, or die on the way; return the report of the surgeon."""
        words = [self.programs[program], self.process.pid, self.path, mode, rounds]
        words.append(victim)
        done = subprocess.run(
            [str(word) for word in words],
            capture_output=True,
            check=True,
            timeout=300 + rounds,
        )
        said = json.loads(done.stdout)
        print(mode, said)  # noqa: T201 - pytest -s
        return said

    def goes_on(self) -> None:
        """Wait until the target has done two more rounds."""
        before = self.status()["rounds"]
        witness.wait_for(lambda: self.status()["rounds"] >= before + 2)


Start = Callable[..., Patient]


@pytest.fixture
def patient(programs: dict[str, Path], tmp_path: Path) -> Iterator[Start]:
    """Start targets; they end with the test."""
    started: list[Patient] = []

    def start(
        kind: str, program: str = "steadfast", env: dict[str, str] | None = None
    ) -> Patient:
        path = tmp_path / "status"
        path.write_bytes(bytes(64))
        words = [str(programs[program]), kind, str(path)]
        process = subprocess.Popen(words, env={**os.environ, **(env or {})})
        started.append(Patient(process, path, programs))
        started[-1].goes_on()
        return started[-1]

    yield start
    for made in started:
        made.process.kill()
        made.process.wait()


def unharmed(patient: Patient, kind: str, bare: int = 0) -> None:
    """Assert that the target has noticed no change.

    Up to `bare` deaths before the stack was prepared may have interrupted a call.
    """
    patient.goes_on()
    status = patient.status()
    assert (status["faults"], status["last"]) == (0, 0), status
    assert status["late"] == 0, status
    if kind not in INTERRUPTED:
        may_be = kind in ("epoll", "sigtimedwait") or status["interrupted"] <= bare
        assert may_be, status
    if kind not in SUSPENDED:
        assert status["lost"] == 0, status
    assert witness.status(patient.process.pid, "TracerPid") == "0"
    assert witness.status(patient.process.pid, "State").startswith(("R", "S"))


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", [*COMPUTING, *WAITING, *TIMED, *SUSPENDED])
def test_attach_is_not_noticed(patient: Start, kind: str) -> None:
    made = patient(kind)
    said = made.operate("whole", 20)
    assert (said["runs"], said["kills"], said["failed"]) == (20, 0, 0), said
    assert said["harm"] == ""
    assert said["methods"][:2] == [0, 0], "the plain method would not be safe"
    assert made.status()["lost"] == 0
    if kind in WAITING:
        assert made.status()["interrupted"] == 0
    unharmed(made, kind)
    left = witness.descriptors(made.process.pid).values()
    assert not [name for name in left if "userfaultfd" in name]


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", [*COMPUTING, *WAITING, *TIMED, *SUSPENDED])
def test_death_at_every_step(patient: Start, kind: str) -> None:
    death_at_every_step(patient(kind), kind, "surgeon")


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("victim", ["caller", "both", "thread"])
@pytest.mark.parametrize("kind", ["registers-512", "small-stack", "nanosleep", "read"])
def test_whoever_dies(patient: Start, kind: str, victim: str) -> None:
    """The surgeon may die, the process that waits for it, or both at once."""
    death_at_every_step(patient(kind), kind, victim)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", ["registers-512"])
def test_surgeon_is_stopped(patient: Start, kind: str) -> None:
    """A stopped surgeon is killed by its own timer, and the thread goes on."""
    made = patient(kind)
    said = made.operate("sweep", 1, "stop")
    assert said["harm"] == "", said
    assert said["kills"] >= 18
    assert said["failed"] == 0
    made.goes_on()
    status = made.status()  # it may be late because it was stopped
    assert (status["faults"], status["interrupted"], status["lost"]) == (0, 0, 0)


@pytest.mark.needs("tracking", "cgroup-freezer")
@pytest.mark.parametrize("kind", ["registers-512", "small-stack", "nanosleep"])
def test_target_is_frozen(patient: Start, kind: str) -> None:
    """Frozen in the middle of its call it does not stop again: its stack restores it.

    A cgroup that is throttled does the same, but the moment cannot be chosen.
    """
    made = patient(kind)
    with machine.cgroup("freezer", "THAWED") as group:
        state = group / "freezer.state"
        if not state.exists():
            pytest.skip("cgroup v2 stops a frozen thread for its tracer")
        (group / "cgroup.procs").write_text(str(made.process.pid))
        said = made.operate("whole", 1, str(state))
        assert said["harm"] == "", said
        assert said["failed"] == 1
        made.goes_on()
    status = made.status()  # it may be late: it stood still
    assert (status["faults"], status["interrupted"], status["lost"]) == (0, 0, 0)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", ["registers-512", "small-stack", "nanosleep"])
def test_before_linux_6_11(patient: Start, kind: str) -> None:
    """Before Linux 6.11 the mappings are read from the text of maps alone."""
    death_at_every_step(patient(kind), kind, "surgeon", "older")


def death_at_every_step(
    made: Patient, kind: str, victim: str, program: str = "surgeon"
) -> None:
    before = len(witness.descriptors(made.process.pid))
    said = made.operate("sweep", 1, victim, program)
    assert said["harm"] == "", said
    assert said["kills"] >= 18
    assert said["runs"] == said["kills"] + 1
    assert said["failed"] == 0
    assert said["methods"][:2] == [0, 0], said
    unharmed(made, kind)
    left = len(witness.descriptors(made.process.pid)) - before
    assert left <= said["kills"]


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", ["registers-256", "nanosleep", "read"])
def test_stopped_target_stays_stopped(patient: Start, kind: str) -> None:
    made = patient(kind)
    made.process.send_signal(signal.SIGSTOP)
    witness.wait_for(lambda: witness.status(made.process.pid, "State")[0] == "T")
    said = made.operate("sweep", 1)
    assert said["harm"] == "", said
    assert witness.status(made.process.pid, "State")[0] == "T"
    made.process.send_signal(signal.SIGCONT)
    made.goes_on()
    status = made.status()
    assert (status["faults"], status["interrupted"]) == (0, 0), status


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", MEMORY)
def test_memory_stays_as_it_was(patient: Start, kind: str) -> None:
    """Memory is the same byte by byte, and the borrowed memory is empty again."""
    # The kernel writes cpu_id and mm_cid to a registered rseq area when it likes.
    made = patient(kind, env={"GLIBC_TUNABLES": "glibc.pthread.rseq=0"})
    made.goes_on()
    with witness.stopped(made.process.pid):
        before = witness.memory(made.process.pid)
        said = made.operate("whole", 1)
        assert said["failed"] == 0
        after = witness.memory(made.process.pid)
        assert before.keys() <= after.keys()
        changed = {
            address + at
            for address, page in after.items()
            for at in range(len(page))
            if page != (was := before.get(address, bytes(len(page))))
            and page[at] != was[at]
        }
    assert changed == set()


@pytest.mark.needs("tracking", "root")
@pytest.mark.timeout(120 + KILLS)
@pytest.mark.parametrize(
    ("program", "kind"),
    [
        *(("steadfast", kind) for kind in (*COMPUTING, *WAITING, *TIMED, *SUSPENDED)),
        *(("waiting", call) for call in CALLS),
        *(("wild", kind) for kind in WILD),
    ],
)
def test_death_at_random(
    patient: Start,
    program: str,
    kind: str,
    record_property: Callable[[str, object], None],
) -> None:
    """The surgeon may die, its caller, both, or a thread of the caller."""
    made = patient(kind, program)
    said = made.operate("random", KILLS, "any")
    assert said["harm"] == "", said
    assert said["kills"] == KILLS, "else it tests the attach that is not killed"
    record_property("kills", said["kills"])
    made.goes_on()
    status = made.status()  # it may be late: this takes a long time
    assert status["faults"] == 0, status
    ends_early = program == "waiting" or kind in (*INTERRUPTED, "epoll", "sigtimedwait")
    assert ends_early or status["interrupted"] == 0, status
    assert kind in SUSPENDED or status["lost"] == 0, status
    assert witness.status(made.process.pid, "TracerPid") == "0"
    # An exec in that time may end an attach, which reports it; a busy machine, too.
    late = said["error"] == -errno.ETIMEDOUT
    assert kind == "execs" or said["failed"] == 0 or late, said


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", [*COMPUTING, *WAITING, *TIMED])
def test_deaths_in_a_row(patient: Start, kind: str) -> None:
    """A call that is interrupted repeatedly goes on, also restart_syscall(2)."""
    made = patient(kind)
    said = made.operate("burst", 30)
    assert said["harm"] == "", said
    assert said["kills"] >= 15
    unharmed(made, kind)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("mode", ["volley", "burst"])
@pytest.mark.parametrize("kind", sorted({*TIMED} - {*SHIFTED}))
def test_deadline_is_kept(patient: Start, kind: str, mode: str) -> None:
    """A wait that is interrupted all the time ends at its deadline.

    If each attach began the wait again, it would last as long as the attaches do: 200
    of them take longer than the wait and its permitted delay.
    """
    made = patient(f"{kind}-long")
    said = made.operate(mode, 200)
    assert said["harm"] == "", said
    assert said["kills"] == 0 if mode == "volley" else said["kills"] >= 100
    unharmed(made, kind)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("mode", ["volley", "burst"])
@pytest.mark.parametrize("kind", ["signal-queue", "signal-nap"])
def test_signals_come_once(patient: Start, kind: str, mode: str) -> None:
    """Of numbered signals, sent all the time, none is lost, doubled or out of order."""
    made = patient(kind)
    before = made.status()["signals"]
    said = made.operate(mode, 150)
    assert said["harm"] == "", said
    unharmed(made, kind)
    assert made.status()["signals"] > before + 100


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("mode", ["volley", "burst"])
@pytest.mark.parametrize("kind", ["registers-256", "nanosleep", "read"])
def test_stopped_meanwhile(patient: Start, kind: str, mode: str) -> None:
    """Of SIGSTOP and SIGCONT, sent all the time, the last one decides."""
    made = patient(kind)
    words = [made.programs["surgeon"], made.process.pid, made.path, mode, 30]
    for last in (signal.SIGSTOP, signal.SIGCONT):
        with subprocess.Popen(
            [str(word) for word in words], stdout=subprocess.PIPE
        ) as surgeon:
            while surgeon.poll() is None:
                made.process.send_signal(signal.SIGSTOP)
                made.process.send_signal(signal.SIGCONT)
            assert surgeon.stdout is not None
            said = json.load(surgeon.stdout)
        assert said["harm"] == "", said
        made.process.send_signal(last)
        state = "T" if last == signal.SIGSTOP else "RS"
        witness.wait_for(
            lambda: witness.status(made.process.pid, "State")[0] in state  # noqa: B023
        )
    made.goes_on()
    status = made.status()  # it may be late: it was stopped
    assert (status["faults"], status["interrupted"]) == (0, 0), status


@pytest.mark.needs("tracking")
def test_sequence_is_aborted_by_the_attach(
    patient: Start,
) -> None:
    """A restartable sequence is aborted: it would go on as if never interrupted."""
    made = patient("rseq")
    made.operate("whole", 120)
    # Most attaches hit the sequence; a switch just before or behind it counts too.
    assert made.status()["unaborted"] <= 60


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("kind", ["registers-256", "patched"])
def test_static_program(patient: Start, kind: str) -> None:
    """A static program only has its own code; patched code differs from its file."""
    made = patient(kind, "static")
    said = made.operate("sweep", 1)
    assert said["harm"] == "", said
    assert said["methods"][:2] == [0, 0], said
    unharmed(made, kind)


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("mode", ["volley", "burst"])
@pytest.mark.parametrize("call", CALLS)
def test_waits_are_not_ended(patient: Start, call: str, mode: str) -> None:
    """A call without a timeout goes on, restarted by the kernel or by the attach."""
    made = patient(call, "waiting")
    said = made.operate(mode, 60)
    assert said["harm"] == "", said
    if mode == "volley":
        assert said["failed"] == 0, said
    unharmed(made, call, said["kills"] // 3)


@pytest.mark.needs("tracking", "cc-m32")
@pytest.mark.parametrize("mode", ["volley", "burst"])
def test_call_of_another_abi_is_left_alone(patient: Start, mode: str) -> None:
    """A thread in `int $0x80` is left alone: the numbers of its calls differ."""
    made = patient("int80")
    said = made.operate(mode, 60)
    assert said["harm"] == "", said
    if mode == "volley":
        assert said["failed"] > 30, said
    unharmed(made, "int80")


@pytest.mark.needs("tracking")
def test_harm_would_be_seen(patient: Start) -> None:
    """The control: the plain method, killed at every step, harms the target."""
    made = patient("registers-256")
    said = made.operate("sweep", 1, program="plain")
    assert said["harm"] in ("dead", "hung") or made.status()["faults"]
