"""Changes settings of the machine for a test, and restores them even if it fails."""

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests import witness

HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
KSM = Path("/sys/kernel/mm/ksm")


@contextlib.contextmanager
def setting(path: Path, value: object) -> Iterator[None]:
    """Write a value to a file of /proc/sys or /sys during the block."""
    before = path.read_text().strip()
    if chosen := re.search(r"\[(.+?)\]", before):  # "always [madvise] never"
        before = chosen[1]
    path.write_text(f"{value}\n")
    try:
        yield
    finally:
        path.write_text(f"{before}\n")


@contextlib.contextmanager
def huge_pages(count: int) -> Iterator[None]:
    """Reserve some additional huge pages during the block."""
    with setting(HUGE_PAGES, int(HUGE_PAGES.read_text()) + count):
        yield


@contextlib.contextmanager
def swap_file(mebibytes: int) -> Iterator[None]:
    """Provide swap in a real file during the block, if there is no swap yet."""
    if len(Path("/proc/swaps").read_text().splitlines()) > 1:
        yield
        return
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="pagescan-swap-") as file:
        os.posix_fallocate(file.fileno(), 0, mebibytes << 20)
        subprocess.run(["mkswap", file.name], check=True, capture_output=True)
        subprocess.run(["swapon", file.name], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", file.name], check=True)


@contextlib.contextmanager
def tmpfs(place: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs during the block."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    subprocess.run(words, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextlib.contextmanager
def frozen(pid: int, place: Path) -> Iterator[None]:
    """Freeze a process during the block, as `docker pause` does."""
    mounted = place / "cgroup"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "cgroup2", str(mounted)], check=True)
    group = mounted / f"pagescan-tests-{os.getpid()}"
    try:
        group.mkdir()
        (group / "cgroup.procs").write_text(f"{pid}\n")
        (group / "cgroup.freeze").write_text("1\n")
        witness.wait_for(lambda: "frozen 1" in (group / "cgroup.events").read_text())
        yield
    finally:
        (group / "cgroup.freeze").write_text("0\n")
        (mounted / "cgroup.procs").write_text(f"{pid}\n")
        group.rmdir()
        subprocess.run(["umount", "-l", str(mounted)], check=True)


CONTROLLERS = {
    # the limit's file in cgroup v1 and in v2
    "cpu": ("cpu.cfs_period_us", "cpu.max"),
    "memory": ("memory.limit_in_bytes", "memory.max"),
    "freezer": ("freezer.state", "cgroup.freeze"),
}


def has_controller(name: str) -> str | None:
    """Return why a cgroup with a controller cannot be made here; None: it can."""
    if os.geteuid():
        return "only root makes cgroups"
    return None if _hierarchy(name) else f"no cgroup has the controller {name}"


def _hierarchy(controller: str) -> tuple[Path, bool] | None:
    """Return a mounted hierarchy with a controller, and whether it is cgroup v2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place, kind, options = line.split()[1:4]
        if kind == "cgroup" and controller in options.split(","):
            return Path(place), False
        given = Path(place) / "cgroup.subtree_control"
        if kind == "cgroup2" and controller in given.read_text().split():
            return Path(place), True
    return None


@contextlib.contextmanager
def cgroup(controller: str, value: str) -> Iterator[Path]:
    """Make a cgroup with a limit, as v2 writes it; who is left in it is moved out.

    Args:
        controller: "cpu": "QUOTA PERIOD" in microseconds; "memory": bytes.
        value: The limit.
    """
    found = _hierarchy(controller)
    assert found
    root, unified = found
    group = root / f"pagescan-tests-{os.getpid()}"
    group.mkdir()
    try:
        if unified:
            (group / CONTROLLERS[controller][1]).write_text(value)
        else:
            quota, *period = value.split()
            (group / CONTROLLERS[controller][0]).write_text((period or [quota])[0])
            if period:
                (group / "cpu.cfs_quota_us").write_text(quota)
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (root / "cgroup.procs").write_text(pid)
        group.rmdir()


@contextlib.contextmanager
def merging() -> Iterator[None]:
    """Let KSM merge as fast as it can during the block; then unmerge all pages."""
    with (
        setting(KSM / "sleep_millisecs", 1),
        setting(KSM / "pages_to_scan", 5000),
        setting(KSM / "run", 1),
    ):
        yield


def merged(pid: int) -> int:
    """Return how many pages of a process KSM has merged."""
    return int(Path(f"/proc/{pid}/ksm_merging_pages").read_text())


def wait_for_scans(count: int) -> None:
    """Wait until KSM has scanned all memory this many more times."""
    scans = KSM / "full_scans"
    end = int(scans.read_text()) + count
    witness.wait_for(lambda: int(scans.read_text()) >= end, 30)


def postgres() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs; None: not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    return found[-1].parent if found else None
