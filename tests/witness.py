"""The second witness: reads the kernel's other interfaces, with no code of pagescan.

It decodes pagemap words, reads smaps, and copies memory for comparison byte by byte.
Source: Documentation/admin-guide/mm/pagemap.rst, proc_pid_smaps(5).
"""

import contextlib
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE")
PATIENCE = float(os.environ.get("PAGESCAN_PATIENCE", "1"))
"""Factor for all time limits: an emulated machine is slow."""

PRESENT, SWAPPED, FILE, GUARD, UFFD_WP = 1 << 63, 1 << 62, 1 << 61, 1 << 58, 1 << 57
SWAP_TYPE, MARKER = 0x1F, 31


def words(pid: int, start: int, end: int) -> list[int]:
    """Return the pagemap word of each page in [start, end)."""
    fd = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY)
    try:
        data = os.pread(fd, (end - start) // PAGE * 8, start // PAGE * 8)
    finally:
        os.close(fd)
    return [word for (word,) in struct.iter_unpack("<Q", data)]


def written(pid: int, start: int, end: int) -> set[int]:
    """Return the pages of armed private memory that are populated and unprotected."""
    return {
        index
        for index, word in enumerate(words(pid, start, end))
        if word & (PRESENT | SWAPPED) and not word & (UFFD_WP | GUARD)
    }


def present(pid: int, start: int, end: int) -> set[int]:
    """Return the pages that are in the page table."""
    return {
        index for index, word in enumerate(words(pid, start, end)) if word & PRESENT
    }


def swapped(pid: int, start: int, end: int) -> set[int]:
    """Return the pages that are on swap, without markers."""
    return {
        index
        for index, word in enumerate(words(pid, start, end))
        if word & SWAPPED and not is_marker(word)
    }


def is_marker(word: int) -> bool:
    """Whether an entry is a marker: no page is present, and none is on swap."""
    return bool(word & SWAPPED) and word & SWAP_TYPE == MARKER


def smaps(pid: int, field: str) -> dict[int, str]:
    """Return a field of smaps by the start of the mapping, as text."""
    found: dict[int, str] = {}
    start = 0
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            found[start] = value.strip()
        elif "-" in key:
            start = int(key.partition("-")[0], 16)
    return found


def registered(pid: int) -> int:
    """Return how many mappings are registered for write-protect (VmFlags: uw)."""
    return sum(" uw" in f" {flags} " for flags in smaps(pid, "VmFlags").values())


def status(pid: int, field: str) -> str:
    """Return a field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return value.strip()
    raise KeyError(field)


def descriptors(pid: int) -> dict[str, str]:
    """Return the open descriptors of a process, with the files that they refer to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process by SIGSTOP during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: status(pid, "State")[0] == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def memory(pid: int) -> dict[int, bytes]:
    """Return the populated pages of writable private memory, by address."""
    pages: dict[int, bytes] = {}
    fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            span, perms, *_ = line.split(None, 2)
            if perms[1] != "w" or perms[3] != "p":
                continue
            start, end = (int(word, 16) for word in span.split("-"))
            entries = words(pid, start, end)
            index = 0
            while index < len(entries):  # one read per run: one per page takes minutes
                stop = index
                while stop < len(entries) and entries[stop] & (PRESENT | SWAPPED):
                    stop += 1
                low = start + index * PAGE
                data = os.pread(fd, (stop - index) * PAGE, low) if stop > index else b""
                for at in range(0, len(data), PAGE):
                    pages[low + at] = data[at : at + PAGE]
                index = stop + 1
    finally:
        os.close(fd)
    return pages


def wait_for(fact: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a function returns a true value; fail after a time limit."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not fact():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
