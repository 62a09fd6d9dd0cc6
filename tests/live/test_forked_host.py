"""A host of the library that forks while it tracks: its workers keep no copies."""

import multiprocessing
import os
import signal
import subprocess
import sys

import pytest

import pagescan
from tests import witness
from tests.live.test_surgeon import sleeper

__all__ = ["sleeper"]
pytestmark = pytest.mark.needs("tracking")


def test_forked_worker_keeps_nothing(sleeper: int) -> None:
    """If a host forks a worker while it tracks, and is killed, nothing stays."""
    script = (
        "import multiprocessing, os, sys, time, pagescan\n"
        "tracking = pagescan.track(int(sys.argv[1]))\n"
        "worker = multiprocessing.get_context('fork').Process(\n"
        "    target=time.sleep, args=(1000,))\n"
        "worker.start()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    words = [sys.executable, "-c", script, str(sleeper)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as host:
        assert host.stdout is not None
        worker = int(host.stdout.readline())
        try:
            assert witness.registered(sleeper)
            host.kill()
            host.wait()
            witness.wait_for(lambda: not witness.registered(sleeper))
            with pagescan.track(sleeper):
                assert witness.registered(sleeper)
        finally:
            os.kill(worker, signal.SIGKILL)


def test_forked_worker_can_track(sleeper: int) -> None:
    """The worker closes its own copies: its host tracks on, and so can it."""
    with pagescan.track(sleeper) as tracking:
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=tracking.close)
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        assert witness.registered(sleeper)
        list(tracking.written())
    assert not witness.registered(sleeper)
