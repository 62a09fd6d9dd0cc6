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
"""


@pytest.mark.needs("tracking")
def test_limits(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "--strict-markers")
    result.assert_outcomes(passed=4, failed=6)
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
            "*dirty_pages takes max=, max_bytes= and ranges=*",
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
