"""The exporter's units, unchanged, under a systemd that is process 1 of a namespace.

PAGESCAN_SYSTEMD=1 turns it on: it needs root, and makes cgroups, namespaces and an
overlay of /usr/bin. The systemd has units of its own, the files of share/ among them,
and its own /run; it may change nothing of the machine.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import witness
from tests.conftest import HERE

pytestmark = [
    pytest.mark.switched("PAGESCAN_SYSTEMD"),
    pytest.mark.needs("root", "tracking", "systemd-analyze"),
    pytest.mark.timeout(180),
]

SHARE = HERE.parent / "share"
TARGETS = (
    *("sysinit", "basic", "shutdown", "network", "sockets", "multi-user", "umount"),
    "tests",
)
INNER = """
set -e
mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
mkdir -p {work}/over && mount -t tmpfs tmpfs {work}/over
mkdir {work}/over/upper {work}/over/work {work}/over/etc
layers=lowerdir=/usr/bin,upperdir={work}/over/upper,workdir={work}/over/work
mount -t overlay -o $layers overlay /usr/bin
cp {work}/pagescan /usr/bin/pagescan
mount --bind {work}/units /usr/lib/systemd/system
mount --bind {work}/over/etc /etc/systemd/system
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /sys/fs/cgroup
{cgroups}
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
exec env -i container=tests PATH=/usr/bin:/bin:/usr/sbin:/sbin /lib/systemd/systemd \
    --system --unit=tests.target --show-status=no --log-target=console \
    --default-standard-output=inherit --default-standard-error=inherit
"""
SCRAPE = """
from urllib.request import urlopen
answer = urlopen("http://127.0.0.1:9842/metrics", timeout=60)
print(answer.read().decode(), end="")
"""
LOAD = """[Unit]
DefaultDependencies=no
[Service]
ExecStart={python} -c "import time; m = bytearray(1 << 22)\\nwhile 1:\\n for at in \
range(0, 1 << 22, 4096): m[at] = (m[at] + 1) %% 256\\n time.sleep(0.05)"
"""


class Systemd:
    """A systemd, and commands inside its namespaces.

    Attributes:
        log: What it and its services have said.
    """

    def __init__(self, work: Path, folders: list[Path], cgroups: str) -> None:
        self.log = work / "log"
        enter = [
            f"echo $$ > {shlex.quote(str(folder / 'cgroup.procs'))}"
            for folder in folders
        ]
        inner = shlex.quote(INNER.format(work=work, cgroups=cgroups))
        script = (
            "; ".join(enter) + f"; exec unshare -mpfCuni --kill-child sh -c {inner}"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", script], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        witness.wait_for(self._runs)

    def _runs(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split()
        if not found:
            return False
        self.init = int(found[0])
        with contextlib.suppress(subprocess.CalledProcessError):
            return "active" in self.run("systemctl", "is-active", "tests.target")
        return False

    def run(self, *words: str) -> str:
        """Run a command there; return what it prints."""
        return subprocess.run(
            ["nsenter", "-t", str(self.init), "-a", *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    def write(self, path: str, text: str) -> None:
        """Write a file of its /run."""
        where = Path(f"/proc/{self.init}/root{path}")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)
        self.run("systemctl", "daemon-reload")

    def shown(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", name, unit).strip()

    def scraped(self) -> dict[str, float]:
        """Return the samples of a scrape over loopback; the service may yet begin."""
        end, text = time.monotonic() + 30, ""
        while not text:
            try:
                text = self.run(sys.executable, "-c", SCRAPE)
            except subprocess.CalledProcessError:
                assert time.monotonic() < end, self.log.read_text()
        rows = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
        return {name: float(value) for name, _, value in rows}

    def close(self) -> None:
        """End it with all its processes."""
        self.process.kill()
        self.process.wait()


def cgroup_mounts() -> list[tuple[Path, str]]:
    """Return where each hierarchy of cgroups is mounted, and its controllers."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.append((Path(place), ""))
        elif kind == "cgroup":
            names = set(options.split(",")) & {
                *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio"),
                *("pids", "name=systemd"),
            }
            found.append((Path(place), ",".join(sorted(names))))
    return found


@contextlib.contextmanager
def own_cgroups() -> Iterator[tuple[list[Path], str]]:
    """Make a cgroup in each hierarchy; yield them, and commands that mount them."""
    folders, lines = [], []
    mounts = cgroup_mounts()
    try:
        for place, names in mounts:
            folder = place / f"pagescan-tests-{os.getpid()}"
            folder.mkdir()
            folders.append(folder)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (folder / name).exists():
                    (folder / name).write_text((place / name).read_text())
            inside = (
                "/sys/fs/cgroup" if len(mounts) == 1 else f"/sys/fs/cgroup/{place.name}"
            )
            lines.append(f"mkdir -p {inside}")
            if not names:
                lines.append(f"mount -t cgroup2 cgroup2 {inside}")
            else:
                words = names.replace("name=systemd", "none,name=systemd")
                lines.append(f"mount -t cgroup -o {words} cgroup {inside}")
        yield folders, "\n".join(lines)
    finally:
        for folder in folders:
            below = [Path(name) for name, _, _ in os.walk(folder, topdown=False)]
            for one in below:
                witness.wait_for(lambda: not (one / "cgroup.procs").read_text())  # noqa: B023
                one.rmdir()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    """Start a systemd with the units of share/, and a service that writes memory."""
    units = tmp_path / "units"
    units.mkdir()
    for name in TARGETS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    for name in ("pagescan-exporter.service", "pagescan-exporter.socket"):
        (units / name).write_text((SHARE / name).read_text())
    (units / "load.service").write_text(LOAD.format(python=sys.executable))
    program = tmp_path / "pagescan"
    package = shlex.quote(str(HERE.parent))
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={package} exec {sys.executable} -m pagescan "$@"\n'
    )
    program.chmod(0o755)
    with own_cgroups() as (folders, lines):
        made = Systemd(tmp_path, folders, lines)
        try:
            yield made
        finally:
            made.close()


EXPORTER = "pagescan-exporter.service"
DROP_IN = f"/run/systemd/system/{EXPORTER}.d/"


def test_the_units_run(systemd: Systemd) -> None:
    """The service is scraped, then its socket starts it, then it tracks a service."""
    systemd.run("systemctl", "start", "load.service", EXPORTER)
    found = systemd.scraped()
    assert found["pagescan_up"] == 1
    assert found["pagescan_unread_processes"] == 0
    assert found['pagescan_processes{group="systemd"}'] == 1  # it belongs to root
    main = systemd.shown(EXPORTER, "MainPID")
    status = systemd.run("cat", f"/proc/{main}/status").splitlines()
    facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert facts["CapEff"] == f"{1 << 19 | 1 << 2:016x}"  # PTRACE, DAC_READ_SEARCH
    assert facts["Uid"].split()[0] != "0"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    systemd.run("systemctl", "stop", EXPORTER)
    assert systemd.shown(EXPORTER, "Result") == "success"
    assert systemd.shown(EXPORTER, "ExecMainStatus") == "0"

    command = "/usr/bin/pagescan exporter --listen systemd --unit load --track -i 0.5"
    systemd.write(
        f"{DROP_IN}socket.conf", f"[Service]\nExecStart=\nExecStart={command}\n"
    )
    systemd.run("systemctl", "start", "pagescan-exporter.socket")
    assert systemd.shown(EXPORTER, "ActiveState") == "inactive"
    found = systemd.scraped()
    denied = 'pagescan_untracked_bytes{group="load.service",reason="access denied"}'
    assert found[denied] > 1 << 22
    more = "CAP_DAC_OVERRIDE CAP_SYS_NICE CAP_CHECKPOINT_RESTORE"
    systemd.write(f"{DROP_IN}more.conf", f"[Service]\nAmbientCapabilities={more}\n")
    systemd.run("systemctl", "restart", EXPORTER)
    written = 'pagescan_written_bytes_total{group="load.service",kind="anon"}'
    witness.wait_for(lambda: systemd.scraped().get(written, 0) > 1 << 22)
    load = systemd.shown("load.service", "MainPID")
    flags = systemd.run("grep", "-c", "^VmFlags.* uw", f"/proc/{load}/smaps")
    assert int(flags) > 0
    systemd.run("systemctl", "stop", "pagescan-exporter.socket", EXPORTER)
    assert systemd.shown(EXPORTER, "Result") == "success"
    assert " uw" not in systemd.run("cat", f"/proc/{load}/smaps")
    assert systemd.shown("load.service", "ActiveState") == "active"
