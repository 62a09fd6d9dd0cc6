"""WriteWatch under threads on all cores loses no store, and reports no other page.

The stores and the judge are C (targets/stampers.c), without the GIL.
"""

import ctypes
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from pagescan.writewatch import WriteWatch
from tests.witness import PAGE

pytestmark = pytest.mark.needs("tracking")

ROUNDS = int(os.environ.get("PAGESCAN_STORM_ROUNDS", "5000"))
SOURCE = Path(__file__).parents[1] / "targets/stampers.c"


@pytest.fixture(scope="session")
def stampers(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    made = tmp_path_factory.mktemp("stampers") / "stampers.so"
    words = ["cc", "-O2", "-Wall", "-shared", "-fPIC", "-pthread", "-o", str(made)]
    subprocess.run([*words, str(SOURCE)], check=True)
    library = ctypes.CDLL(str(made))
    library.begin.argtypes = (ctypes.c_void_p, *(2 * [ctypes.c_size_t]), ctypes.c_int)
    library.end.restype = library.after_get.restype = ctypes.c_uint64
    return library


Get = Callable[[WriteWatch], "array[int]"]


def at_once(watch: WriteWatch) -> "array[int]":
    return watch.get(reset=True)[0]


def in_pieces(watch: WriteWatch) -> "array[int]":
    """Get with a limit, and go on behind the last page."""
    pages, start = array("Q"), 0
    while start < watch.size:
        found, page = watch.get(start, count=17, reset=True)
        pages.extend(found)
        if len(found) < 17:
            break
        start = found[-1] - watch.address + page
    return pages


@pytest.mark.parametrize("get", [at_once, in_pieces])
@pytest.mark.parametrize("pages", [64, 1080])
def test_every_store_is_in_the_next_round(
    stampers: ctypes.CDLL, capsys: pytest.CaptureFixture[str], pages: int, get: Get
) -> None:
    """In rounds without pause, the stamps in memory show what must be found."""
    threads = 2 * (os.cpu_count() or 1)
    missed, extra = ctypes.c_uint64(), ctypes.c_uint64()
    rounds = due = found = 0
    with WriteWatch(pages * PAGE) as watch:

        def look() -> None:
            nonlocal due, found
            stampers.before_get()
            got = get(watch)
            address, length = got.buffer_info()
            due += stampers.after_get(
                ctypes.c_void_p(address),
                ctypes.c_size_t(length),
                ctypes.byref(missed),
                ctypes.byref(extra),
            )
            found += length

        assert stampers.begin(watch.address, pages, PAGE, threads) == 0
        try:
            while rounds < ROUNDS or due < ROUNDS:  # a round may see no thread run
                look()
                rounds += 1
        finally:
            stores = stampers.end()
        look()  # the last stores
        assert (missed.value, extra.value) == (0, 0), (due, found)
        assert not watch.get()[0]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{stores} stores of {threads} threads to {pages} pages, {rounds} rounds "
            f"{get.__name__}: {due} pages due, {found} found, 0 missed, 0 extra\n"
        )


def test_threads_that_get_at_once_share_the_pages() -> None:
    """Each page is in the answer of exactly one thread."""
    getters, pages, rounds = 4, 2048, 200
    answers: list[list[int]] = [[] for _ in range(getters)]
    gate = threading.Barrier(getters + 1)
    with WriteWatch(pages * PAGE) as watch, watch.buffer as view:

        def getter(index: int) -> None:
            for _ in range(rounds):
                gate.wait()
                answers[index] = watch.get(reset=True)[0].tolist()
                gate.wait()

        threads = [threading.Thread(target=getter, args=(n,)) for n in range(getters)]
        for thread in threads:
            thread.start()
        for turn in range(rounds):
            stored = range(turn % 7, pages, 1 + turn % 5)
            for page in stored:
                view[page * PAGE] = 1
            gate.wait()
            gate.wait()
            all_of_them = sorted(address for answer in answers for address in answer)
            assert all_of_them == [watch.address + page * PAGE for page in stored]
            assert all(answer == sorted(answer) for answer in answers)
        for thread in threads:
            thread.join()


def test_it_is_not_closed_while_another_thread_gets() -> None:
    """close() is refused during a get: later memory there would be reset."""
    watch = WriteWatch(PAGE)
    real = watch._watch
    refused: list[str] = []

    def close() -> None:
        try:
            watch.close()
        except BufferError as error:
            refused.append(str(error))

    class Closed:
        """Calls C while another thread closes the watch."""

        def get(self, *where: int, **how: Any) -> "array[int]":
            self._close()
            return real.get(*where, **how)

        def reset(self, *where: int) -> None:
            self._close()
            real.reset(*where)

        def _close(self) -> None:
            thread = threading.Thread(target=close)
            thread.start()
            thread.join()

    watch._watch = cast("Any", Closed())
    watch.get(reset=True)
    watch.reset()
    assert len(refused) == 2
    watch.close()
