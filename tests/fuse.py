"""A file system that shows the files of a folder; its server can stop answering.

Run as `python -m tests.fuse PLACE FOLDER`. A line on stdin changes it: "deaf", it reads
no more requests; "mute", it reads them without answering. Its end ends all waits.
"""

import contextlib
import ctypes
import errno
import os
import select
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOKUP, GETATTR, READ, INIT = 1, 3, 15, 26
OPENS = (14, 27)  # OPEN, OPENDIR
ALLOWED = (18, 25, 34)  # RELEASE, FLUSH, ACCESS
UNANSWERED = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET
ROOT = 1  # its node; the files' nodes follow
HERE = Path(__file__).parents[1]
HEADER = struct.Struct("<IIQQIIIHH")


def attributes(node: int, size: int) -> bytes:
    """Return struct fuse_attr."""
    mode = 0o40755 if node == ROOT else 0o100755
    head = struct.pack("<6Q", node, size, (size + 511) // 512, 0, 0, 0)
    return head + struct.pack("<10I", 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(opcode: int, node: int, body: bytes, files: dict[str, bytes]) -> bytes | int:
    """Return the answer, or an errno. Nothing is cached: it is asked each time."""
    names = [*files]
    data = b"" if node == ROOT else files[names[node - ROOT - 1]]
    found: bytes | int = errno.ENOSYS
    if opcode == INIT:
        found = struct.pack("<4IHHII36x", 7, 31, 65536, 0, 12, 9, 65536, 1)
    elif opcode == LOOKUP:
        name = body[:-1].decode()
        found = errno.ENOENT
        if name in files:
            node = ROOT + 1 + names.index(name)
            found = struct.pack("<Q32x", node) + attributes(node, len(files[name]))
    elif opcode == GETATTR:
        found = bytes(16) + attributes(node, len(data))
    elif opcode in OPENS:
        found = struct.pack("<QIi", 0, 2, 0)  # FOPEN_KEEP_CACHE
    elif opcode == READ:
        at, length = struct.unpack_from("<8xQI", body)
        found = data[at : at + length]
    elif opcode in ALLOWED:
        found = b""
    return found


def serve(place: str, folder: str) -> None:
    """Mount it and answer, until told otherwise."""
    files = {
        one.name: one.read_bytes() for one in Path(folder).iterdir() if one.is_file()
    }
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"deaf", os.fsencode(place), b"fuse", 0, options.encode()):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    os.write(1, b"mounted\n")
    word = ""
    while word != "deaf":
        ready = select.select([fuse, 0], [], [])[0]
        if 0 in ready:
            line = os.read(0, 64).decode()
            if not line:
                return
            word = line.strip()
            os.write(1, line.encode())
        if fuse in ready:
            text = os.read(fuse, 1 << 20)
            _, opcode, unique, node, *_ = HEADER.unpack_from(text)
            if word == "mute" or opcode in UNANSWERED:
                continue
            found = answer(opcode, node, text[HEADER.size :], files)
            error, out = (-found, b"") if isinstance(found, int) else (0, found)
            os.write(fuse, struct.pack("<IiQ", 16 + len(out), error, unique) + out)
    os.read(0, 1)  # deaf


@dataclass
class Mounted:
    """The file system, and its server."""

    place: Path
    server: subprocess.Popen[str]

    def become(self, word: str) -> None:
        """Make the server stop answering."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(word + "\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline().strip() == word


@contextlib.contextmanager
def mounted(place: Path, folder: Path) -> Iterator[Mounted]:
    """Mount it during the block; it must not be touched once it is deaf."""
    words = [sys.executable, "-m", "tests.fuse", str(place), str(folder)]
    with subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HERE,
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "mounted\n"
        try:
            yield Mounted(place, server)
        finally:
            server.kill()
            server.wait()
            subprocess.run(["umount", "-l", str(place)], check=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
