"""Names are not to be had at any price: servers that do not answer, hostile files."""

import http.server
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagescan.attribution import debug_files, elf, tables
from pagescan.attribution.code_files import CodeFiles
from pagescan.attribution.symbols import Symbols
from tests import fuse, witness
from tests.conftest import HERE
from tests.live.test_hard_targets import build as build_hard
from tests.live.test_symbols import Start, build, split, start

__all__ = ["start"]

NAME_ALL = """
import sys
from array import array
from pagescan.attribution.symbols import Symbols
symbols = Symbols(int(sys.argv[1]))
starts = [mapping.start + 4096 for mapping in symbols._mappings]
print(len(symbols.name(array("Q", starts))))
"""


@pytest.mark.needs("root", "fuse")
@pytest.mark.parametrize("word", ["deaf", "mute"])
def test_file_system_that_does_not_answer(tmp_path: Path, word: str) -> None:
    """Nothing of it is touched: neither opened, nor looked up, nor asked for facts."""
    place = tmp_path / "mounted"
    place.mkdir()
    build_hard(tmp_path, "wild", "-static").rename(tmp_path / "static")
    status = tmp_path / "status"
    status.write_bytes(bytes(64))
    with fuse.mounted(place, tmp_path) as server:
        target = subprocess.Popen([str(server.place / "static"), "reaps", str(status)])
        try:
            witness.wait_for(lambda: any(status.read_bytes()))
            server.become(word)
            done = subprocess.run(
                [sys.executable, "-c", NAME_ALL, str(target.pid)],
                timeout=60 * witness.PATIENCE,
                capture_output=True,
                text=True,
                cwd=HERE.parent,
                check=False,
            )
        finally:
            target.kill()
    target.wait()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


class Debuginfod:
    """A debuginfod server on this machine: build id to file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                data = outer.files.get(self.path)
                self.send_response(404 if data is None else 200)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def debuginfod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Debuginfod]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)
    monkeypatch.setattr(debug_files, "silent", {})
    server = Debuginfod()
    thread = threading.Thread(target=server.server.serve_forever)
    thread.start()
    yield server
    server.server.shutdown()
    thread.join()
    server.server.server_close()


BUILD_ID = "a1b2c3d4e5f60718"


def stripped(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """Build a program whose names are in another file alone."""
    folder = tmp_path / name
    folder.mkdir()
    program = build(folder, "-g", f"-Wl,--build-id=0x{BUILD_ID}")
    debug = folder / "symbols"
    split(program, debug)
    return program, debug


def first_functions(pid: int, truth: dict[int, str]) -> list[str | None]:
    with Symbols(pid) as symbols:
        return [name.function for name in symbols.name(array("Q", truth))][:3]


def test_debuginfod(
    start: Start,
    tmp_path: Path,
    debuginfod: Debuginfod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server is asked only where the environment names it, and once per file."""
    program, debug = stripped(tmp_path, "one")
    path = f"/buildid/{BUILD_ID}/debuginfo"
    process, truth = start(program)
    assert first_functions(process.pid, truth) == [None] * 3
    assert debuginfod.asked == []
    monkeypatch.setenv("DEBUGINFOD_URLS", f"http://127.0.0.1:1/ {debuginfod.url}")
    # A server that sends another file's names is not believed.
    debuginfod.files[path] = Path(sys.executable).resolve().read_bytes()
    for copy in ("b", "c", "d"):  # tables are cached by file
        shutil.copy(program, program.parent / copy)
    process, truth = start(program.parent / "b")
    assert first_functions(process.pid, truth) == [None] * 3
    debuginfod.files[path] = debug.read_bytes()
    process, truth = start(program.parent / "c")
    with Symbols(process.pid) as symbols:
        found = [name.function for name in symbols.name(array("Q", truth))]
        assert found[:3] == [*truth.values()][:3]
        assert [note for note in symbols.notes if "debuginfod" in note]
    before = debuginfod.asked.count(path)
    process, truth = start(program.parent / "d")
    assert first_functions(process.pid, truth) == [*truth.values()][:3]
    assert debuginfod.asked.count(path) == before
    assert os.stat(tmp_path / "cache/pagescan/debuginfod").st_mode & 0o777 == 0o700


def test_debuginfod_that_does_not_answer(
    start: Start,
    tmp_path: Path,
    debuginfod: Debuginfod,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked once per run, and what happened is said; the next server is asked."""
    monkeypatch.setattr(debug_files, "TIMEOUT", 2 * witness.PATIENCE)
    program, debug = stripped(tmp_path, "one")
    debuginfod.files[f"/buildid/{BUILD_ID}/debuginfo"] = debug.read_bytes()
    shutil.copy(program, program.parent / "b")
    with socket.create_server(("127.0.0.1", 0)) as mute:  # connects, and no more
        place = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setenv("DEBUGINFOD_URLS", f"{place} {debuginfod.url}")
        process, truth = start(program)
        with Symbols(process.pid) as symbols:
            found = [name.function for name in symbols.name(array("Q", truth))]
            assert found[:3] == [*truth.values()][:3]
            (note,) = (note for note in symbols.notes if "not asked again" in note)
        assert place in note
        mute.settimeout(witness.PATIENCE)
        mute.accept()[0].close()
        (tmp_path / "cache/pagescan/debuginfod" / BUILD_ID).unlink()
        process, truth = start(program.parent / "b")
        assert first_functions(process.pid, truth) == [*truth.values()][:3]
        mute.settimeout(0)
        with pytest.raises(BlockingIOError):
            mute.accept()
    assert len(debuginfod.asked) == 2


def test_debuginfod_that_sends_a_little_at_a_time(
    debuginfod: Debuginfod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that takes too long is not waited for, and the server not asked again."""
    monkeypatch.setattr(debug_files, "LONGEST_DOWNLOAD", 0)
    monkeypatch.setenv("DEBUGINFOD_URLS", debuginfod.url)
    path = f"/buildid/{BUILD_ID}/debuginfo"
    debuginfod.files[path] = bytes(1 << 16)
    assert debug_files.fetch(BUILD_ID) == debug_files.fetch(BUILD_ID) == -1
    assert debuginfod.asked == [path]
    assert [*debug_files.silent.values()] == ["the download takes too long"]


HUGE_TABLE = """
import os, resource, sys
from pagescan.attribution import tables
from pagescan.attribution.code_files import CodeFiles
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
fd = os.open(sys.argv[1], os.O_RDONLY)
table = tables.table_of(fd, b"/huge", CodeFiles(os.getpid()))
print(table.source, *table.elf.left_out, len(table.functions))
"""


def test_table_of_symbols_that_is_too_large(tmp_path: Path) -> None:
    """Half a gigabyte of symbols is not read, and costs no memory."""
    program = build(tmp_path)
    raw = bytearray(program.read_bytes())
    size = (512 << 20) // 24 * 24
    section = elf.Elf(io.BytesIO(raw)).sections[".symtab"]
    at = raw.find(struct.pack("<QQ", section.offset, section.size))
    assert at > 0
    end = len(raw)
    raw[at : at + 16] = end.to_bytes(8, "little") + size.to_bytes(8, "little")
    program.write_bytes(raw)
    os.truncate(program, end + size)
    words = [sys.executable, "-c", HUGE_TABLE, str(program)]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=HERE.parent, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split()[:2] == [".dynsym", ".symtab"]


def test_a_table_that_is_too_large_is_said(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elf, "LARGEST_TABLE", 100)
    monkeypatch.setattr(tables, "cache", {})
    process, truth = start(build(tmp_path))
    with Symbols(process.pid) as symbols:
        symbols.name(array("Q", truth))
        assert any(".symtab of" in note for note in symbols.notes)


def test_the_cache_has_so_many_functions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables of large programs do not add up."""
    monkeypatch.setattr(tables, "cache", {})
    monkeypatch.setattr(tables, "CACHED_FUNCTIONS", 1)
    program = build(tmp_path)
    copy = tmp_path / "copy"
    shutil.copy(program, copy)
    for path in (program, copy):
        with path.open("rb") as file:
            tables.table_of(file.fileno(), b"/x", CodeFiles(os.getpid()))
        assert len(tables.cache) == 1


def test_link_out_of_the_root(tmp_path: Path, start: Start) -> None:
    """A debuglink names a file in the target's folders, and no path."""
    program = build(tmp_path, "-g")
    debug = tmp_path / "elsewhere" / "named.debug"
    split(program, debug)
    link = tmp_path / "named.debug"
    shutil.copy(debug, link)
    subprocess.run(["objcopy", f"--add-gnu-debuglink={link}", program], check=True)
    link.unlink()
    os.mkfifo(link)  # opening it would wait
    process, truth = start(program)
    assert first_functions(process.pid, truth) == [None] * 3
