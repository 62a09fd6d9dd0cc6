"""The pytest plugin, in a separate pytest."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LIBRARY = Path(__file__).parents[2]

SUITE = """
import mmap
import pytest
import pagescan

kept = []

def spend(pages):
    memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE)
    for page in range(pages):
        memory[page * 4096] = 1
    kept.append(memory)  # what is unmapped by the end is not counted

@pytest.mark.dirty_pages(max=4000)
def test_little():
    spend(10)

@pytest.mark.dirty_pages(max=2000)
def test_much():
    spend(3000)

@pytest.mark.dirty_pages(max_bytes="8M")
def test_many_bytes():
    spend(3000)

@pytest.mark.dirty_pages(max_bytes="64M")
def test_few_bytes():
    spend(3000)

def test_part(dirty_pages):
    spend(3000)
    with dirty_pages(max=2000) as written:
        spend(10)
    assert 10 <= written.pages

def test_part_too_much(dirty_pages):
    with dirty_pages(max_bytes=1 << 20):
        spend(3000)

@pytest.mark.dirty_pages(max=4000)
def test_both(dirty_pages):
    with dirty_pages() as written:
        spend(10)
    assert written.pages >= 10

@pytest.mark.dirty_pages(max=1)
def test_own_failure_comes_first():
    raise KeyError("mine")

@pytest.mark.dirty_pages(max_bytes="many")
def test_no_size():
    pass

@pytest.mark.dirty_pages(5)
def test_positional():
    pass

@pytest.mark.dirty_pages(maximum=5, ranges=["[heap]"])
def test_slip_of_the_pen():
    pass

@pytest.mark.dirty_pages(max="500")
def test_no_number():
    pass

@pytest.mark.dirty_pages(max=True)
def test_truth():
    pass

@pytest.mark.dirty_pages(max_bytes=-5)
def test_below_zero():
    pass

@pytest.mark.dirty_pages(max_bytes=[1])
def test_no_bytes():
    pass

@pytest.mark.dirty_pages(ranges=5)
def test_no_ranges():
    pass
"""


@pytest.mark.needs("tracking")
def test_limits(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")
    result.assert_outcomes(passed=4, failed=12)
    result.stdout.fnmatch_lines(
        [
            "*the test wrote * pages (* MiB), more than max=2000 allows*",
            "*pages  mapping*",
            "*   *  0x*-0x*  *new*",
            "*region, the largest first*",
            "*the test wrote * more than max_bytes='8M' allows*",
            "*the block wrote * more than max_bytes=1048576 allows*",
            "*KeyError: 'mine'*",
            "*dirty_pages: max_bytes: not a size: 'many'*",
            "*dirty_pages takes max=, max_bytes= and ranges=, and not 5",
            "*dirty_pages takes max=, max_bytes= and ranges=, and not maximum=",
            "*dirty_pages: max: not a number of pages: '500'",
            "*dirty_pages: max: not a number of pages: True",
            "*dirty_pages: max_bytes: not a number of bytes: -5",
            "*dirty_pages: max_bytes: not a number of bytes: [[]1]",
            "*dirty_pages: ranges: no RANGE words: 5",
        ]
    )


FREED = """
import pytest

@pytest.mark.dirty_pages(max=500 + 2000)
def test_large_temporary():
    bytearray(b"x") * (40 << 20)

@pytest.mark.dirty_pages(max=500 + 2000)
def test_small_objects():
    [object() for _ in range(2_000_000)]

@pytest.mark.dirty_pages(max_bytes="64M")
def test_memory_is_used_again():
    for _ in range(20):
        bytearray(b"x") * (8 << 20)
        [object() for _ in range(100_000)]

def test_part(dirty_pages):
    with dirty_pages() as written:
        bytearray(b"x") * (40 << 20)
    assert 10_240 <= written.pages <= 12_000

@pytest.mark.dirty_pages(max=20_000)
def test_both_keep_it(dirty_pages):
    with dirty_pages() as inner:
        bytearray(b"x") * (20 << 20)
    assert inner.pages >= 5120

def test_memory_is_freed_afterwards(dirty_pages):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])
    before = resident()
    with dirty_pages():
        bytearray(b"x") * (100 << 20)
        [object() for _ in range(2_000_000)]
    assert resident() - before < 8000  # of 38,000 and more
"""


@pytest.mark.needs("tracking")
def test_freed_memory_counts(pytester: pytest.Pytester) -> None:
    """A temporary that is gone at the end was written all the same, and counts once."""
    pytester.makepyfile(FREED)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-v")
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*the test wrote 1[01]??? pages (4?.? MiB), more than max=2500 allows*",
            "*the test wrote * pages (* MiB), more than max=2500 allows*",
        ]
    )


BROKEN = """
import pytest
from pagescan import native

@pytest.fixture(autouse=True)
def no_userfaultfd(monkeypatch):
    def fail():
        raise OSError(38, "not there")
    monkeypatch.setattr(native, "uffd_open", fail)

@pytest.mark.dirty_pages(max=4000)
def test_marked():
    pass

def test_part(dirty_pages):
    with dirty_pages(max=10):
        pass
"""


def test_where_nothing_can_be_told(pytester: pytest.Pytester) -> None:
    """Where tracking is impossible it skips, or fails if it is required."""
    pytester.makepyfile(BROKEN)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*dirty_pages cannot track here: cannot create*"])
    result = pytester.runpytest_subprocess("--dirty-pages-required")
    result.assert_outcomes(failed=2)
    pytester.makeini("[pytest]\ndirty_pages_required = true")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=2)


def test_marker_is_registered(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--markers")
    result.stdout.fnmatch_lines(["@pytest.mark.dirty_pages(max=*"])
