"""Which mappings may be unregistered in slices, which whole, and which not at all."""

import os

import pytest

from pagescan.tracking import unregistering
from pagescan.tracking.unregistering import (
    WHOLE,
    MapsLine,
    continues,
    may_be_cut,
    tmpfs_of,
    unregister_all,
)

HUGE = 2 << 20
MEMFD, DISK = (0, 1), (8, 1)


def row(start: int, **more: object) -> MapsLine:
    """Return a mapping of 16 MiB of a file on disk, with the given changes."""
    made = MapsLine(start << 24, (start + 1) << 24, "r-xp", 0, DISK, 7, "/lib/c.so", 0)
    return made._replace(**more)  # type: ignore[arg-type]


ANON = {"device": (0, 0), "inode": 0, "name": ""}


@pytest.mark.parametrize(
    ("more", "cut"),
    [
        (ANON, True),
        ({**ANON, "name": "[heap]"}, True),
        ({"device": MEMFD, "name": "/memfd:x (deleted)"}, True),
        ({"device": MEMFD, "name": b"/dev/zero (deleted)"}, True),
        ({"device": MEMFD, "name": "/SYSV00000000 (deleted)"}, False),
        ({"device": MEMFD, "name": b"/SYSV00000000 (deleted)"}, False),
        ({"page_size": 1 << 30, "name": "/dev/hugepages/x"}, True),
        ({}, False),
        ({"name": "/dev/shm/x"}, False),
        ({"name": "/memfd:x (deleted)"}, False),
        ({"inode": 0, "name": "/fuse"}, False),
    ],
)
def test_by_kind(more: dict[str, object], cut: bool) -> None:
    """The device decides, not the file's name; SysV memory is its own kind."""
    assert may_be_cut(row(1, **more), {MEMFD}) is cut


def test_the_rest_of_a_file() -> None:
    """A rest is left if the kernel could merge it with the mapping below it."""
    below, rest = row(1), row(2, offset=1 << 24)
    assert continues(rest, below)
    for other in (
        row(3, offset=1 << 24),  # a hole separates them
        rest._replace(offset=0),
        rest._replace(access="r--p"),
        rest._replace(inode=8),
        rest._replace(device=(8, 2)),
    ):
        assert not continues(other, below)


@pytest.mark.parametrize("registered", [True, False])
def test_order(registered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files from the top down, then memory; continuations of it are left."""
    rows = [
        row(1), row(2, offset=1 << 24), row(3, **ANON),
        row(4, device=MEMFD), row(5, device=MEMFD, offset=1 << 24),
    ]  # fmt: skip
    asked: list[tuple[int, int]] = []
    looked: list[int] = []

    def is_registered(_: int, start: int) -> bool:
        looked.append(start)
        return registered

    def unregister(item: MapsLine, align: int) -> None:
        asked.append((item.start >> 24, align))
        raise OSError

    monkeypatch.setattr(unregistering, "uffd_is_registered", is_registered)
    unregister_all(rows, {MEMFD}, unregister, -1)
    files = [(2, WHOLE), (1, WHOLE)] if registered else [(1, WHOLE)]
    assert asked == [*files, (3, HUGE), (4, HUGE), (5, HUGE)]
    assert looked == [1 << 24]


def test_devices_of_tmpfs() -> None:
    """The device of a memfd is among them; those of disks and /proc are not."""
    found = tmpfs_of(os.getpid())
    memory = os.memfd_create("test")
    device = os.fstat(memory).st_dev
    os.close(memory)
    assert (os.major(device), os.minor(device)) in found
    proc = os.stat("/proc/self").st_dev
    assert (os.major(proc), os.minor(proc)) not in found
    assert tmpfs_of(2**22 + 1) <= found  # no process has this pid
