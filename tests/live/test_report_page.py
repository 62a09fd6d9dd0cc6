"""`report --html`: the file that it writes, and what it refuses."""

import os
import stat
from pathlib import Path

import pytest

from tests.conftest import command
from tests.unit.test_page import data_of
from tests.unit.test_page_contents import LOOKS, made


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    """Return the path of a recording."""
    return str(made(tmp_path / "a.pagescan").path)


def test_a_page_is_written(recorded: str, tmp_path: Path) -> None:
    page = tmp_path / "a page.html"
    done = command("report", recorded, "--html", str(page))
    assert (done.code, done.stdout) == (0, "")
    assert f"a page.html: {LOOKS} looks, " in done.stderr
    facts, _ = data_of(page.read_text())
    assert len(facts["looks"]["to"]) == LOOKS
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a page.html", "a.pagescan"]


def test_a_page_is_written_again(recorded: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert command("report", recorded, "--html", str(page)).code == 0
    words = ["--html", str(page), "--time", "2s-5s", "--range", "[heap]"]
    assert command("report", recorded, *words).code == 0
    facts, _ = data_of(page.read_text())
    assert len(facts["looks"]["to"]) == 3
    assert {one["name"] for one in facts["mappings"]} == {"[heap]"}


def test_a_file_that_is_no_page_is_not_overwritten(recorded: str) -> None:
    before = Path(recorded).read_bytes()
    done = command("report", recorded, "--html", recorded)
    assert done.code == 1
    assert "exists, and is no page" in done.stderr
    assert Path(recorded).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--view", "ages"], "--html shows everything, and takes no --view"),
        (["--json"], "--json does not go with --html"),
        (["--csv"], "--csv does not go with --html"),
    ],
)
def test_other_forms_are_refused(
    recorded: str, tmp_path: Path, words: list[str], message: str
) -> None:
    page = tmp_path / "page.html"
    done = command("report", recorded, "--html", str(page), *words)
    assert done.code == 2
    assert message in done.stderr
    assert not page.exists()


def test_a_folder_that_does_not_exist_is_said(recorded: str, tmp_path: Path) -> None:
    done = command("report", recorded, "--html", str(tmp_path / "no" / "page.html"))
    assert done.code == 1
    assert "page.html: no such file or directory" in done.stderr


def test_what_is_no_regular_file_is_not_replaced(recorded: str, tmp_path: Path) -> None:
    for path in ("/dev/null", str(tmp_path)):
        done = command("report", recorded, "--html", path)
        assert done.code == 1
        assert "is not a regular file" in done.stderr or "is a directory" in done.stderr
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_full_disk_leaves_the_page_that_was_there(
    recorded: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    assert command("report", recorded, "--html", str(page)).code == 0
    before = page.read_bytes()
    shell = f"ulimit -f 8; exec {os.path.abspath('.venv/bin/pagescan')} "
    code = os.system(f"bash -c '{shell} report {recorded} --html {page}' 2>/dev/null")
    assert code != 0
    assert page.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.pagescan", "page.html"]


def test_a_damaged_recording_says_so_on_its_page(recorded: str, tmp_path: Path) -> None:
    data = bytearray(Path(recorded).read_bytes())
    for at in range(len(data) // 2, len(data) // 2 + 4096, 5):
        data[at] ^= 0x55
    Path(recorded).write_bytes(data)
    page = tmp_path / "page.html"
    done = command("report", recorded, "--html", str(page))
    assert done.code == 1
    facts, _ = data_of(page.read_text())
    assert facts["notes"]
    assert all(note in done.stderr for note in facts["notes"])
