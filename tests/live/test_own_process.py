"""The writes of the calling process: track(None) and written_pages()."""

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan import native
from pagescan.model import ranges
from pagescan.tracking import written_scan
from tests import witness
from tests.conftest import PAGE, STRANGER, python_of_all

pytestmark = pytest.mark.needs("tracking")

PAGES = 64


class Memory:
    """Some populated memory of this process."""

    def __init__(self) -> None:
        self.map = mmap.mmap(-1, PAGES * PAGE, flags=mmap.MAP_PRIVATE)
        self.start = native.address_of(self.map)
        self.map.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(PAGES):
            self.map[page * PAGE] = 1

    def store(self, *pages: int) -> None:
        for page in pages:
            self.map[page * PAGE + 5] = 2

    def among(self, batch: pagescan.Batch) -> set[int]:
        """Return those of the pages that a result has."""
        return {
            (region.start - self.start) // PAGE
            for region in batch.pages()
            if self.start <= region.start < self.start + PAGES * PAGE
        }


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.map.close()


def clean() -> bool:
    """Whether no userfaultfd and no protection of this process is left."""
    open_ones = witness.descriptors(os.getpid()).values()
    return sum("userfaultfd" in one for one in open_ones) <= 1  # WriteWatch's own


class TestWrittenPages:
    def test_just_what_was_stored_to(self, memory: Memory) -> None:
        with pagescan.written_pages() as written:
            memory.store(3, 4, 40)
        assert memory.among(written.batch) == {3, 4, 40}
        assert written.bytes == written.pages * PAGE
        assert sum(region.pages for region in written.regions()) == written.pages
        rows = {row.mapping.start: row.pages for row in written.by_mapping()}
        assert sum(rows.values()) == written.pages
        assert clean()

    def test_agrees_with_pagemap(self, memory: Memory) -> None:
        """The kernel's own pagemap words, read in the block, agree."""
        with pagescan.written_pages() as written:
            memory.store(1, 7)
            said = witness.written(
                os.getpid(), memory.start, memory.start + PAGES * PAGE
            )
        assert memory.among(written.batch) == said == {1, 7}

    def test_new_memory_counts(self) -> None:
        with pagescan.written_pages() as written:
            made = Memory()
        assert memory_pages(made, written) == set(range(PAGES))
        new = [row for row in written.by_mapping() if row.new]
        assert any(row.mapping.start <= made.start < row.mapping.end for row in new)
        made.map.close()

    def test_untracked_is_said_where_nothing_was_written(self, memory: Memory) -> None:
        ranges = ["[vvar]", f"{memory.start:#x}+{PAGES * PAGE}"]
        with pagescan.written_pages(ranges) as written:
            pass
        assert written.pages == 0
        assert [item.mapping for item in written.untracked] == ["[vvar]"]

    def test_ranges(self, memory: Memory) -> None:
        half = f"{memory.start:#x}+{PAGES // 2 * PAGE}"
        with pagescan.written_pages([half]) as written:
            memory.store(1, PAGES - 1)
        assert [(region.start, region.pages) for region in written.regions()] == [
            (memory.start + PAGE, 1)
        ]

    def test_deep_recursion_grows_the_stack(self) -> None:
        """A main thread's stack grows deeper than ever, in a separate process."""
        code = """
import pagescan, sys
sys.setrecursionlimit(100000)
class Deep:
    def __getattr__(self, name):
        return getattr(self, name + "x") if len(name) < 900 else 1
with pagescan.written_pages(["[stack]"]) as written:
    Deep().x
print(written.pages)
"""
        assert int(run(code)) > 40

    def test_exception_passes_and_the_answer_is_there(self, memory: Memory) -> None:
        written = pagescan.written_pages()

        def fail() -> None:
            with written:
                memory.store(9)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            fail()
        assert memory.among(written.batch) == {9}
        assert clean()

    def test_nested(self, memory: Memory) -> None:
        with pagescan.written_pages() as outer:
            memory.store(1)
            with pagescan.written_pages() as inner:
                memory.store(2)
            memory.store(3)
            with pagescan.written_pages() as second:
                memory.store(4, 2)
        assert memory.among(inner.batch) == {2}
        assert memory.among(second.batch) == {2, 4}
        assert memory.among(outer.batch) == {1, 2, 3, 4}
        assert outer.batch.summary().pages == len(
            {region.start for region in outer.batch.pages()}
        )
        assert clean()

    def test_nested_with_other_ranges_is_refused(self, memory: Memory) -> None:
        one = f"{memory.start:#x}+{PAGE}"
        with pagescan.written_pages([one]) as outer:
            with (
                pytest.raises(pagescan.UsageError, match="other ranges"),
                pagescan.written_pages(),
            ):
                pass
            memory.store(0)
        assert outer.pages == 1

    def test_threads_that_overlap(self, memory: Memory) -> None:
        """Blocks of two threads: the first to begin is the first to end."""
        first_began, second_began, first_over = (threading.Event() for _ in range(3))
        results = {}

        def first() -> None:
            with pagescan.written_pages() as written:
                memory.store(1)
                first_began.set()
                assert second_began.wait(60)
                memory.store(2)
            results["first"] = memory.among(written.batch)
            first_over.set()

        def second() -> None:
            assert first_began.wait(60)
            with pagescan.written_pages() as written:
                second_began.set()
                assert first_over.wait(60)
                memory.store(3)
            results["second"] = memory.among(written.batch)

        threads = [threading.Thread(target=one) for one in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == {"first": {1, 2}, "second": {2, 3}}
        assert clean()

    def test_fork_in_the_block(self, memory: Memory) -> None:
        """The child has no answer, may begin a block, and leaves the parent's alone."""
        with pagescan.written_pages() as written:
            memory.store(1)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    written.__exit__(None, None, None)
                    with pytest.raises(pagescan.PagescanError, match="forked"):
                        _ = written.pages
                    with pagescan.written_pages() as own:
                        memory.store(5)
                    code = 0 if memory.among(own.batch) == {5} else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            memory.store(2)
        assert memory.among(written.batch) >= {1, 2}
        assert 5 not in memory.among(written.batch)

    def test_no_answer_before_the_end(self) -> None:
        written = pagescan.written_pages()
        with pytest.raises(pagescan.PagescanError, match="not begun"):
            _ = written.pages
        with written, pytest.raises(pagescan.PagescanError, match="not over"):
            _ = written.pages
        with pytest.raises(pagescan.UsageError, match="already used"), written:
            pass

    def test_noise_is_bounded(self) -> None:
        """An empty block reports few pages: docs/guide.md has the number."""
        code = """
import pagescan
counts = []
for _ in range(5):
    with pagescan.written_pages() as written:
        pass
    counts.append(written.pages)
    del written
print(max(counts[1:]))
"""
        assert int(run(code)) < 120

    @pytest.mark.needs("stranger")
    def test_any_user(self) -> None:
        assert int(run(BLOCK, stranger=True)) >= 256
        assert int(run(TRACK, stranger=True)) >= 256


BLOCK = """
import pagescan
with pagescan.written_pages() as written:
    data = bytearray(b"x") * (1 << 20)
print(written.pages)
"""
TRACK = """
import pagescan
with pagescan.track() as tracking:
    data = bytearray(b"x") * (1 << 20)
    print(sum(region.pages for region in tracking.written()))
"""


def memory_pages(memory: Memory, written: pagescan.WrittenPages) -> set[int]:
    return memory.among(written.batch)


def run(code: str, *, stranger: bool = False) -> str:
    """Run a separate program, optionally as a user without rights."""
    program = python_of_all() if stranger else sys.executable
    assert program is not None
    places = [path for path in sys.path if path]
    done = subprocess.run(
        [program, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=STRANGER if stranger else None,
        group=STRANGER if stranger else None,
        extra_groups=[] if stranger else None,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestTrackOfOneself:
    def test_just_what_was_stored_to(self, memory: Memory) -> None:
        with pagescan.track() as tracking:
            memory.store(3, 4)
            assert memory.among(tracking.look(rearm=True).batch) == {3, 4}
            memory.store(7)
            assert memory.among(tracking.look().batch) == {7}
            assert memory.among(tracking.look(rearm=True).batch) == {7}
            assert tracking.cost.stopped_ns == 0
        assert clean()

    def test_a_forked_child_does_not_end_it(self, memory: Memory) -> None:
        with pagescan.track() as tracking:
            child = os.fork()
            if child == 0:
                tracking.close()
                os._exit(0)
            os.waitpid(child, 0)
            memory.store(3)
            assert memory.among(tracking.look().batch) >= {3}
            assert witness.registered(os.getpid()) > 0

    def test_own_columns_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A look that finds many regions does not report its own large arrays."""
        count = 8000
        wide = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE)
        wide.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(count):
            wide[page * PAGE] = 1
        left_out: set[int] = set()
        whole = ranges.whole_pages

        def remembered(*args: Any) -> ranges.Ranges:
            own = whole(*args)
            for start, end in zip(*own, strict=True):
                left_out.update(range(start, end, PAGE))
            return own

        monkeypatch.setattr(written_scan, "whole_pages", remembered)
        with pagescan.track() as tracking:

            def another_look() -> pagescan.Batch:
                for page in range(0, count, 2):
                    wide[page * PAGE] = 2
                left_out.clear()
                return tracking.look(rearm=True).batch

            another_look()
            another_look()  # the memory of its arrays is used again
            batch = another_look()
        wide.close()
        assert len(left_out) >= 3 * (count // 2 * 8 // PAGE - 1)
        assert not left_out & {region.start for region in batch.pages()}


@pytest.mark.needs("root")
def test_self_is_not_dumpable(tmp_path: Path) -> None:
    """A process that gave up its rights without an exec: a clear refusal."""
    code = f"import os, pagescan.tracking.own_writes; os.setuid({STRANGER})" + BLOCK
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert "AccessDeniedError" in done.stderr
    assert "not dumpable" in done.stderr


@pytest.mark.parametrize("spare", range(4))
def test_few_descriptors_are_left(spare: int, tmp_path: Path) -> None:
    """The first block of a process that may open little more: a clear error."""
    code = (
        "import os, resource, sys, pagescan\n"
        "written = pagescan.written_pages()\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "most = len(os.listdir('/proc/self/fd')) - 1 + int(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))\n"
        "try:\n"
        "    written.__enter__()\n"
        "except pagescan.PagescanError as error:\n"
        "    sys.exit(f'{error}')\n"
    )
    words = [sys.executable, "-c", code, str(spare)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "Traceback" not in done.stderr
    told = "has reached its limit of descriptors (EMFILE)" in done.stderr
    assert told or (spare and done.returncode == 0), done.stderr
