"""Rows in the order that was asked for; shares of memory; the time of each row."""

import contextlib
import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Target, checked, command

Start = Callable[..., Target]
PAGE = os.sysconf("SC_PAGE_SIZE")


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of CSV."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def busy(target: Start) -> Target:
    """A target with three mappings of different sizes."""
    made = target(
        "a=anon,pages=30,fill=1", "b=anon,pages=90,fill=1", "c=anon,pages=60,fill=1"
    )
    made.write("a", set(range(0, 30, 2)))
    return made


def test_sort_by_a_number(busy: Target) -> None:
    """Ascending, or with a minus the largest first; the rows are the same."""
    plain = rows_of(command("maps", busy.pid, "--csv").stdout)
    up = rows_of(command("maps", busy.pid, "--csv", "--sort", "present").stdout)
    down = rows_of(command("maps", busy.pid, "--csv", "--sort", "-present").stdout)
    assert [int(row["present"]) for row in up] == sorted(
        int(row["present"]) for row in plain
    )
    assert [int(row["present"]) for row in down] == sorted(
        (int(row["present"]) for row in plain), reverse=True
    )
    assert sorted(map(str, up)) == sorted(map(str, plain)) == sorted(map(str, down))


def test_sort_by_two_columns(busy: Target) -> None:
    """The second one decides where the first is equal."""
    words = ("scan", busy.pid, "--csv", "--sort", "mapping,-start")
    rows = rows_of(command(*words).stdout)
    assert len({row["mapping"] for row in rows}) > 2
    assert rows == sorted(
        sorted(rows, key=lambda row: -int(row["start"], 16)),
        key=lambda row: row["mapping"],
    )


def test_sort_by_a_column_that_is_not_shown(busy: Target) -> None:
    """Such a column is computed too."""
    words = ("maps", busy.pid, "-c", "mapping", "--no-header", "--sort")
    labels = command(*words, "label").stdout
    assert sorted(labels.splitlines()) == sorted(
        command(*words, "start").stdout.splitlines()
    )


def test_sort_of_pages(busy: Target) -> None:
    """--by page sorts single pages, not their regions."""
    low, high = busy.ranges["b"]
    words = ("scan", busy.pid, f"{low}-{high}", "--by", "page", "--csv")
    rows = rows_of(command(*words, "--sort", "-start").stdout)
    assert [int(row["start"], 16) for row in rows] == list(
        range(high - PAGE, low - PAGE, -PAGE)
    )


def test_unknown_values_come_last(busy: Target) -> None:
    """Untracked memory has no count of written pages: it follows the others."""
    low, high = busy.ranges["a"]
    command("arm", busy.pid, f"{low}-{high}")
    for key in ("written", "-written"):
        rows = rows_of(command("maps", busy.pid, "--csv", "--sort", key).stdout)
        assert rows[0]["written"] != ""
        assert rows[-1]["written"] == ""


@pytest.mark.needs("tracking")
def test_sort_of_diff(busy: Target) -> None:
    """The mapping with most written pages is first."""
    command("arm", busy.pid)
    busy.write("a", {1, 2})
    busy.write("b", set(range(50)))
    words = ("diff", busy.pid, "--by", "mapping", "--sort", "-pages", "--csv")
    counts = [int(row["pages"]) for row in rows_of(command(*words).stdout)]
    assert counts[0] >= 50
    assert counts == sorted(counts, reverse=True)


FORKED = f"""
import ctypes, mmap, os, sys
memory = mmap.mmap(-1, 66 * {PAGE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + {PAGE}
protect = ctypes.CDLL(None).mprotect
for edge in (start - {PAGE}, start + 64 * {PAGE}):  # no neighbour is merged with it
    assert protect(ctypes.c_void_p(edge), ctypes.c_size_t({PAGE}), 0) == 0
for page in range(1, 65):
    memory[page * {PAGE}] = 1
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
for page in range(1, 17):
    memory[page * {PAGE}] = 2
print(start, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def forked() -> Iterator[tuple[int, int]]:
    """A process that shares 48 of 64 pages with its child: its pid, and where."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    yield process.pid, int(process.stdout.readline())
    process.communicate()
    assert process.returncode == 0


def test_shares_of_a_fork(forked: tuple[int, int]) -> None:
    """16 pages are private, 48 are shared by two: their share is a half."""
    pid, start = forked
    words = ("maps", pid, f"{start}+{64 * PAGE}")
    [row] = command(*words, "--smaps", "--json").json()["mappings"]
    assert (row["private"], row["shared"], row["pss"]) == (
        16 * PAGE,
        48 * PAGE,
        (16 + 24) * PAGE,
    )
    # -c reads smaps without the option; without both, nothing is read.
    named = ("-c", "private,shared,pss", "--bytes", "--no-header")
    assert command(*words, *named).stdout.split() == [
        str(row[name]) for name in ("private", "shared", "pss")
    ]
    [row] = command(*words, "--json").json()["mappings"]
    assert [row[name] for name in ("private", "shared", "pss")] == [None] * 3


def test_shares_of_a_part_are_unknown(forked: tuple[int, int]) -> None:
    """It has figures of whole mappings only."""
    pid, start = forked
    words = ("maps", pid, f"{start}+{8 * PAGE}", "--smaps", "--json")
    [row] = command(*words).json()["mappings"]
    assert [row[name] for name in ("private", "shared", "pss")] == [None] * 3


def test_shares_in_the_library(forked: tuple[int, int]) -> None:
    """The table has columns for them only if smaps was read."""
    import pagescan

    pid, start = forked
    where = [f"{start}+{64 * PAGE}"]
    table = pagescan.maps(pid, where, smaps=True).table()
    assert (table["private"], table["pss"]) == ([16 * PAGE], [40 * PAGE])
    assert "pss" not in pagescan.maps(pid, where).table()


def test_smaps_is_counted_in_the_cost(busy: Target) -> None:
    """It needs more calls, and holds the lock for a mapping at a time."""
    without = command("maps", busy.pid, "--json").json()["cost"]
    with_it = command("maps", busy.pid, "--json", "--smaps").json()["cost"]
    mappings = len(command("maps", busy.pid, "--csv").stdout.splitlines()) - 1
    assert with_it["ioctls"] >= without["ioctls"] + mappings


# ---- watch -----------------------------------------------------------------------


WATCHED = ("-n", "3", "-i", "0.1")


@pytest.fixture
def writer() -> Iterator[int]:
    """A process that writes all the time."""
    code = """
import mmap
memory = mmap.mmap(-1, 40 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(flush=True)
while True:
    for page in range(0, 40, 2):
        memory[page * 4096] = 1
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.communicate()


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("columns", ["", "start,pages", "+perms", "pages,tick,time"])
def test_csv_of_watch_has_the_time_in_each_row(writer: int, columns: str) -> None:
    """One header; tick and time come first, once, also with -c."""
    named = ("-c", columns) if columns else ()
    result = command("watch", writer, *WATCHED, "--csv", *named)
    assert result.code == 0, result.stderr
    head = result.stdout.splitlines()[0].split(",")
    assert head[:2] == ["tick", "time"]
    assert len(head) == len(set(head))
    assert result.stdout.count("tick,time,") == 1
    rows = rows_of(result.stdout)
    assert {row["tick"] for row in rows} == {"1", "2", "3"}
    assert all(TIME.fullmatch(row["time"]) for row in rows)
    assert len({(row["tick"], row["time"]) for row in rows}) == 3


def rows_of_plain(text: str) -> list[dict[str, str]]:
    """Return the rows of a plain output whose cells have no blanks."""
    head, *lines = (line.split() for line in text.splitlines())
    return [dict(zip(head, line, strict=True)) for line in lines if line != head]


@contextlib.contextmanager
def watching(*words: object) -> Iterator["subprocess.Popen[bytes]"]:
    """Run `watch`, armed; it is killed if it still runs at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pagescan", "watch", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    while b"Ctrl-C" not in (line := process.stderr.readline()):
        assert line
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("form", ["plain", "csv"])
def test_watch_prints_what_was_written_most_first(form: str, target: Start) -> None:
    """One line per mapping, in that order; --sort takes another one, by any column."""
    made = target(*(f"{name}=memfd,pages=64,fill=1" for name in "abc"))
    reader = rows_of_plain if form == "plain" else rows_of
    words = ("--csv",) if form == "csv" else ()

    def seen(*more: str) -> list[dict[str, str]]:
        asked = (made.pid, "-i", 60, "-c", "start,written", *words, *more)
        with watching(*asked) as process:
            for name, count in (("a", 3), ("b", 50), ("c", 9)):
                made.write(name, set(range(count)))
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate()
        return reader(out.decode())

    def places(rows: list[dict[str, str]]) -> list[str]:
        names = {f"{made.ranges[name][0]:#x}": name for name in "abc"}
        return [names[row["start"]] for row in rows if row["start"] in names]

    rows = seen()
    written = [int(row["written"]) for row in rows]
    assert written == sorted(written, reverse=True)
    assert places(rows) == ["b", "c", "a"]
    low = sorted("abc", key=lambda name: made.ranges[name])
    assert places(seen("--sort", "start")) == low
    assert places(seen("--sort", "written,start")) == ["a", "c", "b"]
    assert len(seen("--by", "region")) >= len(rows)


@pytest.mark.needs("tracking")
def test_growth_of_each_mapping(target: Start) -> None:
    """It is what became present at its addresses since the start."""
    made = target("b=memfd,pages=512")
    start = made.ranges["b"][0]
    asked = (made.pid, "-i", 0.1, "--json", "--by", "mapping")
    with watching(*asked) as process:
        assert process.stdout is not None
        lines = (checked(line.decode()) for line in process.stdout)
        next(lines)  # its first count has been made
        made.write("b", set(range(100)))
        next(line for line in lines if line["memory"]["growth"] >= 100 * PAGE)
        made.write("b", {0})
        rows = (row for line in lines for row in line["mappings"])
        row = next(row for row in rows if int(row["start"], 16) == start)
    assert row["growth"] == 100 * PAGE


@pytest.mark.needs("tracking")
def test_a_heap_that_grows_is_one_row_of_a_pipe(target: Start) -> None:
    """Tracking divides it; its row has the growth of the whole. Rows have labels."""
    made = target("m=memfd,pages=8")
    made.tell("brk 4 first")
    maps = Path(f"/proc/{made.pid}/maps").read_text().splitlines()
    heap = next(int(line.split("-")[0], 16) for line in maps if "[heap]" in line)
    with watching(made.pid, "-i", 0.1, "--csv") as process:
        assert process.stdout is not None
        lines = (line.decode() for line in process.stdout)
        head = next(lines)
        assert head.rstrip().endswith(",swapped,growth,label,mapping")
        rows = (dict(zip(*csv.reader((head, line)), strict=True)) for line in lines)
        made.write("m", {1})
        named = next(row for row in rows if row["mapping"].startswith("/memfd:"))
        assert named["label"] == "[memfd target]"
        made.tell("brk 64 more")
        made.where("more")
        made.write("more", set(range(64)))
        row = {"growth": "0"}
        for _ in range(1000):  # a count takes 2 % of the time: on a slow machine, rare
            made.write("more", {0})
            row = next(row for row in rows if row["mapping"] == "[heap]")
            if int(row["growth"] or 0) >= 64 * PAGE:
                break
        assert int(row["growth"]) >= 64 * PAGE
        assert int(row["start"], 16) == heap


@pytest.mark.needs("tracking")
def test_json_lines_of_watch_have_the_time_in_each_line(writer: int) -> None:
    """Each line has tick and time: those of its header."""
    result = command("watch", writer, *WATCHED, "--jsonl")
    lines = [checked(line) for line in result.stdout.splitlines()]
    assert {line["line"] for line in lines} == {"header", "region", "summary"}
    assert {line["tick"] for line in lines} == {1, 2, 3}
    assert len({(line["tick"], line["time"]) for line in lines}) == 3


@pytest.mark.needs("tracking")
def test_pipe_of_watch_has_a_line_per_mapping(writer: int) -> None:
    """Twenty regions of one mapping are one line; --by region shows them."""

    def most_lines(*words: str) -> int:
        text = command("watch", writer, "-n", "1", "-i", "0.1", *words).stdout
        return max(text.count(f"{name}\n") for name in ("[anon]", "[heap]"))

    mappings = len(command("maps", writer, "--csv").stdout.splitlines())
    assert most_lines() < min(20, mappings)
    assert most_lines("--by", "region") >= 20


@pytest.mark.needs("tracking")
def test_time_is_a_column_of_plain_rows(writer: int) -> None:
    """In a pipe it is there when it is asked for."""
    words = ("watch", writer, "-n", "1", "-i", "0.1", "-c", "tick,pages,mapping")
    head, *rows = command(*words).stdout.splitlines()
    assert head.split() == ["tick", "pages", "mapping"]
    assert {row.split()[0] for row in rows} == {"1"}


def test_other_commands_have_no_tick(busy: Target) -> None:
    """The columns of a look belong to watch alone."""
    result = command("scan", busy.pid, "-c", "tick")
    assert result.code == 2
    assert json.dumps("tick") not in result.stderr
    assert "unknown column: 'tick'" in result.stderr


@pytest.mark.needs("tracking")
def test_sessions_lists_what_a_watch_tracks(busy: Target) -> None:
    """`arm` refuses such a target, so the list has it; disarm --all leaves it alone."""
    words = [sys.executable, "-m", "pagescan", "watch", str(busy.pid), "-i", "0.1"]
    watch = subprocess.Popen(
        [*words, "--jsonl"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert watch.stdout is not None
    try:
        watch.stdout.readline()
        listed = command("sessions", "--json").json()
        assert listed["sessions"] == []
        [row] = listed["watches"]
        assert (row["target"]["pid"], row["holder"]) == (busy.pid, "watch")
        assert row["holder_pid"] == watch.pid
        head, line = command("sessions", "--csv").stdout.splitlines()
        assert head.endswith(",keeper,holder,group")
        assert line.endswith(f",{watch.pid},watch,-")
        assert "no session" in command("disarm", "--all").stderr
        assert watch.poll() is None
    finally:
        watch.terminate()
        watch.communicate()
    assert command("sessions", "--json").json()["watches"] == []


@pytest.mark.needs("tracking")
@pytest.mark.parametrize("form", ["--json", "--jsonl"])
def test_growth_is_in_the_json_of_watch(form: str, target: Start) -> None:
    """Memory that is mapped and filled while it is watched is growth, and present."""
    made = target("m=anon,pages=400,fill=1")
    words = [sys.executable, "-m", "pagescan", "watch", str(made.pid), "-i", "1"]
    watch = subprocess.Popen(
        [*words, "-n", "4", form],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watch.stdout is not None
    first = checked(watch.stdout.readline())
    made.tell("map late=anon,pages=700,fill=1")
    rest = [checked(line) for line in watch.communicate()[0].splitlines()]
    looks = [look for look in (first, *rest) if "memory" in look]
    assert len(looks) == 4
    before, after = looks[0]["memory"], looks[-1]["memory"]
    assert before["present"] >= 400 * PAGE
    assert 700 * PAGE <= after["growth"] < 900 * PAGE
    assert after["present"] - after["growth"] == before["present"] - before["growth"]
