"""Datasets: each look is in them once, as it was recorded, and never in part."""

import contextlib
import glob
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pagescan
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.recording.arrow_tables import COLUMNS
from pagescan.recording.dataset import TABLES
from pagescan.recording.output_file import OutputFile
from pagescan.recording.records import RecordingFacts
from tests.conftest import HERE, command
from tests.synthetic import BEGUN, PAGE, TARGET, Made, look_of, mapping
from tests.unit.test_recording_store import ANON, HEAP, MAPPINGS, made, written

pytestmark = pytest.mark.needs("pyarrow")


def table(folder: Path, name: str) -> Any:
    """Return a table of a dataset as a pyarrow.Table."""
    import pyarrow.dataset as ds

    return ds.dataset(folder / name, partitioning="hive").to_table()


def pages_of(folder: Path) -> dict[int, list[int]]:
    """Return the written pages by look."""
    found: dict[int, list[int]] = {}
    regions = table(folder, "regions")
    columns = [regions.column(name).to_pylist() for name in ("look", "start", "end")]
    for look, start, end in zip(*columns, strict=True):
        found.setdefault(look, []).extend(range(start, end, PAGE))
    return {look: sorted(pages) for look, pages in found.items()}


def add(path: str, folder: Path, **words: Any) -> Any:
    """Add a recording to a dataset."""
    with pagescan.open_recording(path) as recording:
        return recording.write_parquet(str(folder), **words)


def test_a_dataset_is_what_was_recorded(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 40)
    path, folder = recording.close(), tmp_path / "set"
    added = add(path, folder, release="1.2")
    assert pages_of(folder) == {
        at: pages for at, pages in enumerate(recording.written, 1) if pages
    }
    looks = table(folder, "looks").sort_by("look").to_pylist()
    with pagescan.open_recording(path) as read:
        assert added.looks == len(read.looks) == len(looks) == 40
        assert added.regions == sum(look.regions for look in read.looks)
        assert added.files == len(TABLES)
        for row, look in zip(looks, read.looks, strict=True):
            assert row["look"] == look.number
            assert row["time"] == look.time
            assert (row["pages"], row["bytes"]) == (look.pages, look.pages * PAGE)
            assert row["regions"] == look.regions
            assert row["interval_ns"] == look.interval_ns
            assert row["target_share"] == pytest.approx(0.01)
            assert (row["target_ns"], row["used_ns"]) == (2_000_000, 200_000_000)
            assert (row["host"], str(row["date"])) == ("host", "2026-01-02")
            assert (row["pid"], row["name"]) == (4242, "worker")
            assert (row["exe"], row["release"]) == ("/usr/bin/worker", "1.2")
        counts = {
            (look.number, read.mappings[index].mapping.start): pages
            for look in read.looks
            for index, pages in zip(*look.counts, strict=True)
        }
    rows = table(folder, "mappings").to_pylist()
    assert {(row["look"], row["start"]): row["pages"] for row in rows} == counts
    assert len(rows) == len(counts)
    assert {row["mapping"] for row in rows} <= {"[heap]", "[anon]", "[stack]"}
    regions = table(folder, "regions").to_pylist()
    assert {row["categories"] for row in regions} == {"written present"}
    assert all(row["bytes"] == row["end"] - row["start"] for row in regions)
    assert all(
        row["mapping"] == ("[heap]" if row["start"] < ANON.start else "[anon]")
        for row in regions
    )


def test_the_columns_are_those_of_the_guide(tmp_path: Path) -> None:
    """docs/fleet.md names each column of each table, in order."""
    path = made(tmp_path / "a.pagescan", 2).close()
    add(path, tmp_path / "set")
    guide = (HERE.parent / "docs/fleet.md").read_text()
    for name in TABLES:
        columns = table(tmp_path / "set", name).column_names
        assert columns == [*(column for column, _ in COLUMNS[name]), "host", "date"]
        for column in columns:
            assert f"`{column}`" in guide, (name, column)


def test_no_look_is_added_twice(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 10)
    path, folder = str(recording.path), tmp_path / "set"
    assert add(path, folder, since_look=4).looks == 6
    assert add(path, folder, since_look=2).looks == 2  # of those before
    assert add(path, folder).looks == 2
    assert add(path, folder).looks == 0
    for _ in range(3):
        recording.look([HEAP.start])
    recording.close()
    assert add(path, folder, since_look=10).looks == 3
    assert add(path, folder, since_look=99).looks == 0
    numbers = table(folder, "looks").column("look").to_pylist()
    assert sorted(numbers) == list(range(1, 14))
    assert pages_of(folder) == {
        at: pages for at, pages in enumerate(recording.written, 1) if pages
    }
    moved = tmp_path / "moved.pagescan"  # the name of the file does not matter
    shutil.move(path, moved)
    assert add(str(moved), folder).looks == 0


def test_a_day_is_a_partition(tmp_path: Path) -> None:
    recording = Made(tmp_path / "a.pagescan", MAPPINGS, interval=30_000)
    for at in range(6):
        recording.look([HEAP.start + at * PAGE])
    add(recording.close(), tmp_path / "set")
    days = sorted(os.listdir(tmp_path / "set/looks/host=host"))
    assert days == ["date=2026-01-02", "date=2026-01-03", "date=2026-01-04"]
    assert len(table(tmp_path / "set", "looks")) == 6


def test_names_of_any_bytes(tmp_path: Path) -> None:
    odd = mapping(HEAP.start, 4, os.fsdecode(b"/tmp/\xff"))
    facts = RecordingFacts("0.1.0", "6.18.0", "a/b=c d\u00e9", BEGUN, 1.0)
    file = OutputFile(str(tmp_path / "a.pagescan"), facts)
    process = {"armed_at": BEGUN, "tracked_bytes": 1, "stopped_ns": 1}
    file.add_process(0, TARGET._replace(name=os.fsdecode(b"x\xfe")), process)
    file.add(0, 1, 1.0, look_of([odd.start], MappingSet([odd])))
    file.close()
    add(str(tmp_path / "a.pagescan"), tmp_path / "set")
    (row,) = table(tmp_path / "set", "regions").to_pylist()
    assert row["host"] == "a/b=c d\u00e9"
    assert (row["mapping"], row["name"]) == ("/tmp/?", "x?")


@pytest.mark.needs("pandas", "polars")
def test_other_libraries_read_it(tmp_path: Path) -> None:
    import pandas as pd
    import polars as pl

    recording = made(tmp_path / "a.pagescan", 10)
    folder = tmp_path / "set"
    add(recording.close(), folder)
    total = sum(map(len, recording.written))
    frame = pd.read_parquet(folder / "regions")
    assert frame["pages"].sum() == total
    assert str(frame["time"].dtype) == "datetime64[us, UTC]"
    assert set(frame["host"]) == {"host"}
    lazy = pl.scan_parquet(folder / "mappings/**/*.parquet", hive_partitioning=True)
    assert lazy.select(pl.col("pages").sum()).collect().item() == total


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        add(made(tmp_path / "a.pagescan", 2).close(), tmp_path / "set")
    finally:
        os.umask(before)
    for path in (tmp_path / "set").rglob("*"):
        assert not path.stat().st_mode & 0o077 or path.name == "_pagescan.json", path


# ---- nothing by halves -------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        words = ("mount", "-t", "tmpfs", "-o", options, "none", place)
        subprocess.run(words, check=True)
        return place

    yield mount
    subprocess.run(["umount", place], check=False)


@pytest.mark.needs("root")
def test_a_full_disk_adds_nothing(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    folder = disk("size=300k") / "set"
    add(made(tmp_path / "a.pagescan", 5).close(), folder)
    before = sorted(folder.rglob("*"))
    path = made(tmp_path / "b.pagescan", 300, 2).close()
    result = command("report", path, "--parquet", folder)
    assert result.code == 1
    assert f"cannot write {folder}: no space left on device" in result.stderr
    assert sorted(folder.rglob("*")) == before
    assert len(table(folder, "looks")) == 5


@pytest.mark.needs("root")
def test_a_folder_that_is_read_only(
    tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    place = disk("size=1m,ro")
    path = made(tmp_path / "a.pagescan", 5).close()
    for folder in (place, place / "set"):
        result = command("report", path, "--parquet", folder)
        assert result.code == 1
        assert f"cannot write {folder}: read-only file system" in result.stderr


def test_what_a_killed_writer_leaves(tmp_path: Path) -> None:
    """Files whose looks are missing are removed, and their looks are added again."""
    recording = made(tmp_path / "a.pagescan", 10)
    path, folder = recording.close(), tmp_path / "set"
    add(path, folder, since_look=5)
    (looks,) = folder.glob("looks/*/*/*.parquet")
    looks.unlink()
    (folder / ".partial-1/looks").mkdir(parents=True)
    assert add(path, folder).looks == 10
    assert sum(map(len, pages_of(folder).values())) == sum(map(len, recording.written))
    assert len(list(folder.rglob("*.parquet"))) == len(TABLES)
    assert not list(folder.glob(".partial*"))


def test_kills_at_any_moment(tmp_path: Path) -> None:
    """Whatever is there is whole, and the next one adds the rest."""
    recording = made(tmp_path / "a.pagescan", 60)
    path, folder = recording.close(), tmp_path / "set"
    words = [sys.executable, "-m", "pagescan", "report", path, "--parquet", str(folder)]
    rolled = random.Random(7)
    begun = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    whole = time.monotonic() - begun
    for _ in range(6):
        shutil.rmtree(folder)
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rolled.uniform(0.3, 0.95) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for file in glob.glob(f"{folder}/*/host=*/*/*.parquet"):
            import pyarrow.parquet as pq

            assert pq.ParquetFile(file).metadata.num_rows >= 0
        assert command(*words[3:]).code == 0
        assert pages_of(folder) == {
            at: pages for at, pages in enumerate(recording.written, 1) if pages
        }


SIGNALLED = """
import os, signal, sys
from pagescan.cli import run
number, *words = sys.argv[1:]
rename = os.rename

def signalled(*paths):
    os.kill(os.getpid(), int(number))
    rename(*paths)

os.rename = signalled
sys.exit(run(words))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_draft(tmp_path: Path, number: int) -> None:
    """It comes when all files are written, and none of them is in the dataset yet."""
    path, folder = made(tmp_path / "a.pagescan", 20).close(), tmp_path / "set"
    words = ["report", path, "--parquet", str(folder)]
    line = [sys.executable, "-c", SIGNALLED, str(int(number)), *words]
    done = subprocess.run(line, capture_output=True, check=False)
    assert done.returncode == (130 if number == signal.SIGINT else -number)
    assert not folder.exists()
    assert command(*words).code == 0


def test_writers_wait_for_each_other(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 30)
    path, folder = recording.close(), tmp_path / "set"
    words = [sys.executable, "-m", "pagescan", "report", path, "--parquet", str(folder)]
    running = [subprocess.Popen(words, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [one.wait(60) for one in running] == [0, 0, 0]
    assert sorted(table(folder, "looks").column("look").to_pylist()) == list(
        range(1, 31)
    )


def test_a_damaged_recording_gives_what_is_whole(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 100)
    path, folder = Path(recording.close()), tmp_path / "set"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = command("report", path, "--parquet", folder)
    assert result.code == 1
    assert "is damaged" in result.stderr
    found = pages_of(folder)
    assert len(found) > 30
    assert all(found[at] == recording.written[at - 1] for at in found)


def test_a_recording_without_a_look_leaves_no_folder(tmp_path: Path) -> None:
    """A dataset that was there before stays."""
    recording = made(tmp_path / "a.pagescan", 2)
    path, folder = Path(recording.close()), tmp_path / "set"
    whole = path.read_bytes()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DELETE FROM looks")
        file.commit()
    result = command("report", path, "--parquet", folder)
    assert f"{path} has no look" in result.stderr
    assert not folder.exists()
    folder.mkdir()
    command("report", path, "--parquet", folder)
    assert list(folder.iterdir()) == []
    other = tmp_path / "b.pagescan"
    other.write_bytes(whole)
    assert add(str(other), folder).looks == 2
    before = sorted(folder.rglob("*"))
    command("report", path, "--parquet", folder)
    assert sorted(folder.rglob("*")) == before
    path.write_bytes(whole[:100])
    result = command("report", path, "--parquet", tmp_path / "new")
    assert result.code == 1
    assert not (tmp_path / "new").exists()


def test_a_recording_that_grows(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan", 10)
    assert add(str(recording.path), tmp_path / "set").looks == 10
    assert written(pagescan.open_recording(str(recording.path)))
    recording.close()


# ---- what is refused ---------------------------------------------------------------


def test_no_folder_of_others_is_removed(tmp_path: Path) -> None:
    """A refused folder stays as it is, with files that have a name like a draft."""
    path = made(tmp_path / "a.pagescan", 2).close()
    other = tmp_path / "home"
    for name in (".partial-work", ".partial-7", "mine"):
        (other / name).mkdir(parents=True)
    with pytest.raises(PagescanError, match="is no dataset"):
        add(path, other)
    assert len(list(other.iterdir())) == 3
    (other / "mine").rmdir()
    with pytest.raises(PagescanError, match="is no dataset"):
        add(path, other)
    assert (other / ".partial-work").exists()


def test_what_is_no_dataset(tmp_path: Path) -> None:
    path = made(tmp_path / "a.pagescan", 2).close()
    result = command("report", path, "--parquet", tmp_path)
    assert result.code == 1
    assert "is not empty, and is no dataset of pagescan" in result.stderr
    assert os.listdir(tmp_path) == ["a.pagescan"]
    with pytest.raises(UsageError, match="is not a folder"):
        add(path, Path(path))
    folder = tmp_path / "set"
    add(path, folder)
    marker = folder / "_pagescan.json"
    marker.write_text(json.dumps({"pagescan_dataset": 99}))
    with pytest.raises(PagescanError, match="later pagescan"):
        add(path, folder)
    marker.write_text("{")
    with pytest.raises(PagescanError, match="is damaged"):
        add(path, folder)
    with pytest.raises(PagescanError, match="cannot write"):
        add(path, Path("/proc/none"))


def test_pyarrow_is_not_installed(tmp_path: Path) -> None:
    path = made(tmp_path / "a.pagescan", 2).close()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/pyarrow.py").write_text("raise ImportError('hidden')")
    done = subprocess.run(
        [sys.executable, "-m", "pagescan", "report", path, "--parquet", "set"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/hidden:{HERE.parent}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs the package pyarrow" in done.stderr
    assert "/pip install" in done.stderr
    assert "[parquet]'" in done.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--view", "ages"], "--view does not go with --parquet"),
        (["--range", "[heap]"], "--range does not go with --parquet"),
        (["--time", "1s-2s"], "--time does not go with --parquet"),
        (["--html", "x"], "--html does not go with --parquet"),
        (["--json"], "--json does not go with --parquet"),
        (["--csv"], "--csv does not go with --parquet"),
        (["--since-look", "-1"], "--since-look"),
        (["--engine", "spark"], "--engine needs --fleet"),
        (["--question", "growth"], "--question needs --fleet"),
    ],
)
def test_options_without_effect(tmp_path: Path, words: list[str], message: str) -> None:
    result = command("report", "x", "--parquet", tmp_path / "set", *words)
    assert result.code == 2
    assert message in result.stderr
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("words", [["--since-look", "3"], ["--release", "1"]])
def test_options_of_a_dataset_alone(words: list[str]) -> None:
    result = command("report", "x", *words)
    assert result.code == 2
    assert f"{words[0]} needs --parquet" in result.stderr
