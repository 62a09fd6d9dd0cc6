"""Recordings: all committed looks are read, from damaged and cut files too."""

import contextlib
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import pagescan
from pagescan import native
from pagescan.model.errors import PagescanError, UsageError
from pagescan.model.mapping_set import MappingSet
from pagescan.model.memory import Untracked
from pagescan.native import Columns
from pagescan.recording import schema, views
from pagescan.recording.api import OpenRecording
from pagescan.recording.excerpt import Excerpt
from pagescan.recording.output_file import OutputFile, Ring
from pagescan.recording.records import RecordingFacts
from pagescan.recording.store import Recording, open_recording
from tests import synthetic
from tests.synthetic import (
    BEGUN,
    PAGE,
    TARGET,
    Made,
    look_of,
    mapping,
    pages_of,
    some_pages,
)

HEAP = mapping(0x5555_0000_0000, 4096, "[heap]")
ANON = mapping(0x7F00_0000_0000, 65536)
STACK = mapping(0x7FFF_FFF0_0000, 64, "[stack]")
MAPPINGS = MappingSet([HEAP, ANON, STACK])


def made(path: Path, looks: int = 40, seed: int = 1) -> Made:
    """Return a recording of random looks, still open."""
    rolled = random.Random(seed)
    recording = Made(path, MAPPINGS)
    for _ in range(looks):
        pages = some_pages(rolled, HEAP, rolled.randrange(50))
        recording.look([*pages, *some_pages(rolled, ANON, rolled.randrange(3000))])
    return recording


def written(recording: Recording) -> list[list[int]]:
    """Return the pages of each look of a recording."""
    return [pages_of(recording.columns(look)) for look in recording.looks]


regions = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.integers(1, 300), st.integers(0, 511)),
    max_size=60,
)


@given(regions, st.sampled_from([4096, 16384, 65536]))
def test_packed_regions_are_the_same(
    rows: list[tuple[int, int, int]], size: int
) -> None:
    columns, at = Columns.empty(), 0
    for gap, pages, bits in rows:
        columns.starts.append(at + gap * size)
        at = columns.starts[-1] + pages * size
        columns.ends.append(at)
        columns.categories.append(bits)
    data = native.pack(columns, size)
    for guess in (len(rows), 0, 1, 1 << 40, -1):
        assert native.unpack(data, guess, size) == columns


@given(st.binary(max_size=60))
@settings(max_examples=500)
def test_unpacking_anything_gives_regions_or_says_no(data: bytes) -> None:
    try:
        columns = native.unpack(data, 3, PAGE)
    except ValueError:
        return
    at = 0
    for start, end in zip(columns.starts, columns.ends, strict=True):
        assert at <= start < end
        at = end


def test_looks_are_read_as_they_were_written(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan")
    path = recording.close()
    with open_recording(path) as read:
        assert written(read) == recording.written
        assert read.damage == []
        assert read.facts.ending == "interrupted"
        assert read.facts.begun == BEGUN
        assert [look.number for look in read.looks] == list(range(1, 41))
        assert [row.mapping for row in read.mappings] == list(MAPPINGS)
        for look, pages in zip(read.looks, recording.written, strict=True):
            batch = read.batch(look)
            assert look.pages == len(pages) == batch.summary().pages
            assert look.regions == len(batch)
            counts = {
                read.mappings[index].mapping: count
                for index, count in zip(*look.counts, strict=True)
            }
            assert counts == {row.mapping: row.pages for row in batch.by_mapping()}
            assert look.cost.ioctls == 3
            assert look.cost.target_share == pytest.approx(0.01)
    assert os.listdir(tmp_path) == ["a.pagescan"]  # no journal is left


def test_a_growing_recording_is_read(tmp_path: Path) -> None:
    recording = made(tmp_path / "a.pagescan")
    with open_recording(str(recording.path)) as read:
        assert written(read) == recording.written
        assert read.facts.ending is None
    recording.look([HEAP.start])
    with open_recording(str(recording.path)) as read:
        assert written(read)[-1] == [HEAP.start]
    recording.close()


def test_the_file_alone_has_everything_though_it_is_read(tmp_path: Path) -> None:
    """A reader that has the file open at its end keeps the journal, but empty."""
    recording = made(tmp_path / "a.pagescan")
    with open_recording(str(recording.path)) as read:
        recording.close()
        (tmp_path / "copy.pagescan").write_bytes(recording.path.read_bytes())
        with open_recording(str(tmp_path / "copy.pagescan")) as copied:
            assert written(copied) == recording.written
            assert copied.facts.ending is not None
        assert written(read) == recording.written


def test_a_query_that_is_open_at_the_end_keeps_the_journal(tmp_path: Path) -> None:
    """The looks that the query must not see stay there, and are read from there."""
    recording = made(tmp_path / "a.pagescan")
    reader = sqlite3.connect(recording.path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM looks").fetchone()[0] > 0
    recording.close()
    with open_recording(str(recording.path)) as read:
        assert written(read) == recording.written
        assert read.facts.ending is not None
    reader.close()


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        recording = made(tmp_path / "a.pagescan", 2)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 3  # the journal, too
    assert modes == {0o600}
    recording.close()


def test_nothing_is_overwritten_unless_asked(tmp_path: Path) -> None:
    path = made(tmp_path / "a.pagescan", 2).close()
    facts = RecordingFacts("", "", "", BEGUN, 1.0)
    with pytest.raises(PagescanError, match="exists") as caught:
        OutputFile(path, facts)
    assert caught.value.hint is not None
    assert "--force" in caught.value.hint
    OutputFile(path, facts, overwrite=True).close("count")
    with open_recording(path) as read:
        assert read.looks == []
    with pytest.raises(PagescanError, match="is a directory"):
        OutputFile(str(tmp_path), facts, overwrite=True)


def test_a_recorder_is_killed_before_its_first_look(tmp_path: Path) -> None:
    """The file that it was to replace is lost only to a look of a later recorder."""
    path, journal = tmp_path / "a.pagescan", tmp_path / "a.pagescan-wal"
    path.write_text("dear")
    journal.write_text("dear, too")
    program = """
import datetime, os, signal, sys
from pagescan.recording.output_file import OutputFile
from pagescan.recording.records import RecordingFacts

begun = datetime.datetime.now(datetime.UTC)
OutputFile(sys.argv[1], RecordingFacts("", "", "", begun, 1.0), overwrite=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes()[:4] != b"dear"
    facts = RecordingFacts("", "", "", BEGUN, 1.0)
    OutputFile(str(path), facts, overwrite=True).discard()
    assert (path.read_text(), journal.read_text()) == ("dear", "dear, too")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(PagescanError, match="cannot create"):
        OutputFile(str(tmp_path / "no/a.pagescan"), facts)


def test_mappings_live_and_die(tmp_path: Path) -> None:
    recording = Made(tmp_path / "a.pagescan", MappingSet([HEAP]))
    grown = mapping(HEAP.start, 5000, "[heap]")
    gone = Untracked(ANON.start, ANON.end, "[anon]", "no reason")
    sets = [MappingSet([HEAP]), MappingSet([HEAP, ANON]), MappingSet([grown])]
    for at, mappings in enumerate(sets):
        look = look_of(
            [HEAP.start],
            mappings,
            second=at,
            new=[1] if at == 1 else [],
            untracked=(gone,) if at < 2 else (),
        )
        look.batch.labels = {HEAP.start: "[malloc]"} if at else {}
        recording.file.add(0, at + 1, 1.0, look)
    path = recording.close()
    with open_recording(path) as read:
        lives = {row.mapping: (row.first_look, row.last_look) for row in read.mappings}
        assert lives == {HEAP: (0, 1), ANON: (1, 1), grown: (2, 2)}
        assert [row.label for row in read.mappings] == ["[malloc]", None, "[malloc]"]
        (left_out,) = read.untracked
        assert left_out.item == gone
        assert (left_out.first_look, left_out.last_look) == (0, 1)
        batches = [read.batch(look) for look in read.looks]
        assert [list(batch.mappings) for batch in batches] == [
            list(mappings) for mappings in sets
        ]
        assert [batch.new for batch in batches] == [
            frozenset(),
            frozenset([1]),
            frozenset(),
        ]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    odd = mapping(HEAP.start, 4, os.fsdecode(b"/tmp/\xff\xfe"))
    recording = Made(tmp_path / os.fsdecode(b"\xff.pagescan"), MappingSet([odd]))
    recording.look([odd.start])
    with open_recording(recording.close()) as read:
        assert read.mappings[0].mapping == odd
        assert read.damage == []


def test_several_files_are_one(tmp_path: Path) -> None:
    first = made(tmp_path / "b.pagescan", 5)
    second = Made(tmp_path / "a.pagescan", MappingSet([STACK, ANON]))
    second.written = [[]] * 5  # so that its time is later
    second.look([STACK.start, STACK.start + PAGE])
    paths = [second.close("count"), first.close("rotated")]
    with open_recording(*paths) as read:
        assert written(read) == [*first.written, second.written[-1]]
        assert read.facts.ending == "count"
        last = read.looks[-1]
        (index,) = last.counts.mappings
        assert read.mappings[index].mapping == STACK
        assert read.batch(last).by_mapping()[0].mapping == STACK
    with pytest.raises(UsageError):
        open_recording()


# ---- damage ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_file_gives_what_is_whole(tmp_path: Path, seed: int) -> None:
    recording = made(tmp_path / "a.pagescan", 300)
    path = recording.close()
    data = Path(path).read_bytes()
    keep = random.Random(seed).randrange(len(data) // 3, len(data) - 1)
    Path(path).write_bytes(data[:keep])
    with open_recording(path) as read:
        numbers = [look.number for look in read.looks]
        last = f"up to {read.looks[-1].time:%H:%M:%S} found"
        assert f"{len(numbers)} looks {last}" in "; ".join(read.damage)
        lost = numbers[-1] - len(numbers)
        assert not lost or f"found, {lost} between them lost" in read.damage[0]
        # Pages are written in the order of looks, except for those that lead to them.
        assert len(numbers) > 300 * keep / len(data) - 20
        for look in read.looks:
            pages = pages_of(read.columns(look))
            assert pages in (recording.written[look.number - 1], []), look.number


@pytest.mark.parametrize("seed", range(20))
def test_no_damaged_look_is_shown(tmp_path: Path, seed: int) -> None:
    """Each look is as it was written, or is missing and named."""
    recording = made(tmp_path / "a.pagescan", 60)
    path = recording.close()
    rolled = random.Random(seed)
    data = bytearray(Path(path).read_bytes())
    for _ in range(rolled.choice([1, 5, 40])):
        at = rolled.randrange(100, len(data))  # the head of the file is another test
        data[at] ^= 1 << rolled.randrange(8)
    Path(path).write_bytes(data)
    wrong = 0
    try:
        read = open_recording(path)
    except PagescanError:
        return
    for look in read.looks:
        pages = pages_of(read.columns(look))
        expected = recording.written[look.number - 1]
        assert look.pages == len(expected)
        assert pages in (expected, [])
        wrong += pages != expected
    if wrong or len(read.looks) < 60:
        assert read.damage != []
    read.close()


def test_a_recording_that_has_lost_its_process(tmp_path: Path) -> None:
    """Its looks are shown nevertheless, by all views."""
    recording = made(tmp_path / "a.pagescan", 20)
    path = recording.close()
    query = "SELECT rootpage FROM sqlite_master WHERE name = 'processes'"
    with contextlib.closing(sqlite3.connect(path)) as file:
        ((root,),) = file.execute(query).fetchall()
    data = bytearray(Path(path).read_bytes())
    data[(root - 1) * 4096 : root * 4096] = bytes(4096)
    Path(path).write_bytes(data)
    with open_recording(path) as read:
        assert "the facts of the process are lost" in "; ".join(read.damage)
        assert written(read) == recording.written
        for view in (views.summary, views.ages, views.working_set, views.phases):
            assert view(Excerpt(read))


@pytest.mark.parametrize("column", ["pid", "start_time", "page_size", "armed_at"])
def test_text_in_the_place_of_a_number(tmp_path: Path, column: str) -> None:
    """Its checksum may be right: a hostile file is no more than a damaged one."""
    path = made(tmp_path / "a.pagescan", 5).close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(f"UPDATE processes SET {column} = '1/../../../x'")
        (row,) = file.execute("SELECT * FROM processes").fetchall()
        right = schema.checksum("processes", row[:-1])
        file.execute("UPDATE processes SET checksum = ?", (right,))
        file.commit()
    with open_recording(path) as read:
        assert [one.target.name for one in read.processes] == ["unknown"]
        assert "the facts of the process are lost" in "; ".join(read.damage)


def test_looks_of_a_lost_process_are_nobody_elses(tmp_path: Path) -> None:
    """If one of two processes is damaged, its looks are not given to the other."""
    recording = made(tmp_path / "a.pagescan", 5)
    other = TARGET._replace(pid=4343)
    process = {"armed_at": BEGUN, "tracked_bytes": 1 << 20, "stopped_ns": 0}
    recording.file.add_process(1, other, process)
    mappings = MappingSet([ANON])
    for second in (6, 7):
        look = look_of([ANON.start], mappings, second=second)
        recording.file.add(1, second, 1.0, look)
    path = recording.close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE processes SET name = 'changed' WHERE pid = 4242")
        file.commit()
    with open_recording(path) as read:
        assert [one.target.pid for one in read.processes] == [4343, 0]
        assert [look.process for look in read.looks] == [1] * 5 + [0] * 2
        owners = [row.process for row in read.mappings]
        assert owners == [1] * len(MAPPINGS) + [0]
        assert read.processes[1].first_look == 0
        assert read.processes[1].last_look == 4
        assert "the facts of the process are lost" in "; ".join(read.damage)


@pytest.mark.parametrize("word", [b"first_lock", b"first\x80look"])
def test_a_column_that_has_lost_its_name(tmp_path: Path, word: bytes) -> None:
    """SQLite would take the name of a column that does not exist for a text."""
    recording = made(tmp_path / "a.pagescan", 20)
    path = recording.close()
    data = Path(path).read_bytes()
    Path(path).write_bytes(data.replace(b'"first_look"', b'"' + word + b'"'))
    with open_recording(path) as read:
        assert read.damage != []
        assert written(read) == recording.written


def test_what_is_no_recording(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello, world, this is a text\n")
    with pytest.raises(PagescanError, match="is not a recording"):
        open_recording(str(other))
    other.write_bytes(b"")
    with pytest.raises(PagescanError, match="is not a recording"):
        open_recording(str(other))
    other.unlink()
    with pytest.raises(PagescanError, match="no such file"):
        open_recording(str(other))
    sqlite3.connect(other).execute("CREATE TABLE a (b)").connection.close()
    with pytest.raises(PagescanError, match="is not a recording"):
        open_recording(str(other))


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "a.pagescan", 2).close()
    file = sqlite3.connect(path)
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(PagescanError, match="later pagescan"):
        open_recording(path)


# ---- rings, disks ------------------------------------------------------------------


def test_a_ring_keeps_the_last_seconds(tmp_path: Path) -> None:
    recording = Made(tmp_path / "a.pagescan", MAPPINGS, ring=Ring(seconds=32))
    for at in range(200):
        recording.look([HEAP.start + at * PAGE])
        if at % 37 == 0:
            with open_recording(str(recording.path)) as read:
                assert written(read) == recording.written[-len(read.looks) :]
    with open_recording(recording.close()) as read:
        assert 32 <= len(read.looks) <= 36
        assert written(read) == recording.written[-len(read.looks) :]
        assert [row.mapping for row in read.mappings] == list(MAPPINGS)


def test_a_ring_keeps_its_size(tmp_path: Path) -> None:
    limit = 400_000
    recording = Made(tmp_path / "a.pagescan", MAPPINGS, ring=Ring(bytes=limit))
    rolled = random.Random(1)
    for _ in range(400):
        recording.look(some_pages(rolled, ANON, 2000))
    assert os.stat(recording.path).st_size < 1.3 * limit
    with open_recording(recording.close()) as read:
        assert len(read.looks) > 50
        assert written(read) == recording.written[-len(read.looks) :]


@pytest.mark.needs("root")
def test_a_full_disk_leaves_all_committed_looks(tmp_path: Path) -> None:
    import subprocess

    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", tmp_path], check=True
    )
    try:
        rolled = random.Random(1)
        recording = Made(tmp_path / "a.pagescan", MAPPINGS)
        many = (some_pages(rolled, ANON, 3000) for _ in range(2000))
        with pytest.raises(PagescanError, match="the disk is full") as caught:
            any(not recording.look(pages) for pages in many)
        assert "the looks before are in it" in str(caught.value)
        path = recording.close("full")
        with open_recording(path) as read:
            assert len(read.looks) > 20
            assert written(read) == recording.written[:-1]
            assert read.damage == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_bytes_per_region(tmp_path: Path) -> None:
    """At most two per region, where regions are many, facts and journal included."""
    rolled = random.Random(3)
    recording = Made(tmp_path / "a.pagescan", MAPPINGS)
    regions = sum(
        len(synthetic.columns_of(recording.written[-1]).starts)
        for _ in range(60)
        if recording.look(some_pages(rolled, ANON, 4000))
    )
    recording.close()
    assert os.stat(recording.path).st_size <= 2 * regions


def test_the_public_name() -> None:
    assert pagescan.open_recording is not open_recording  # it has the views, too
    assert issubclass(OpenRecording, pagescan.Recording)


def test_quiet_processes_have_empty_looks(tmp_path: Path) -> None:
    """A recorder of a group stores no look of a process that has not run."""
    recording = made(tmp_path / "a.pagescan", 0)
    process = {"armed_at": BEGUN, "tracked_bytes": 1 << 20, "stopped_ns": 0}
    recording.file.add_process(1, TARGET._replace(pid=4343), process)
    mappings = MappingSet([ANON])

    def look(key: int, number: int, page: int) -> None:
        found = look_of([ANON.start + page * PAGE], mappings, second=number)
        recording.file.add(key, number, 1.0, found, resident=(number + key) * PAGE)

    for number in range(1, 10):
        if number in (2, 5):
            look(1, number, number)
        if number == 8:
            recording.file.end_process(1, "exited")
        look(0, number, number)
    with open_recording(recording.close()) as read:
        quiet = [look for look in read.looks if look.process == 1]
        assert [look.number for look in quiet] == [2, 3, 4, 5, 6, 7]
        assert [look.pages for look in quiet] == [1, 0, 0, 1, 0, 0]
        assert [look.resident for look in quiet] == [3 * PAGE] * 3 + [6 * PAGE] * 3
        assert {look.interval_ns for look in quiet} == {10**9}
        numbers = [look.number for look in read.looks]
        assert numbers == sorted(numbers)
        assert [look.position for look in read.looks] == list(range(len(numbers)))
        for one in read.looks:
            expected = [] if not one.pages else [ANON.start + one.number * PAGE]
            assert pages_of(read.columns(one)) == expected
            assert read.batch(one).summary().pages == one.pages
        excerpt = Excerpt(read)
        assert excerpt.seconds == pytest.approx(9)
        assert views.summary(excerpt).peak == 2 * PAGE
        rows = {row.pid: row for row in views.processes(excerpt)}
        assert (rows[4343].pages, rows[4343].looks) == (2, 2)
        assert rows[4343].seconds == pytest.approx(6)
        assert rows[4242].pages == 9
        first = views.migration(excerpt, bandwidth=1 << 40).rounds[0]
        assert first.bytes <= 11 * PAGE
