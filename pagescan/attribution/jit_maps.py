"""Names code that a runtime makes while it runs: /tmp/perf-PID.map of the target.

V8 (--perf-basic-prof) and CPython (-X perf) write the file themselves, HotSpot when
jcmd asks it to. The file is below the target's root, and its name has the pid of the
target's own PID namespace.
"""

import contextlib
import os
import re
import stat
from array import array
from bisect import bisect_right

from pagescan.attribution.code_files import CodeFiles
from pagescan.target.living import memory_dir
from pagescan.target.process import read_status

_FOLDER = "/tmp"  # noqa: S108 - the runtime chose it
_LARGEST = 256 << 20
_PIECE = 4 << 20
_SECONDS = 15
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
        self._was_read: tuple[int, int] | None = None

    def ask_java(self) -> str:
        """Let HotSpot write its map, and read it; return why it did not, or "".

        A file that was not there before is removed again.
        """
        pid = self._files.pid
        with self._files.directory(_FOLDER.encode()) as folder:
            before = _facts(folder, pid)
            if why := ask_java(pid):
                return why
            self._begin_again()
            self.refresh()
            if before is None and self._was_read is not None:
                self._remove(folder)
        return ""

    def _begin_again(self) -> None:
        """Read the file from its start: it was written again."""
        self._offset, self._rest, self._was_read = 0, b"", None

    def _remove(self, folder: int) -> None:
        """Remove the file that was read, if it is still there and the process's own."""
        pid = self._files.pid
        facts = _facts(folder, pid)
        if (
            facts is not None
            and stat.S_ISREG(facts.st_mode)
            and facts.st_uid in _uids(pid)
            and (facts.st_dev, facts.st_ino) == self._was_read
        ):
            with contextlib.suppress(OSError):
                os.unlink(_file_name(pid), dir_fd=folder)

    def refresh(self) -> bool:
        """Read the lines added since the last call; return whether there were any.

        The file has to belong to the target's user or to root: any other user of the
        machine could have made it.
        """
        owners = frozenset({0, *_uids(self._files.pid)})
        name = f"{_FOLDER}/{_file_name(self._files.pid)}"
        fd = self._files.open_named(name.encode(), owners=owners)
        if fd < 0:
            return False
        try:
            facts = os.fstat(fd)
            self._was_read = facts.st_dev, facts.st_ino
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


def ask_java(pid: int) -> str:
    """Let HotSpot write its map, by jcmd; return why it did not, or ""."""
    import shutil
    import subprocess

    try:
        if why := _refusal(pid):
            return why
        tool = shutil.which("jcmd")
        if tool is None:
            return "jcmd is not installed"
        done = subprocess.run(
            [tool, str(pid), "Compiler.perfmap"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"jcmd got no answer from {pid} within {_SECONDS} s"
    except OSError as error:
        return f"{pid} cannot be asked: {(error.strerror or str(error)).lower()}"
    if not done.returncode:
        return ""
    said = (done.stderr or done.stdout).split("\n")
    last = next((line for line in reversed(said) if line.strip()), "")
    return f"jcmd got no answer from {pid}: {last or f'exit code {done.returncode}'}"


def _refusal(pid: int) -> str:
    """Return why a process is not asked: jcmd sends SIGQUIT, which ends some."""
    from pagescan.target import jvm

    if not jvm.is_machine(pid):
        return f"{pid} is not a Java virtual machine"
    if not jvm.is_listening(pid):
        return f"{pid} does not answer jcmd now: it has no handler of SIGQUIT"
    return ""


def _file_name(pid: int) -> str:
    return f"perf-{_inner_pid(pid)}.map"


def _facts(folder: int, pid: int) -> os.stat_result | None:
    """Return the facts of a process's map, of a link itself; None: it is not known."""
    if folder < 0:
        return None
    try:
        return os.stat(_file_name(pid), dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


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
