"""Output to pipes, files, unusual terminals, and with unusual names."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Target, checked, command

Start = Callable[..., Target]

DEFAULT = ["start", "end", "pages", "written", "file", "present", "swapped", "mapping"]


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    pagescan = f"{sys.executable} -m pagescan"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line.replace("pagescan", pagescan)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_reader_that_goes_away() -> None:
    """`| head -1` is silent, and exit code 0."""
    done = _shell(f"pagescan scan {os.getpid()} --by page | head -1")
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.split() == DEFAULT


def test_full_device_is_an_error() -> None:
    """A full device is an error with a message: nothing is lost silently."""
    done = _shell(f"pagescan scan {os.getpid()} > /dev/full")
    assert done.returncode == 1
    assert "no space left on device" in done.stderr


def test_into_a_file(tmp_path: Path) -> None:
    """In a file there are no colours, and lines are whole."""
    done = _shell(f"pagescan scan {os.getpid()} > {tmp_path}/out")
    text = (tmp_path / "out").read_text()
    assert done.returncode == 0
    assert "\x1b" not in text
    most = len(DEFAULT) - 1  # a mapping's name may have blanks: "/memfd:x (deleted)"
    lines = text.splitlines()
    assert {len(line.split(None, most)) for line in lines} == {len(DEFAULT)}


def test_narrow_windows_do_not_wrap_pipes() -> None:
    """COLUMNS has no effect in a pipe."""
    wide = command("maps", os.getpid())
    narrow = command("maps", os.getpid(), env={"COLUMNS": "40"})
    assert len(narrow.stdout.splitlines()) >= len(wide.stdout.splitlines()) - 2
    assert max(map(len, narrow.stdout.splitlines())) > 80


def test_column_of_each_name() -> None:
    """Every column of the registry can be asked for, alone and added."""
    from pagescan.render.columns import MAPPING_COLUMNS, REGION_COLUMNS

    for verb, columns in (("scan", REGION_COLUMNS), ("maps", MAPPING_COLUMNS)):
        names = ",".join(columns)
        lines = command(verb, os.getpid(), "-c", names).stdout.splitlines()
        assert lines[0].split() == list(columns)
        added = command(verb, os.getpid(), "-c", "+perms", "--csv").stdout.splitlines()
        assert added[0].endswith(",perms")


def test_csv_is_csv(target: Start) -> None:
    """Numbers are plain, flags are 0 and 1, and a header can be left out."""
    made = target("m=anon,pages=8,fill=1")
    low, high = made.ranges["m"]
    text = command("scan", made.pid, f"{low}-{high}", "--csv").stdout
    (row,) = csv.DictReader(io.StringIO(text))
    assert (int(row["start"], 16), int(row["end"], 16)) == (low, high)
    assert (row["pages"], row["present"], row["file"]) == ("8", "1", "0")
    bare = command("scan", made.pid, f"{low}-{high}", "--csv", "--no-header").stdout
    assert text.splitlines()[1:] == bare.splitlines()


def test_json_lines_say_when_they_are_whole() -> None:
    """The stream has a header, regions, and a summary at its end."""
    lines = command("scan", os.getpid(), "--jsonl").stdout.splitlines()
    documents = [checked(line) for line in lines]
    assert [document["line"] for document in documents[:2]] == ["header", "region"]
    assert documents[-1]["line"] == "summary"
    assert documents[-1]["summary"]["regions"] == len(documents) - 2


def test_pages_and_regions_agree(target: Start) -> None:
    """--by page has the same pages, one per row."""
    made = target("m=anon,pages=16,fill=1")
    low, high = made.ranges["m"]
    pages = command("scan", made.pid, f"{low}-{high}", "--by", "page", "--json").json()
    assert [region["pages"] for region in pages["regions"]] == [1] * 16
    assert made.pages(pages, "m") == set(range(16))


def test_weird_names(target: Start, tmp_path: Path) -> None:
    """A path with blanks, a newline and escape codes is one line, and harmless."""
    backing = tmp_path / "a b\nc\x1b[31m[bold]"
    made = target(f"m=file,pages=4,shared=1,fill=1,file={backing}")
    plain = command("maps", made.pid).stdout
    (line,) = [line for line in plain.splitlines() if "a b" in line]
    assert line.endswith("a b\\012c\\x1b[31m[bold]")
    assert "\x1b" not in plain
    rows = command("maps", made.pid, "--json").json()["mappings"]
    (name,) = [row["mapping"] for row in rows if "a b" in row["mapping"]]
    # The name that maps prints can be used as RANGE, escaped or raw.
    for word in (name, line[line.index(str(tmp_path)) :], "*a b*"):
        shown = command("scan", made.pid, word, "--json").json()
        assert shown["summary"]["pages"] == 4


def test_brackets_are_themselves(target: Start) -> None:
    """In a RANGE '[anon]' is a name, not a set of letters."""
    made = target("m=anon,pages=4,fill=1")
    rows = command("maps", made.pid, "[anon]", "--json").json()["mappings"]
    assert {row["mapping"] for row in rows} == {"[anon]"}


def test_unaligned_ranges_are_widened(target: Start) -> None:
    """A RANGE is widened to whole pages, and stderr says so."""
    made = target("m=anon,pages=8,fill=1")
    low = made.ranges["m"][0]
    result = command("scan", made.pid, f"{low + 100}+5000", "--json")
    assert result.json()["summary"]["pages"] == 2
    assert "widened to whole pages" in result.stderr
    assert command("scan", made.pid, f"{low + 100}+5000", "-q").stderr == ""


def test_help_has_an_example_everywhere() -> None:
    """-h works on every command, and shows how it is used."""
    from pagescan.cli import COMMANDS

    for verb in COMMANDS:
        result = command(verb, "-h")
        assert result.code == 0
        assert f"pagescan {verb}" in result.stdout.partition("Example")[2]


def test_version_loads_nothing() -> None:
    """--version prints it without click, rich or the shim."""
    code = (
        "import sys;sys.argv=['pagescan','--version'];"
        "from pagescan.__main__ import main;main();"
        "print(sorted({'click','rich','cffi','json'}&set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"


def test_plain_output_needs_no_rich() -> None:
    """Rich is loaded for the live view only."""
    code = (
        "import sys;from pagescan.cli import run;"
        f"run(['scan','{os.getpid()}','--json']);print('rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
    json.loads(done.stdout[: done.stdout.rindex("False")])
