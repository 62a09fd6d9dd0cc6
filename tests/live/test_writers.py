"""Every way to store to a page, and those ways that the kernel cannot see."""

import ctypes
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PAGE, Result, Target

pytestmark = pytest.mark.needs("tracking")
Start = Callable[..., Target]
Run = Callable[..., Result]


class Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@pytest.mark.parametrize(
    "how", ["kdirect", pytest.param("kring", marks=pytest.mark.needs("io_uring"))]
)
@pytest.mark.parametrize(
    "kind", ["anon,pages=32,fill=1", "anon,pages=32", "shmem,pages=32"]
)
def test_reads_past_the_page_cache(
    how: str, kind: str, armed: Start, pagescan: Run
) -> None:
    """O_DIRECT and io_uring store through pages that they pin briefly."""
    made = armed(f"m={kind}")
    made.tell(f"{how} m 3-4,9")
    look = pagescan("diff", made.pid, "--rearm", "--json").json()
    assert made.pages(look, "m") == {3, 4, 9}
    made.tell(f"{how} m 9-10")
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {9, 10}


def test_another_process_writes(armed: Start, pagescan: Run) -> None:
    """process_vm_writev(2) by another process is found."""
    made = armed("m=anon,pages=32,fill=1")
    data = ctypes.create_string_buffer(b"outside")
    local = Vector(ctypes.addressof(data), 7)
    remote = Vector(made.ranges["m"][0] + 11 * PAGE, 7)
    libc = ctypes.CDLL(None, use_errno=True)
    sent = libc.process_vm_writev(
        made.pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0
    )
    assert sent == 7, os.strerror(ctypes.get_errno())
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {11}


def test_another_scan_hides_writes(armed: Start, pagescan: Run) -> None:
    """Any process that may open the pagemap can re-protect tracked pages.

    This is a limit of the kernel, named in the docs; if this fails, it is gone.
    """
    made = armed("m=anon,pages=32,fill=1")
    made.tell("write m 3-9")
    start, end = made.ranges["m"]
    # struct pm_scan_arg: PM_SCAN_WP_MATCHING on what has PAGE_IS_WRITTEN.
    words = (96, 1, start, start + 4 * PAGE, 0, 0, 0, 0, 0, 2, 0, 0)
    argument = bytearray(b"".join(word.to_bytes(8, "little") for word in words))
    with open(f"/proc/{made.pid}/pagemap", "rb") as pagemap:
        fcntl.ioctl(pagemap, 0xC0606610, argument)
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {4, 5, 6, 7, 8, 9}
    assert end > start


def test_the_same_value_again(armed: Start, pagescan: Run) -> None:
    """A store of the same value counts; a byte compare would not find it."""
    made = armed("m=anon,pages=32,fill=1")
    for pages in ({3, 4}, {4, 9}):
        made.tell(f"zero m {','.join(map(str, sorted(pages)))}")
        look = pagescan("diff", made.pid, "--rearm", "--json").json()
        assert made.pages(look, "m") == pages


@pytest.mark.parametrize("how", ["alias", "kwrite"])
def test_another_way_to_shared_memory_is_not_seen(
    how: str, armed: Start, pagescan: Run
) -> None:
    """The kernel tracks page tables, not pages: contract and docs say so."""
    made = armed("m=memfd,pages=32,shared=1,fill=1")
    made.tell(f"{how} m 3-4")
    made.write("m", {9})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") == {9}


@pytest.mark.needs("io_uring")
def test_pinned_buffers_are_seen_once(target: Start, pagescan: Run) -> None:
    """The kernel's stores to buffers pinned before take no fault: not seen."""
    made = target("m=anon,pages=32,fill=1")
    made.tell("pin m 0-7")
    assert pagescan("arm", made.pid).code == 0
    made.tell("kpinned m 2")
    made.write("m", {9})
    look = pagescan("diff", made.pid, "--json").json()
    assert made.pages(look, "m") - {2} == {9}
    documented = Path(__file__).parents[2] / "docs/exactness.md"
    assert "fixed buffers" in documented.read_text()
