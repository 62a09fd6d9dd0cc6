"""Names are not to be had at any price: servers that do not answer, hostile files."""

import http.server
import os
import shutil
import subprocess
import sys
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest

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
                timeout=20 * witness.PATIENCE,
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
