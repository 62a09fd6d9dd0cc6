"""Boots a machine with another kernel, in QEMU without KVM, on the files of this one.

The guest sees this machine's root read-only; what it writes goes to a tmpfs of its own.
"""

import ctypes
import io
import lzma
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.kernels.archive import Archive, UnavailableError, run

# Modules that the root file system needs; a kernel may have some built in.
_MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay")
_QEMU = "qemu-system-x86_64"
_ALARMING = re.compile(r"WARNING:|BUG:|Oops|panic|soft lockup|Out of memory|^init: ")
_PR_SET_PDEATHSIG = 1
_BOOT = 300  # seconds; it takes about 10


class Kernel(NamedTuple):
    """A kernel that boots.

    Attributes:
        release: As printed by uname -r.
        image: The kernel's image.
        initrd: Its modules and the first process.
    """

    release: str
    image: Path
    initrd: Path


class Outcome(NamedTuple):
    """How a machine's run ended.

    Attributes:
        status: Exit status of the command; None: it did not finish.
        output: The output of the command.
        console: The alarming kernel messages; all messages if there is no status.
        seconds: From power on to off.
    """

    status: int | None
    output: str
    console: str
    seconds: float


def prepare(archive: Archive, release: str) -> Kernel:
    """Return a kernel from the cache or the archive.

    Raises:
        UnavailableError: The kernel is not available.
    """
    home = archive.cache / release
    made = Kernel(release, home / "vmlinuz", home / "initrd")
    with tempfile.TemporaryDirectory(dir=archive.cache) as scratch:
        if not made.image.exists():
            tree = Path(scratch) / "tree"
            archive.fetch(release, tree)
            part = Path(scratch) / "part"
            part.mkdir()
            images = [
                *tree.glob("boot/vmlinuz-*"),
                *tree.glob("usr/lib/modules/*/vmlinuz"),
            ]
            if not images:
                raise UnavailableError(f"{release}: its package has no kernel")
            shutil.copy(images[0], part / "vmlinuz")
            for number, data in enumerate(_in_order(tree)):
                (part / f"module-{number}").write_bytes(data)
            part.rename(home)
        program = Path(scratch) / "init"
        source = Path(__file__).with_name("init.c")
        run("cc", "-static", "-O1", "-Wall", "-o", program, source)
        modules = sorted(home.glob("module-*"), key=lambda path: int(path.name[7:]))
        made.initrd.write_bytes(_packed(program, modules))
    return made


def _in_order(tree: Path) -> Iterator[bytes]:
    """Yield the needed modules, each after the modules that it depends on."""
    paths: dict[str, Path] = {}
    for path in tree.glob("**/*.ko*"):
        paths[path.name.partition(".")[0].replace("-", "_")] = path
    done: set[str] = set()

    def with_needed(name: str) -> Iterator[bytes]:
        if name in done or name not in paths:  # others are built in
            return
        done.add(name)
        data = paths[name].read_bytes()
        if paths[name].suffix == ".xz":
            data = lzma.decompress(data)
        needed = re.search(rb"\0depends=([^\0]*)\0", data)
        for other in needed[1].decode().split(",") if needed else ():
            yield from with_needed(other.replace("-", "_"))
        yield data

    for name in _MODULES:
        yield from with_needed(name)


def _packed(program: Path, modules: list[Path]) -> bytes:
    """Return an initramfs; source: Documentation/driver-api/early-userspace."""
    out = io.BytesIO()

    def add(name: str, mode: int, data: bytes = b"") -> None:
        fields = [0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields))
        for part in (name.encode() + b"\0", data):
            out.write(part)
            out.write(bytes(-out.tell() % 4))

    add("init", 0o100755, program.read_bytes())
    add("modules", 0o040755)
    for number, path in enumerate(modules):
        add(f"modules/{number}", 0o100644, path.read_bytes())
    add("TRAILER!!!", 0)
    return out.getvalue()


def boot(
    kernel: Kernel,
    words: list[str],
    shared: Path,
    *,
    memory: str,
    limit: float,
    processors: int = 2,
) -> Outcome:
    """Run a command under a kernel.

    Args:
        kernel: The kernel to boot.
        words: The command; it runs in this directory.
        shared: A folder that the guest writes to, as /run/shared.
        memory: The guest's memory in QEMU's notation; it swaps to the empty /dev/vda.
        limit: Seconds after which the machine is turned off.
        processors: How many the guest has.
    """
    path, here = (shlex.quote(word) for word in (os.environ["PATH"], os.getcwd()))
    (shared / "command").write_text(
        f"export HOME=/root TMPDIR=/tmp LC_ALL=C.UTF-8 PATH={path}\n"
        f"cd {here} && exec {shlex.join(words)}\n"
    )
    console, disk = shared / "console", shared / "disk"
    for name in "output", "console", "status":
        (shared / name).unlink(missing_ok=True)  # of an earlier try
    with disk.open("wb") as file:
        file.truncate(1 << 30)
    begun = time.monotonic()
    machine = subprocess.Popen(
        ["nice", "-n", "15", *_qemu(kernel, shared, disk, memory, processors)],
        stdin=subprocess.DEVNULL,
        preexec_fn=_end_with_us,  # noqa: PLW1509 - no threads here
    )
    try:
        _wait(machine, shared, limit)
    finally:
        if machine.poll() is None:
            machine.kill()
            machine.wait()
        disk.unlink()
    said = console.read_text(errors="replace") if console.exists() else ""
    status = shared / "status"
    ended = int(status.read_text()) if status.exists() else None
    if ended is not None:
        said = "\n".join(line for line in said.splitlines() if _ALARMING.search(line))
    output = shared / "output"
    printed = output.read_text(errors="replace") if output.exists() else ""
    return Outcome(ended, printed, said, time.monotonic() - begun)


def _wait(machine: subprocess.Popen[bytes], shared: Path, limit: float) -> None:
    """Wait for the end; a kernel that has not booted in time is not waited for."""
    with suppress(subprocess.TimeoutExpired):
        machine.wait(min(limit, _BOOT))
    if (shared / "output").exists():
        with suppress(subprocess.TimeoutExpired):
            machine.wait(max(limit - _BOOT, 0))


def _qemu(
    kernel: Kernel, shared: Path, disk: Path, memory: str, processors: int
) -> list[str]:
    folder = "security_model=none,multidevs=remap"
    threads = "multi" if processors > 1 else "single"
    return [
        *(_QEMU, "-machine", "q35,mem-merge=off", "-accel", f"tcg,thread={threads}"),
        *("-cpu", "max,la57=off", "-smp", str(processors), "-m", memory),
        *(
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            f"file:{shared / 'console'}",
        ),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initrd), "-append"),
        "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr"
        " random.trust_cpu=on transparent_hugepage=madvise",
        *("-virtfs", f"local,path=/,mount_tag=root,readonly=on,{folder}"),
        *("-virtfs", f"local,path={shared},mount_tag=shared,{folder}"),
        *("-drive", f"file={disk},format=raw,if=none,id=swap,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=swap"),
    ]


def _end_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def own_folder(place: Path) -> Path | None:
    """Return the folder around a place that a machine has of its own, or None."""
    of_its_own = (Path("/tmp"), Path("/run"), Path("/dev"))
    return next((one for one in of_its_own if place.is_relative_to(one)), None)


def has_qemu() -> bool:
    """Whether QEMU for these machines is installed."""
    return shutil.which(_QEMU) is not None
