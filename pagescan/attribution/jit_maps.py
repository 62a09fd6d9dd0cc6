"""Names code that a runtime makes while it runs: /tmp/perf-PID.map of the target.

V8 (--perf-basic-prof) and CPython (-X perf) write the file themselves, HotSpot when
jcmd asks it to. The file is below the target's root, and its name has the pid of the
target's own PID namespace.
"""

import os
import re
from array import array
from bisect import bisect_right

from pagescan.attribution.code_files import CodeFiles
from pagescan.target.living import memory_dir
from pagescan.target.process import read_status

_LARGEST = 256 << 20
_PIECE = 4 << 20
_SECONDS = 15
_SIGQUIT = 1 << 2  # the bit of signal 3
_PYTHON = re.compile(r"py::(.*?):(/.*|<.*)")
_NODE = re.compile(
    r"(?:JS|LazyCompile|Function|Script|Eval):[~*^+]*(\S*) (.+?)(?::(\d+))?(?::\d+)?"
)


class JitMap:
    """The functions of one perf map; new lines are read as the file grows."""

    def __init__(self, files: CodeFiles) -> None:
        """Remember the process of the map; nothing is read yet."""
        self._files = files
        self._offset = 0
        self._entries: list[tuple[int, int, bytes]] = []
        self._starts = array("Q")
        self._rest = b""

    def refresh(self) -> bool:
        """Read the lines added since the last call; return whether there were any.

        The file has to belong to the target's user or to root: any other user of the
        machine could have made it.
        """
        name = f"/tmp/perf-{_inner_pid(self._files.pid)}.map"  # noqa: S108 - the runtime chose it
        owners = frozenset({0, *_uids(self._files.pid)})
        fd = self._files.open_named(name.encode(), owners=owners)
        if fd < 0:
            return False
        try:
            text = self._read(fd)
        finally:
            os.close(fd)
        if text:
            self._take(text)
        return bool(text)

    def _read(self, fd: int) -> bytes:
        if os.fstat(fd).st_size < self._offset:  # written again from its beginning
            self._offset, self._rest, self._entries = 0, b"", []
        pieces = []
        while self._offset < _LARGEST:
            piece = os.pread(fd, _PIECE, self._offset)
            if not piece:
                break
            pieces.append(piece)
            self._offset += len(piece)
        text = self._rest + b"".join(pieces) if pieces else b""
        whole = text.rfind(b"\n") + 1
        if pieces:
            self._rest = text[whole:]
        return text[:whole]

    def _take(self, text: bytes) -> None:
        """Add lines; later code replaces earlier code at the same addresses."""
        for line in text.split(b"\n"):
            fields = line.split(b" ", 2)
            try:
                start, size = int(fields[0], 16), int(fields[1], 16)
                self._entries.append((start, start + size, fields[2]))
            except (ValueError, IndexError):
                continue
        newest = {start: (start, end, name) for start, end, name in self._entries}
        self._entries = sorted(e for e in newest.values() if e[1] < 1 << 64)
        self._starts = array("Q", [entry[0] for entry in self._entries])

    def at(self, address: int) -> tuple[bytes, int] | None:
        """Return name and start of the function around an address."""
        last = bisect_right(self._starts, address) - 1
        if last < 0 or address >= self._entries[last][1]:
            return None
        start, _, name = self._entries[last]
        return name, start


def source_of(name: str) -> tuple[str, str | None, int | None]:
    """Return function, file and line that a name of V8 or of CPython holds."""
    found = _PYTHON.fullmatch(name)
    if found:
        return found[1], found[2], None
    found = _NODE.fullmatch(name)
    if found:
        return found[1] or "(anonymous)", found[2], int(found[3]) if found[3] else None
    return name, None, None


def ask_java(pid: int) -> bool:
    """Let HotSpot write its map, by jcmd; return whether it did.

    jcmd sends SIGQUIT, which ends a process that does not catch it: such a process is
    not asked.
    """
    import shutil
    import subprocess

    tool = shutil.which("jcmd")
    try:
        caught = int(read_status(pid)["SigCgt"], 16)
    except (OSError, KeyError, ValueError):
        return False
    if tool is None or not caught & _SIGQUIT:
        return False
    try:
        done = subprocess.run(
            [tool, str(pid), "Compiler.perfmap"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _inner_pid(pid: int) -> int:
    """Return the pid that a process has in its own namespace."""
    try:
        return int(read_status(pid)["NSpid"].split()[-1])
    except (OSError, KeyError, ValueError, IndexError):
        return pid


def _uids(pid: int) -> frozenset[int]:
    try:
        uid = os.stat(memory_dir(pid)).st_uid
        return frozenset({uid, *map(int, read_status(pid)["Uid"].split())})
    except (OSError, KeyError, ValueError):
        return frozenset()
