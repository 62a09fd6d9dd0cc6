"""The child that measures the cost of a first write, and where it cannot."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pagescan.tracking import fault_cost
from pagescan.tracking.fault_cost import USUAL, FaultCost, Trial
from tests import witness


def allow(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the time after which the child is ended."""
    monkeypatch.setattr(fault_cost, "_DEADLINE", seconds)


@pytest.mark.needs("tracking")
def test_child_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is plausible, and higher than a warm loop would show."""
    allow(60.0, monkeypatch)
    trial = Trial()
    cost = trial.wait()
    assert cost.why == ""
    assert 2e-7 < cost.seconds < 1e-3 * witness.PATIENCE
    assert trial.poll() == cost
    trial.close()


def test_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(0.2, monkeypatch)
    begin = subprocess.Popen
    children = []

    def sleep(_: object, **options: object) -> "subprocess.Popen[bytes]":
        children.append(begin(["sleep", "1000"], stdout=subprocess.PIPE))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", sleep)
    begun = time.monotonic()
    assert Trial().wait() == FaultCost(USUAL, "it took too long")
    assert time.monotonic() - begun < 500, "the child slept for its 1000 s"
    assert children[0].returncode == -9


def test_child_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    assert Trial().wait() == FaultCost(USUAL, "the trial failed")
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert Trial().wait() == FaultCost(USUAL, "no such file or directory")


def test_memory_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No child starts if an eighth of the free memory would not be enough for it."""
    assert fault_cost.memory_to_use() <= 64 << 20
    monkeypatch.setattr(
        fault_cost, "_number", lambda path: 10 << 20 if "max" in path else 0
    )
    assert fault_cost.memory_to_use() <= 2 << 20
    assert Trial().wait() == FaultCost(USUAL, "too little memory is free")
