"""Recordings with writers: what is read is what was written; the view adds it up."""

import contextlib
import gzip
import random
import sqlite3
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pagescan.attribution.look_writers import LookWriters, Source
from pagescan.model.errors import PagescanError
from pagescan.model.mapping_set import MappingSet
from pagescan.native import Columns
from pagescan.recording import schema, views
from pagescan.recording.compare import compare
from pagescan.recording.excerpt import Excerpt, parse_span
from pagescan.recording.output_file import OutputFile, Ring
from pagescan.recording.page_contents import page_contents
from pagescan.recording.records import RecordingFacts
from pagescan.recording.store import Recording, open_recording
from pagescan.recording.tables import WritersView
from pagescan.recording.timed_profile import timed_profile
from pagescan.render import firefox
from pagescan.target.selection import Selection
from tests.conftest import HERE, command
from tests.synthetic import BEGUN, PAGE, TARGET, Made, look_of, mapping, some_pages

HEAP = mapping(0x5555_0000_0000, 400, "[heap]")
ANON = mapping(0x7F00_0000_0000, 4096)
MAPPINGS = MappingSet([HEAP, ANON])
CODE = (("store", "/bin/a"), ("copy", "/lib/b"), (None, "[jit]"), ("store", "/lib/b"))
LOOKS = 30

Writer = tuple[tuple[str | None, str | None], int]
Written = dict[int, Writer | None]
"""Who wrote each page in a look; None: it is not known."""


@dataclass
class Authored:
    """A recording with writers, made by a test.

    Attributes:
        truth: By look: the writer of each page.
    """

    path: Path
    ring: Ring | None = None
    who: dict[str, bool] = field(default_factory=lambda: {"user_only": False})
    truth: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        facts = RecordingFacts("0.1.0", "6.18.0", "host", BEGUN, 1.0, who=self.who)
        self.file = OutputFile(str(self.path), facts, ring=self.ring)
        process = {"armed_at": BEGUN, "tracked_bytes": 1 << 20, "stopped_ns": 200_000}
        self.file.add_process(0, TARGET, process)

    def look(self, written: Written, lost: int = 0) -> None:
        """Add a look."""
        self.truth.append(written)
        second = float(len(self.truth))
        look = look_of(sorted(written), MAPPINGS, second=second)
        found = writers_of(written, lost)
        self.file.add(0, len(self.truth), 1.0, look, writers=found)


def writers_of(written: Written, lost: int) -> LookWriters:
    """Return writers as the attribution finds them."""
    sources: dict[tuple[Writer, int], int] = {}
    runs = Columns.empty()
    pages: Counter[int] = Counter()
    for page in sorted(written):
        writer, number = written[page], 0
        if writer is not None:
            key = writer, 0 if page < HEAP.end else 1
            number = sources.setdefault(key, len(sources) + 1)
            pages[number] += 1
        if runs.ends and runs.ends[-1] == page and runs.categories[-1] == number:
            runs.ends[-1] += PAGE
            continue
        for column, value in zip(runs, (page, page + PAGE, number), strict=True):
            column.append(value)
    rows = [
        Source(*code, tid, f"thread-{tid}", owner, pages[number])
        for ((code, tid), owner), number in sources.items()
    ]
    attributed = sum(pages.values())
    return LookWriters(rows, runs, attributed, 3, lost, attributed + 5)


def some_writers(rolled: random.Random) -> Written:
    """Return random pages with random writers; some are not known."""
    pages = [*some_pages(rolled, HEAP, 40), *some_pages(rolled, ANON, 60)]
    return {
        page: None
        if rolled.random() < 0.1
        else (rolled.choice(CODE), rolled.choice((11, 12, 4_000_000)))
        for page in pages
    }


def authored(path: Path, looks: int = LOOKS) -> Authored:
    """Return a recording of random looks that has ended."""
    rolled = random.Random(7)
    made = Authored(path)
    for _ in range(looks):
        made.look(some_writers(rolled), lost=1)
    made.file.close("count")
    return made


def read_back(recording: Recording) -> list[Written]:
    """Return the writers of each look's pages, from the file."""
    looks = []
    for look in recording.looks:
        found = recording.writers_of(look)
        assert found is not None
        written: Written = {}
        columns = recording.writer_runs(look)
        for start, end, number in zip(*columns, strict=True):
            writer = None
            if number:
                function, thread, _, _ = found.counts[number - 1]
                row = recording.functions[function]
                tid = recording.threads[thread].tid
                writer = ((row.function, row.module), tid)
            for page in range(start, end, PAGE):
                written[page] = writer
        looks.append(written)
    return looks


def check_view(view: WritersView, truth: list[Written]) -> None:
    """Compare the view with the truth, function by function."""
    writers = [writer for written in truth for writer in written.values()]
    known = [writer for writer in writers if writer is not None]
    codes = Counter(code for code, _ in known)
    assert (view.pages, view.attributed) == (len(writers), len(known))
    assert view.kernel_or_other + view.lost == len(writers) - len(known)
    assert {(row.function, row.module): row.pages for row in view.functions} == codes
    assert [row.pages for row in view.functions] == sorted(codes.values())[::-1]
    for row in view.functions:
        code = (row.function, row.module)
        mine = [
            Counter(one[0] for one in written.values() if one)[code]
            for written in truth
        ]
        assert row.written == row.pages * PAGE
        assert row.share == pytest.approx(row.pages / len(writers))
        assert row.looks == sum(map(bool, mine))
        assert row.peak == max(mine) * PAGE
        threads = Counter(tid for one, tid in known if one == code)
        assert row.thread_count == len(threads)
        assert threads[int(row.thread.removeprefix("thread-"))] == max(threads.values())


def test_writers_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = authored(tmp_path / "a.pagescan")
    with open_recording(str(made.path)) as recording:
        assert recording.damage == []
        assert recording.has_writers
        assert recording.facts.who == {"user_only": False}
        assert read_back(recording) == made.truth
        assert len(recording.functions) == len(CODE)
        assert {row.tid for row in recording.threads} == {11, 12, 4_000_000}
        view = views.writers(Excerpt(recording))
        check_view(view, made.truth)
        assert view.lost <= LOOKS
        assert (view.looks, view.ambiguous) == (LOOKS, 3 * LOOKS)


def test_the_view_of_a_part(tmp_path: Path) -> None:
    """--range cuts at pages, not at mappings; --time at looks."""
    made = authored(tmp_path / "a.pagescan")
    middle = ANON.start + 1000 * PAGE
    with open_recording(str(made.path)) as recording:
        selection = Selection.parse([f"{middle:#x}+{2000 * PAGE}"])
        view = views.writers(Excerpt(recording, selection))
        part = [
            {
                page: writer
                for page, writer in written.items()
                if middle <= page < middle + 2000 * PAGE
            }
            for written in made.truth
        ]
        check_view(view, part)
        assert view.samples is None
        heap = Excerpt(recording, Selection.parse(["[heap]"]))
        assert {row.mapping for row in views.writers(heap).functions} == {"[heap]"}
        span = parse_span("10s-20s", recording)
        check_view(views.writers(Excerpt(recording, span=span)), made.truth[10:20])


def test_a_ring_forgets_the_names_of_old_looks(tmp_path: Path) -> None:
    """A flight recorder of a server with a thread per request does not grow."""
    made = Authored(tmp_path / "a.pagescan", Ring(seconds=10))
    for at in range(200):
        code = (f"function-{at}", "/bin/a")
        made.look({HEAP.start + at * PAGE: (code, 1000 + at)})
    made.file.close("count")
    with open_recording(str(made.path)) as recording:
        kept = len(recording.looks)
        assert kept < 20
        assert read_back(recording) == made.truth[-kept:]
        assert len(recording.functions) == len(recording.threads) == kept


def test_a_name_comes_back_after_it_was_forgotten(tmp_path: Path) -> None:
    made = Authored(tmp_path / "a.pagescan", Ring(seconds=10))
    for at in range(100):
        code = CODE[0] if at in (0, 99) else CODE[1]
        made.look({HEAP.start: (code, 11)})
    made.file.close("count")
    with open_recording(str(made.path)) as recording:
        assert read_back(recording) == made.truth[-len(recording.looks) :]


def test_a_killed_recorder_has_the_names(tmp_path: Path) -> None:
    """Names are in the file with the look that has them first."""
    made = Authored(tmp_path / "a.pagescan")
    made.look(some_writers(random.Random(1)))
    with open_recording(str(made.path)) as recording:  # it is not closed
        assert read_back(recording) == made.truth
    made.file.close()


def second_schema(path: Path) -> None:
    """Write the file that a pagescan with the second schema made: six looks."""
    path.write_bytes(
        gzip.decompress((HERE / "golden/version2.pagescan.gz").read_bytes())
    )


@pytest.mark.parametrize("damaged", [False, True])
def test_a_recording_of_the_second_schema_opens(tmp_path: Path, damaged: bool) -> None:
    """It has writers, and no processor time: the share of all looks is not known."""
    path = tmp_path / "a.pagescan"
    second_schema(path)
    if damaged:  # SQLite cannot open it; the rows are found one by one
        with path.open("r+b") as file:
            file.seek(100)
            file.write(bytes(40))
    with open_recording(str(path)) as recording:
        assert bool(recording.damage) == damaged
        assert len(recording.looks) == 6
        assert recording.has_writers
        assert {look.cost.used_ns for look in recording.looks} == {None}
        assert recording.looks[0].cost.target_share == pytest.approx(0.01)
        assert recording.looks[0].cost.ioctls == 3
        made = Authored(tmp_path / "b.pagescan")
        rng = random.Random(4)
        for _ in range(6):
            made.look(some_writers(rng))
        assert read_back(recording) == made.truth
        assert views.summary(Excerpt(recording)).cost.target_share is None


def test_a_recording_of_the_first_schema_opens(tmp_path: Path) -> None:
    """It has no tables of writers, and says that nobody recorded them."""
    path = tmp_path / "a.pagescan"
    second_schema(path)
    with contextlib.closing(sqlite3.connect(path)) as file:
        for table in schema.SINCE:
            file.execute(f"DROP TABLE {table}")
        file.execute("PRAGMA user_version = 1")
        file.commit()
    with open_recording(str(path)) as recording:
        assert recording.damage == []
        assert len(recording.looks) == 6
        assert not recording.has_writers
        excerpt = Excerpt(recording)
        assert views.summary(excerpt).writers is None
        with pytest.raises(PagescanError, match="does not say who wrote") as refusal:
            views.writers(excerpt)
        assert refusal.value.hint == "record --who keeps it"


def test_a_file_without_writers_is_named(tmp_path: Path) -> None:
    """It is the first of two files; the other one cannot see writes of the kernel."""
    plain = tmp_path / "plain.pagescan"
    file = OutputFile(str(plain), RecordingFacts("0.1.0", "6.18.0", "host", BEGUN, 1.0))
    process = {"armed_at": BEGUN, "tracked_bytes": 1 << 20, "stopped_ns": 200_000}
    file.add_process(0, TARGET, process)
    for number in (1, 2, 3):
        look = look_of([HEAP.start], MAPPINGS, second=number / 10)
        file.add(0, number, 0.1, look)
    file.close("count")
    made = Authored(tmp_path / "who.pagescan", who={"user_only": True})
    made.look({HEAP.start: (CODE[0], 11)})
    made.file.close("count")
    with open_recording(str(plain), str(made.path)) as recording:
        view = views.writers(Excerpt(recording))
        assert (view.looks, view.files_without_writers) == (1, (str(plain),))
        assert view.user_only
        late = Excerpt(recording, Selection(), parse_span("0.5s-2s", recording))
        assert views.writers(late).files_without_writers == ()
    for words in ((), ("--view", "writers"), ("--html", tmp_path / "a.html")):
        result = command("report", plain, made.path, *words)
        assert result.code == 0
        said = f"{plain}: 3 looks not counted among the functions"
        assert (said in result.stderr, str(made.path) in result.stderr) == (True, False)
    document = command("report", plain, made.path, "--view", "writers", "--json").json()
    assert document["writers"]["files_without_writers"] == [str(plain)]
    for words in (("--view", "ages"), ("--time", "0.5s-2s")):
        assert "not counted" not in command("report", plain, made.path, *words).stderr
    assert command("report", plain).stderr == ""


def test_damaged_writers_are_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    made = authored(tmp_path / "a.pagescan")
    with contextlib.closing(sqlite3.connect(made.path)) as file:
        file.execute("UPDATE writers SET attributed = attributed + 1 WHERE id = 5")
        file.execute("UPDATE writers SET runs = x'00' WHERE id = 6")
        file.execute("UPDATE functions SET function = 'other' WHERE id = 1")
        file.commit()
    with open_recording(str(made.path)) as recording:
        view = views.writers(Excerpt(recording))
        assert view.looks == LOOKS - 1
        assert recording.writers_of(recording.looks[4]) is None
        assert recording.writer_runs(recording.looks[5]).starts == array("Q")
        lost = [row for row in view.functions if row.function == "(name lost)"]
        assert sum(row.pages for row in view.functions) == view.attributed
        assert len(lost) == 1
        said = "; ".join(recording.damage)
        assert "1 of the writers are damaged" in said
        assert "1 of the functions are damaged" in said
        assert "the writers of the look at" in said


def test_a_cut_file_keeps_its_whole_rows(tmp_path: Path) -> None:
    """Each row that is found is in its own table."""
    made = authored(tmp_path / "a.pagescan", 300)
    data = made.path.read_bytes()
    made.path.write_bytes(data[: len(data) * 3 // 4])
    found_any = False
    with open_recording(str(made.path)) as recording:
        assert recording.damage != []
        assert 0 < len(recording.looks) < 300
        for look in recording.looks:
            found = recording.writers_of(look)
            found_any |= found is not None
            truth = made.truth[look.number - 1]
            known = sum(writer is not None for writer in truth.values())
            assert found is None or found.attributed == known
    assert found_any


def test_no_two_tables_have_equally_many_columns() -> None:
    """`salvage` knows the table of a row by its length."""
    lengths = [len(columns) for columns in schema.COLUMNS.values()]
    assert len(set(lengths)) == len(lengths)


def test_functions_side_by_side(tmp_path: Path) -> None:
    """Functions are paired by name and by the last part of the module's path."""
    old, new = Authored(tmp_path / "a.pagescan"), Authored(tmp_path / "b.pagescan")
    pages = [HEAP.start + at * PAGE for at in range(100)]
    old.look(dict.fromkeys(pages, (("store", "/opt/1/lib.so"), 11)))
    new.look(
        {
            page: (("store", "/opt/2/lib.so") if at % 2 else ("fresh", "/bin/a"), 12)
            for at, page in enumerate(pages)
        }
    )
    old.file.close()
    new.file.close()
    with open_recording(str(old.path)) as one, open_recording(str(new.path)) as other:
        rows = compare(Excerpt(one), Excerpt(other)).functions
    assert rows is not None
    assert [tuple(row) for row in rows] == [
        ("store", "/opt/2/lib.so", 100 * PAGE, 50 * PAGE, 1.0, 0.5),
        ("fresh", "/bin/a", None, 50 * PAGE, None, 0.5),
    ]


def test_the_page_has_the_functions(tmp_path: Path) -> None:
    made = authored(tmp_path / "a.pagescan")
    with open_recording(str(made.path)) as recording:
        excerpt = Excerpt(recording)
        rows = page_contents(excerpt).writers
        view = views.writers(excerpt)
    shown = [(row.function, row.pages) for row in rows]
    assert shown[: len(CODE)] == [
        (row.function or "(no name)", row.pages) for row in view.functions
    ]
    assert dict(shown[len(CODE) :]) == {
        "(kernel or other process)": view.kernel_or_other,
        "(lost)": view.lost,
    }


def test_a_profile_has_the_bytes_and_times_of_the_looks(tmp_path: Path) -> None:
    """A sample per look, thread and function; all together are the written bytes."""
    made = authored(tmp_path / "a.pagescan")
    with open_recording(str(made.path)) as recording:
        profile, looks = timed_profile(Excerpt(recording))
        joined, several = timed_profile(Excerpt(recording), most=100)
    assert looks == 1
    found: Counter[tuple[float, int | None, str]] = Counter()
    for thread in profile.threads:
        for stack in thread.stacks:
            assert stack.at is not None
            found[stack.at, thread.tid, stack.frames[-1].function] += stack.bytes
    truth: Counter[tuple[float, int | None, str]] = Counter()
    nobody = 0
    for at, written in enumerate(made.truth):
        for writer in written.values():
            if writer is None:
                nobody += PAGE
                continue
            (function, module), tid = writer
            truth[(at + 1) * 1000.0, tid, function or module or ""] += PAGE
    assert +Counter({key: n for key, n in found.items() if key[1]}) == truth
    assert sum(n for key, n in found.items() if key[1] is None) == nobody
    assert joined.bytes == profile.bytes == sum(map(len, made.truth)) * PAGE
    assert several > 1
    assert sum(len(thread.stacks) for thread in joined.threads) < 200


def test_a_profile_without_writers_has_the_mappings(tmp_path: Path) -> None:
    """It also has resident memory over time, as differences."""
    recorded = Made(tmp_path / "a.pagescan", MAPPINGS)
    for at, resident in enumerate((100, 130, 120)):
        recorded.look([HEAP.start, ANON.start + at * PAGE], resident=resident * PAGE)
    with open_recording(recorded.close()) as recording:
        document = firefox.document(timed_profile(Excerpt(recording)).profile)
    (thread,) = document["threads"]
    assert thread["samples"]["time"] == [1000, 1000, 2000, 2000, 3000, 3000]
    assert thread["samples"]["weight"] == [PAGE] * 6
    assert {"[heap]", "[anon]"} <= set(thread["stringArray"])
    (counter,) = document["counters"]
    assert counter["samples"]["count"] == [100 * PAGE, 30 * PAGE, -10 * PAGE]
    assert counter["mainThreadIndex"] == 0
    assert document["meta"]["profilingEndTime"] == 3001
