"""Measures how long the target's mmap(2) and munmap(2) wait while each command works.

Each command is measured in turn with an equally long time without a look, because on a
busy machine that time has waits, too.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable

import pagescan
from benchmarks.measure import GIB, MIB, Bench, Helper, in_turn
from benchmarks.processes import target
from pagescan.session.lookup import find_session

_IDLE = 0.4  # seconds


def run(bench: Bench) -> None:
    """Measure the worst wait of each command, over some rounds."""
    size = 256 * MIB if bench.quick else 4 * GIB
    with target(size) as made:
        found = in_turn(bench.rounds(9), _ways(made))
    with target(size // 2, "huge") as made:
        found |= in_turn(bench.rounds(9), _restoring(made))
    for name, samples in found.items():
        bench.add(
            f"stalls.{_key(name)}", name, samples, "ms",
            against="nobody looks", base=found["nobody looks"],
        )  # fmt: skip
    for name, samples in found.items():
        if name == "nobody looks":
            continue
        between = [
            one - other
            for one, other in zip(samples, found["nobody looks"], strict=True)
        ]
        key = f"stalls.{_key(name)}.more"
        bench.add(key, f"{name}, more than with nobody looking", between, "ms")


def _key(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def _ways(made: Helper) -> dict[str, Callable[[], float]]:
    pid = made.pid

    def worst(act: Callable[[], object]) -> float:
        made.tell("churn")
        act()
        return float(made.tell("calm")["max_wait_ns"]) / 1e6

    def armed(act: Callable[[], object]) -> Callable[[], float]:
        def measured() -> float:
            pagescan.start_session(pid)
            try:
                return worst(act)
            finally:
                with contextlib.suppress(pagescan.PagescanError):
                    pagescan.end_session(pid)

        return measured

    def arm() -> float:
        try:
            return worst(lambda: pagescan.start_session(pid))
        finally:
            pagescan.end_session(pid)

    def watch() -> None:
        with pagescan.track(pid) as tracking:
            for _ in range(3):
                tracking.look(rearm=True)

    def look_in_vain() -> None:
        with contextlib.suppress(pagescan.SessionError):
            pagescan.look_at_session(pid)

    return {
        "nobody looks": lambda: worst(lambda: time.sleep(_IDLE)),
        "arm": arm,
        "diff": armed(lambda: pagescan.look_at_session(pid, rearm=True)),
        "disarm": armed(lambda: pagescan.end_session(pid)),
        "maps": lambda: worst(lambda: pagescan.maps(pid)),
        "scan": lambda: worst(lambda: pagescan.scan(pid)),
        "watch, to its end": lambda: worst(watch),
        "changed": armed(lambda: pagescan.changed(pid)),
        "dump-plan": armed(lambda: pagescan.dump_plan(pid, 0)),
        "diff without a session": lambda: worst(look_in_vain),
        "a keeper is killed": armed(lambda: _kill_keeper(pid)),
    }


def _restoring(made: Helper) -> dict[str, Callable[[], float]]:
    """Split all huge pages; measure the end of tracking, with and without restoring."""

    def measured(restore: bool) -> float:
        with pagescan.track(made.pid, restore_huge=restore) as tracking:
            made.tell("write 1")  # scattered: five in each huge page
            made.tell("churn")
            tracking.close()
            return float(made.tell("calm")["max_wait_ns"]) / 1e6

    return {
        "huge pages are put back": lambda: measured(restore=True),
        "huge pages stay split": lambda: measured(restore=False),
    }


def _kill_keeper(pid: int) -> None:
    """Measure the kernel's own way: it unregisters everything at the last close."""
    keeper = find_session(pid).keeper_pid
    pidfd = os.pidfd_open(keeper)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        time.sleep(_IDLE)
    finally:
        os.close(pidfd)
