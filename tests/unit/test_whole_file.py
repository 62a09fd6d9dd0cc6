"""A file that is whole at any moment, on file systems with and without O_TMPFILE."""

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pagescan.render.whole_file import write_whole


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder, where O_TMPFILE works or does not."""
    if not request.param:
        monkeypatch.setattr(os, "O_TMPFILE", 1 << 40)
        opened = os.open

        def refuse(path: str, flags: int, *words: int) -> int:
            if flags & 1 << 40:
                raise OSError(errno.EOPNOTSUPP, "not supported")
            return opened(path, flags, *words)

        monkeypatch.setattr(os, "open", refuse)
    return tmp_path


def test_it_is_replaced(place: Path) -> None:
    """It has its mode, whatever the umask; a link is not followed."""
    path, other = place / "one", place / "other"
    other.write_text("kept")
    path.symlink_to(other)
    before = os.umask(0o077)
    try:
        for data in (b"first", b"", b"x" * 100_000):
            write_whole(str(path), data, 0o644)
            assert path.read_bytes() == data
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert not path.is_symlink()
    assert other.read_text() == "kept"
    assert {one.name for one in place.iterdir()} == {"one", "other"}


def test_a_name_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in the present folder, and the longest one there can be."""
    monkeypatch.chdir(place)
    for name in ("one", "x" * 255):
        write_whole(name, b"1", 0o600)
        assert (place / name).read_bytes() == b"1"


def test_a_failure_leaves_nothing(place: Path) -> None:
    """Where a folder has the name, or the folder is missing; earlier files stay."""
    (place / "folder").mkdir()
    for name, code in (("folder", errno.EISDIR), ("none/one", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(code)):
            write_whole(str(place / name), b"1", 0o600)
    assert [one.name for one in place.iterdir()] == ["folder"]


def test_an_interrupt_leaves_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes right before the file gets its name."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(str(place / "one"), b"1", 0o600)
    assert list(place.iterdir()) == []


KILLED = """
import os, signal, sys
from pagescan.render import whole_file

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

os.fchmod = kill
whole_file.write_whole(sys.argv[1], b"new", 0o600)
"""


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    """The new file has no name yet, and the old one is as it was."""
    try:
        os.close(os.open(tmp_path, os.O_WRONLY | os.O_TMPFILE))
    except OSError as error:
        pytest.skip(f"no O_TMPFILE here: {error}")
    path = tmp_path / "one"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
